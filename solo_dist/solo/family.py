"""The members of the SOLO family, and what distinguishes one from another.

A member is chosen by `model.head`. Network, losses, targets, post-processing, training and export work with any member,
through the interface below, without conditions on its name. To add a member: write a class with these methods in a
module of its own, add it to MEMBERS, and add the names of its tensors in checkpoints of others to weights/names.py.
"""

from collections.abc import Mapping
from typing import Protocol

import keras
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, Config, GridConfig, ModelConfig
from solo_dist.errors import ConfigError
from solo_dist.solo.decoupled import DecoupledSOLO
from solo_dist.solo.decoupled_dynamic import DecoupledDynamicSOLO
from solo_dist.solo.mask_map import MaskMap
from solo_dist.solo.solov2 import SOLOv2
from solo_dist.solo.targets import TargetSpec
from solo_dist.solo.vanilla import SOLO


class Member(Protocol):
    """What a member of the family adds to backbone and pyramid.

    Its outputs are named tensors. One is `category_logits`, float32 [B,N,C], made by a layer with the path
    `head/category`; the others are its own, and only `mask_maps` knows what they mean.
    """

    options: frozenset[str]
    """Those of OPTIONS that have an effect on it."""

    def pyramid_levels(self, config: ModelConfig) -> tuple[str, ...]:
        """The levels out of P2..P6 that its heads read, finest first."""

    def heads(self, config: ModelConfig, recompute: bool) -> dict[str, keras.layers.Layer]:
        """The layers that follow the pyramid, by name; the names are the first part of the paths of their variables.

        Each is called with the levels of the pyramid by name, p2 [B,H/4,W/4,channels] to p6 [B,H/64,W/64,channels], and
        returns some of the outputs.

        Args:
          config: the network.
          recompute: keep few activations for the backward pass and compute the others again.
        """

    def mask_maps(self, outputs: Mapping[str, tf.Tensor], grid: GridConfig) -> list[MaskMap]:
        """How the mask of a cell follows from the outputs: the maps in the order of their cells, together all N."""

    def target_spec(self, grid: GridConfig) -> TargetSpec:
        """The targets it learns from, with bits for masks: the stride of each of its mask maps is among the strides."""


OPTIONS = ("kernel_channels", "kernel_groups", "mask_channels", "mask_features", "shared_tower")
"""Options of the model that some members do not have."""

MEMBERS: dict[str, Member] = {
    "solov2": SOLOv2(),
    "solo": SOLO(),
    "decoupled_solo": DecoupledSOLO(towers=("x", "y")),
    "decoupled_solo_light": DecoupledSOLO(towers=("xy",)),
    "decoupled_dynamic_solo": DecoupledDynamicSOLO(),
}


def find_member(config: ModelConfig) -> Member:
    """The member that `model.head` names.

    Raises:
      ConfigError: there is none of that name, or a given option has no effect on it.
    """
    if config.head not in MEMBERS:
        raise ConfigError(f"model.head={config.head!r} is not one of {', '.join(MEMBERS)}.")
    member = MEMBERS[config.head]
    for option in OPTIONS:
        value, default = getattr(config, option), getattr(ModelConfig, option)
        if value != default and option not in member.options:
            raise ConfigError(
                f"model.{option}={value} has no effect with model.head={config.head}; leave it at {default}."
            )
    return member


def target_spec(config: Config) -> TargetSpec:
    """The targets that the member named by `model.head` learns from with this loss.

    Raises:
      ConfigError: loss.mask_target=coverage, and the member has masks of several strides.
    """
    spec = find_member(config.model).target_spec(config.model.grid)
    if config.loss.mask_target == "bits":
        return spec
    if spec.mask_strides != (MASK_STRIDE,):
        raise ConfigError(
            f"loss.mask_target=coverage has no meaning with model.head={config.model.head}; leave it out."
        )
    return spec._replace(coverage=True)
