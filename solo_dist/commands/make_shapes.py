r"""Makes a small data set of textured, overlapping shapes in COCO format.

    solo-dist make-shapes --output=data/shapes
    solo-dist make-shapes --output=data/shapes --side=256 --num_train=500 --num_categories=4 --seed=1
    solo-dist shard --annotations=data/shapes/train/instances.json --images=data/shapes/train/images \
        --output=data/shapes/train/shards --config=shapes_tiny

Masks cover the visible parts of the shapes. The same seed gives the same images. A split that exists is not made again.
"""

from absl import flags

from solo_dist import cli

_OUTPUT = flags.DEFINE_string("output", None, "Folder that gets train/ and validation/.", required=True)
_NUM_TRAIN = flags.DEFINE_integer("num_train", 2000, "Images to train on.", lower_bound=1)
_NUM_VALIDATION = flags.DEFINE_integer("num_validation", 200, "Images to evaluate on.", lower_bound=1)
_SIDE = flags.DEFINE_integer("side", 128, "Height and width of the images; the sizes of the shapes grow with it.")
_NUM_CATEGORIES = flags.DEFINE_integer("num_categories", 3, "How many of disc, square, triangle, star.")
_MOST_SHAPES = flags.DEFINE_integer("most_shapes", 4, "Most shapes in an image.")
_SEED = flags.DEFINE_integer("seed", 0, "Another seed gives other images.", lower_bound=0)


def main(arguments: list[str]) -> None:
    """Makes both splits."""
    del arguments
    from solo_dist.data.sharding import shapes

    settings = shapes.ShapesSettings(
        side=_SIDE.value, num_categories=_NUM_CATEGORIES.value, most_shapes=_MOST_SHAPES.value, seed=_SEED.value
    )
    for split, count in zip(shapes.SPLITS, (_NUM_TRAIN.value, _NUM_VALIDATION.value), strict=True):
        folder = f"{_OUTPUT.value.rstrip('/')}/{split}"
        made = shapes.make_shapes(folder, split, count, settings)
        print(f"{folder}: {'made' if made else 'is there already'}")


if __name__ == "__main__":
    cli.run(main)
