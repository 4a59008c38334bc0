"""The demo with Decoupled Dynamic SOLO in place of SOLOv2: half the mask features, and two kernels a cell.

Source: our own, after arXiv:2106.15947, which has no official code; the same data set, backbone and schedule, so that
the members of the family can be compared.

    solo-dist train --config=shapes_tiny_decoupled_dynamic_solo --workdir=runs/decoupled_dynamic_solo
    solo-dist evaluate --config=shapes_tiny_decoupled_dynamic_solo --workdir=runs/decoupled_dynamic_solo
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("shapes_tiny")
    config.name = "shapes_tiny_decoupled_dynamic_solo"
    config.model.head = "decoupled_dynamic_solo"
    config.model.kernel_groups = 2
    config.model.kernel_channels //= 2
    return config
