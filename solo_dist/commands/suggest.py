r"""Looks at labelled images and writes a recipe for them, with the reason for each choice.

    solo-dist suggest --annotations=mine/splits/train.json --images=mine/images --output=mine/recipe.py
    solo-dist suggest --annotations=mine/splits/train.json --output=mine/recipe.py --minutes=120
    solo-dist suggest --annotations=coco/shards/train --output=coco/recipe.py

Prints what it chose from: canvases with the AP that is possible on each, and grids with the objects that would lose
their cells, counted as `solo-dist shard` counts them. The choices fit this machine, so run it where you will train. The
recipe is a Python file that you can change; then shard again.
"""

import posixpath
import shlex

from absl import flags

from solo_dist import cli

_ANNOTATIONS = flags.DEFINE_multi_string(
    "annotations", None, "COCO instances json of the training images, or a folder of shards.", required=True
)
_OUTPUT = flags.DEFINE_string("output", "recipe.py", "The file to write.")
_IMAGES = flags.DEFINE_string("images", "IMAGES", "Folder of the images, for the commands that are printed.")
_SHARDS = flags.DEFINE_string("shards", "", "Folder of the shards to come; empty: shards beside the output.")
_MINUTES = flags.DEFINE_float("minutes", 30.0, "How long the training may take on this machine.", lower_bound=0.1)
_MOST_IMAGES = flags.DEFINE_integer("most_images", 2000, "Images to look at, spread evenly; 0: all.", lower_bound=0)


def main(arguments: list[str]) -> None:
    """Chooses, prints the tables and the next commands, and writes the file."""
    del arguments
    from solo_dist.storage import file_io
    from solo_dist.suggesting.facts import read_facts
    from solo_dist.suggesting.machine import look_at_machine
    from solo_dist.suggesting.suggest import shard_command, suggest

    facts = read_facts(_ANNOTATIONS.value, _MOST_IMAGES.value)
    parts = _parts()
    folders = [shards for _, shards in parts.values()]
    made = suggest(facts, look_at_machine(), _MINUTES.value, _name(), *folders)
    train = shlex.join(["solo-dist", "train", f"--config={_OUTPUT.value}", f"--workdir=runs/{_name()}"])
    file_io.write(_OUTPUT.value, made.text(train).encode())
    print(made.table())
    print(f"Wrote {_OUTPUT.value}, which has the reason for each choice.")
    keep = made.keeps_originals
    shard = [shard_command(source, _IMAGES.value, shards, _OUTPUT.value, keep) for source, shards in parts.values()]
    cli.print_next(*shard, train)


def _name() -> str:
    """Name of the recipe."""
    return posixpath.basename(_OUTPUT.value).removesuffix(".py")


def _parts() -> dict[str, tuple[str, str]]:
    """Annotations and folder of shards to make, of the training images and of those for validation.

    The latter are known if both files are named as `solo-dist split` names them.
    """
    from solo_dist.storage import file_io

    shards = _SHARDS.value.rstrip("/") or posixpath.join(posixpath.dirname(_OUTPUT.value), "shards")
    annotations = _ANNOTATIONS.value[0]
    parts = {"train": (annotations, f"{shards}/train")}
    validation = posixpath.join(posixpath.dirname(annotations), "validation.json")
    if posixpath.basename(annotations) == "train.json" and file_io.exists(validation):
        parts["validation"] = (validation, f"{shards}/validation")
    return parts


if __name__ == "__main__":
    cli.run(main)
