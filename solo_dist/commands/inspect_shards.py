r"""Prints statistics of a folder of shards; draws images with their masks and positive cells.

    solo-dist inspect --shards=data/shapes_tiny/train/shards
    solo-dist inspect --shards=mine/shards --num_images=12 --output=runs/look_at_mine --flipped

The statistics cover all records, or the first --records of them.
"""

from absl import flags

from solo_dist import cli
from solo_dist.errors import ConfigError

_SHARDS = flags.DEFINE_string("shards", None, "Folder of shards; a path or URL.", required=True)
_RECORDS = flags.DEFINE_integer("records", 0, "Records to count; 0: all.", lower_bound=0)
_OUTPUT = flags.DEFINE_string("output", "", "Folder for drawn images; empty: none are drawn.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 8, "Images to draw, spread over all records.", lower_bound=1)
_FLIPPED = flags.DEFINE_bool("flipped", False, "Draw the mirrored image and its targets.")


def main(arguments: list[str]) -> None:
    """Counts, then draws."""
    del arguments
    if flags.FLAGS["num_images"].present and not _OUTPUT.value:
        raise ConfigError("--num_images needs --output, the folder to write them to.")
    from solo_dist.data.schema import load_manifest
    from solo_dist.data.sharding import inspection

    manifest = load_manifest(_SHARDS.value)
    print(inspection.statistics(manifest, _RECORDS.value or manifest.num_records))
    if _OUTPUT.value:
        for path in inspection.draw_images(manifest, _NUM_IMAGES.value, _OUTPUT.value.rstrip("/"), _FLIPPED.value):
            print(path)


if __name__ == "__main__":
    cli.run(main)
