r"""Prints statistics of folders of shards; draws images with their targets, or writes a page on them.

    solo-dist inspect --shards=data/shapes_tiny/train/shards
    solo-dist inspect --shards=mine/shards --num_images=12 --output=runs/look_at_mine --flipped
    solo-dist inspect --shards=mine/shards/train --shards=mine/shards/validation --report --output=mine/data_report

The statistics cover all records, or the first --records of them. With --report, OUTPUT/index.html says what is in the
data: categories, sizes, positions, collisions on the grids, images that are nearly equal within a split or across
splits, and annotations that look wrong, with pictures. It opens from a disk without a network; json and csv files with
its numbers are beside it.
"""

from absl import flags

from solo_dist import cli
from solo_dist.errors import ConfigError

_SHARDS = flags.DEFINE_multi_string(
    "shards", None, "Folder of shards, a path or URL; several times: several splits.", required=True
)
_RECORDS = flags.DEFINE_integer("records", 0, "Records to count in each folder; 0: all.", lower_bound=0)
_OUTPUT = flags.DEFINE_string("output", "", "Folder for drawn images, or for the page; empty: no images are drawn.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 8, "Images to draw, spread over all records.", lower_bound=1)
_FLIPPED = flags.DEFINE_bool("flipped", False, "Draw the mirrored image and its targets.")
_REPORT = flags.DEFINE_bool("report", False, "Write a page on the data to --output instead of statistics and images.")


def main(arguments: list[str]) -> None:
    """Writes the page; or counts, then draws."""
    del arguments
    for name in ("num_images", "report"):
        if flags.FLAGS[name].present and not _OUTPUT.value:
            raise ConfigError(f"--{name} needs --output, the folder to write to.")
    if _REPORT.value:
        from solo_dist.reporting.data_report import write_data_report

        print(f"Report: {write_data_report(_SHARDS.value, _OUTPUT.value)}")
        return
    if _OUTPUT.value and len(_SHARDS.value) > 1:
        raise ConfigError("Images are drawn of one folder: give --shards once, or add --report.")
    from solo_dist.data.schema import load_manifest
    from solo_dist.data.sharding import inspection

    for folder in _SHARDS.value:
        manifest = load_manifest(folder)
        print(inspection.statistics(manifest, _RECORDS.value or manifest.num_records))
        if _OUTPUT.value:
            for path in inspection.draw_images(manifest, _NUM_IMAGES.value, _OUTPUT.value.rstrip("/"), _FLIPPED.value):
                print(path)


if __name__ == "__main__":
    cli.run(main)
