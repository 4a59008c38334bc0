"""The demo with SOLO in place of SOLOv2: shapes_tiny with another head.

Source: our own; the same data set, backbone and schedule, so that the members of the family can be compared.

    solo-dist train --config=shapes_tiny_solo --workdir=runs/solo
    solo-dist evaluate --config=shapes_tiny_solo --workdir=runs/solo
"""

from solo_dist import recipes
from solo_dist.config import Config, ModelConfig


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("shapes_tiny")
    config.name = "shapes_tiny_solo"
    # SOLOv2's own options return to their defaults: they have no effect here, and others would be refused.
    for option in ("shared_tower", "kernel_channels", "mask_channels"):
        setattr(config.model, option, getattr(ModelConfig, option))
    config.model.head = "solo"
    # Masks of several strides cannot be learnt as coverage.
    config.loss.mask_target, config.postprocess.mask_threshold = "bits", 0.55
    return config
