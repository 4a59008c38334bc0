"""The demo with Decoupled SOLO light in place of SOLOv2: shapes_tiny with another head.

Source: our own; the same data set, backbone and schedule, so that the members of the family can be compared.

    solo-dist train --config=shapes_tiny_decoupled_solo_light --workdir=runs/decoupled_solo_light
    solo-dist evaluate --config=shapes_tiny_decoupled_solo_light --workdir=runs/decoupled_solo_light
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("shapes_tiny_solo")
    config.name = "shapes_tiny_decoupled_solo_light"
    config.model.head = "decoupled_solo_light"
    return config
