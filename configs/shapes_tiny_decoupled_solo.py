"""The demo with Decoupled SOLO in place of SOLOv2: shapes_tiny with another head.

Source: our own; the same data set, backbone and schedule, so that the members of the family can be compared.

    solo-dist train --config=shapes_tiny_decoupled_solo --workdir=runs/decoupled_solo
    solo-dist evaluate --config=shapes_tiny_decoupled_solo --workdir=runs/decoupled_solo
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("shapes_tiny_solo")
    config.name = "shapes_tiny_decoupled_solo"
    config.model.head = "decoupled_solo"
    return config
