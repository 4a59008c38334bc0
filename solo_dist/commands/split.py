r"""Splits a COCO json into train, validation and test; similar images stay in one part.

    solo-dist split --annotations=mine/instances.json --images=mine/images --output=mine/splits
    solo-dist split --annotations=mine/instances.json --images=mine/images --output=mine/splits \
        --shares=0.7,0.15,0.15 --group=folder --seed=1
    solo-dist split --annotations=mine/instances.json --output=mine/splits --group=table:plants.csv:plant

Near duplicates, found with --images, and images of one group stay together. The same seed gives the same split,
whatever the order in the file. Writes train.json, validation.json, test.json and split_report.json.
"""

import posixpath
import shlex

from absl import flags

from solo_dist import cli
from solo_dist.errors import ConfigError

_ANNOTATIONS = flags.DEFINE_string("annotations", None, "COCO instances json; a path or URL.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the parts.", required=True)
_IMAGES = flags.DEFINE_string("images", "", "Folder of the images; without it, near duplicates are not looked for.")
_SHARES = flags.DEFINE_list("shares", ["0.8", "0.1", "0.1"], "Shares of the images for train, validation and test.")
_GROUP = flags.DEFINE_string(
    "group",
    "",
    "Images that stay together: folder; prefix:TEXT, those with the same name before TEXT (prefix:_jpg.rf. for copies "
    "made by Roboflow); regex:PATTERN, those with the same match or first group; table:FILE.csv:COLUMN, those with the "
    "same value, image names in the first column. Empty: no groups.",
)
_SEED = flags.DEFINE_integer("seed", 0, "A different seed gives a different split.")
_NEAR_DUPLICATES = flags.DEFINE_bool("near_duplicates", True, "Keep images that show nearly the same together.")


def main(arguments: list[str]) -> None:
    """Splits, and prints the contents of each part and the next commands."""
    del arguments
    try:
        shares = [float(share) for share in _SHARES.value]
    except ValueError as error:
        raise ConfigError(f"--shares={','.join(_SHARES.value)} must be numbers, for example 0.8,0.1,0.1.") from error
    from solo_dist.importing.split_files import split_file, split_summary

    look = _NEAR_DUPLICATES.value and bool(_IMAGES.value)
    report = split_file(_ANNOTATIONS.value, _OUTPUT.value, _IMAGES.value, shares, _GROUP.value, _SEED.value, look)
    print(split_summary(report))
    remark = ", with the name of a recipe (add --keep_original if it changes scale or crop at random)"
    cli.print_next(*map(_shard_command, ("train", "validation")), remark=remark)


def _shard_command(part: str) -> str:
    output = _OUTPUT.value.rstrip("/")
    shards = f"{posixpath.dirname(output) or '.'}/shards"
    command = [f"--annotations={output}/{part}.json", f"--images={_IMAGES.value or 'IMAGES'}"]
    return f"{shlex.join(['solo-dist', 'shard', *command, f'--output={shards}/{part}'])} --config=RECIPE"


if __name__ == "__main__":
    cli.run(main)
