"""Fine-tuning on CPU cores at 384 pixels: finetune_lite0_256 with finer masks and smaller objects, at twice the cost.

Source: our own; see finetune_lite0_256. Not measured.

    solo-dist train --config=finetune_lite0_384 --workdir=runs/mine --config.train.minutes=30 \
        --config.data.train=mine/shards/train --config.data.validation=mine/shards/validation
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("finetune_lite0_256")
    config.name = "finetune_lite0_384"
    config.data.canvas = (384, 384)
    config.model.grid.sizes = (32, 20, 12)
    config.model.grid.scale_ranges = ((1, 96), (66, 192), (144, 2048))
    config.train.minutes = 30
    return config
