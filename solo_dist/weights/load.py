"""Loading weights into a whole model, or into its backbone."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from solo_dist.config import ModelConfig
from solo_dist.models.keras_backbone import KerasBackbone
from solo_dist.weights.categories import adapt
from solo_dist.weights.errors import WeightsError
from solo_dist.weights.files import read_weights
from solo_dist.weights.imagenet import imagenet_file, keras_imagenet
from solo_dist.weights.match import Match, match_weights, variables_by_name

log = logging.getLogger(__name__)


def assign(match: Match, variables: Mapping[str, Any]) -> None:
    """Writes the mapped arrays into the variables."""
    for name, array in match.mapped.items():
        variables[name].assign(array)


def check_arrangement(match: Match, config: ModelConfig) -> None:
    """Raises WeightsError if names and shapes fit but the network would compute something else."""
    if match.origin == "AdelaiDet" and not config.backbone.stride_in_1x1:
        raise WeightsError(
            f"{match.source}: bottlenecks of AdelaiDet have their stride in the 1x1 convolution; set "
            "--config.model.backbone.stride_in_1x1=True."
        )


def load_model_weights(model: Any, path: str, categories: Sequence[str] = ()) -> Match:
    """Loads the weights of a whole model; only the category layer may have another shape.

    If the checkpoint's categories are known and differ from the model's, the layer's weights of categories with equal
    names are kept, and those of the others start from random numbers. If they are not known, the layer is loaded if
    the number of categories agrees; otherwise it starts from random numbers.

    Args:
      model: the network.
      path: see `read_weights`.
      categories: names of the model's categories, in order; empty if they are not known.

    Raises:
      WeightFileError, CheckpointError: the file cannot be read.
      WeightsError: it cannot be downloaded, or does not fit.
    """
    variables = variables_by_name(model)
    match = match_weights(read_weights(path), variables, path)
    check_arrangement(match, model.config)
    match.check(strict=True)
    adapt(match, variables, categories)
    assign(match, variables)
    for name in match.reinitialised:
        log.warning("%s starts from random numbers", name)
    return match


def load_backbone_weights(model: Any) -> Match | None:
    """Loads `model.backbone.weights` into the backbone; if it is empty, does nothing and returns None.

    Other weights in the file, such as heads or a classifier, are ignored. If the file has no offsets for deformable
    convolutions, as ImageNet weights have none, they start at 0.

    Raises:
      WeightFileError, CheckpointError: the weights cannot be read.
      WeightsError: they cannot be downloaded, or do not fit.
    """
    config = model.config.backbone
    if not config.weights:
        return None
    if config.weights == "imagenet" and isinstance(model.backbone, KerasBackbone):
        arrays, source = keras_imagenet(model.backbone), f"ImageNet weights of {config.name}"
    else:
        source = imagenet_file(config.name) if config.weights == "imagenet" else config.weights
        arrays = read_weights(source)
    variables = {name: v for name, v in variables_by_name(model).items() if name.startswith("backbone/")}
    match = match_weights(arrays, variables, source)
    if any(name.startswith("backbone/") and "/offset/" in name for name in match.left_over):
        raise WeightsError(f"{source} has deformable convolutions; set --config.model.backbone.deformable=v1 or v2.")
    match.left_over = []
    offsets = [name for name in match.missing if "/offset/" in name]
    match.missing = [name for name in match.missing if name not in offsets]
    if offsets:
        log.info("%s has no offsets for deformable convolutions; they start at 0", source)
    check_arrangement(match, model.config)
    match.check(strict=True)
    assign(match, variables)
    return match
