r"""Turns labels of LabelMe, YOLO, mask images or any COCO files into one COCO json.

    solo-dist import --format=labelme --input=mine/labelled --output=mine/instances.json
    solo-dist import --format=yolo --input=mine/data.yaml --output=mine/instances.json
    solo-dist import --format=masks --input=mine/masks --images=mine/images --output=mine/instances.json
    solo-dist import --format=coco --input=first/instances.json --input=second/instances.json \
        --rename=Cat:cat,kitten:cat --categories=cat,dog --output=mine/instances.json

Images stay where they are. All that was left out or changed is counted with its reason, and is entry by entry in a
file of the output's name ending in .report.json. For formats that are not here, labelformat and datumaro write COCO.
"""

import posixpath
import shlex

from absl import flags

from solo_dist import cli
from solo_dist.errors import ConfigError

_FORMAT = flags.DEFINE_enum("format", None, ["labelme", "yolo", "masks", "coco"], "What to read.", required=True)
_INPUT = flags.DEFINE_multi_string(
    "input", None, "Folder of the labels; data.yaml for yolo; json files for coco (several times).", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "COCO json to write; a folder gets instances.json.", required=True)
_IMAGES = flags.DEFINE_string("images", "", "Folder of the images if they are not below or beside the labels.")
_SUBSET = flags.DEFINE_string("subset", "", "yolo: train, validation or test; masks of VOC: a list of ImageSets.")
_BOXES = flags.DEFINE_enum("boxes", "reject", ["reject", "rectangles"], "Annotations that have a box and no mask.")
_CROWD = flags.DEFINE_enum(
    "crowd", "auto", ["auto", "instance", "crowd"], "coco: what iscrowd means. auto: objects in files of CVAT."
)
_CATEGORIES = flags.DEFINE_list("categories", [], "Only these categories, in the order of their ids.")
_RENAME = flags.DEFINE_list("rename", [], "OLD:NEW,...; categories of the same new name become one.")


def main(arguments: list[str]) -> None:
    """Reads, writes the json and prints the summary."""
    del arguments
    from solo_dist.importing import categories, coco_json, inputs

    output = _OUTPUT.value if _OUTPUT.value.endswith(".json") else f"{_OUTPUT.value.rstrip('/')}/instances.json"
    renames = categories.parse_renames(_RENAME.value)
    inputs.check_output(output, _INPUT.value)
    dataset = categories.with_categories(_read(output), renames, _CATEGORIES.value)
    images = coco_json.write_coco(dataset, output, _IMAGES.value)
    print(coco_json.summary(dataset))
    print(f"Wrote {output}; everything left out or changed is in {coco_json.report_path(output)}.")
    splits = f"{posixpath.dirname(output) or '.'}/splits"
    command = ["solo-dist", "split", f"--annotations={output}", f"--images={images}", f"--output={splits}"]
    cli.print_next(shlex.join(command))


def _read(output: str):  # type: ignore[no-untyped-def]  # a Dataset, whose module needs TensorFlow
    named, images = _INPUT.value, _IMAGES.value
    if _FORMAT.value == "coco":
        from solo_dist.importing.coco_merge import read_coco
        from solo_dist.importing.inputs import json_files

        paths, in_folders = json_files(named, output)
        return read_coco(paths, images, _CROWD.value, _BOXES.value, in_folders)
    if len(named) > 1:
        raise ConfigError(f"--format={_FORMAT.value} reads one --input; import each, then merge with --format=coco.")
    if _FORMAT.value == "labelme":
        from solo_dist.importing.labelme import read_labelme

        return read_labelme(named[0], images, f"{posixpath.dirname(output) or '.'}/embedded_images")
    if _FORMAT.value == "yolo":
        from solo_dist.importing.yolo import read_yolo

        return read_yolo(named[0], _SUBSET.value, _BOXES.value)
    from solo_dist.importing.instance_pngs import read_masks

    return read_masks(named[0], images, _SUBSET.value)


if __name__ == "__main__":
    cli.run(main)
