r"""Writes predictions as LabelMe, YOLO or COCO files, to be corrected in an annotation tool.

    solo-dist predict --workdir=runs/mine --images='new/*.jpg' --output=predictions
    solo-dist prelabel --results=predictions/coco_instances_results.json --annotations=mine/splits/train.json \
        --images=new --format=labelme --score=0.5 --output=new_labels
    solo-dist prelabel --annotations=mine/instances.json --images=mine/images --format=yolo --output=as_yolo

Without --results, the objects of --annotations are written. Masks keep an IoU of 0.99 as polygons, with few points.
Label files that are there already, which people may have corrected, are kept and counted, unless --overwrite is given.
"""

from absl import flags

from solo_dist import cli
from solo_dist.errors import ConfigError

_FORMAT = flags.DEFINE_enum("format", None, ["labelme", "yolo", "coco"], "What to write.", required=True)
_ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "Instances json, or manifest.json of the shards: it has the names of categories.",
    required=True,
)
_IMAGES = flags.DEFINE_string("images", None, "Folder of the images.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write to.", required=True)
_RESULTS = flags.DEFINE_string("results", "", "coco_instances_results.json of predict or evaluate.")
_SCORE = flags.DEFINE_float("score", 0.5, "Least confidence of a prediction.")
_SUBSET = flags.DEFINE_string("subset", "train", "yolo: folder of the labels and entry of data.yaml.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace label files that are there already.")


def main(arguments: list[str]) -> None:
    """Reads, writes and says how much."""
    del arguments
    from solo_dist.importing import coco_json
    from solo_dist.importing.coco_merge import read_coco
    from solo_dist.importing.predictions import read_predictions
    from solo_dist.importing.to_labelme import write_labelme
    from solo_dist.importing.to_yolo import write_yolo
    from solo_dist.storage import file_io

    target = f"{_OUTPUT.value.rstrip('/')}/instances.json"
    if _FORMAT.value == "coco" and not _OVERWRITE.value and file_io.exists(target):
        raise ConfigError(f"--output={_OUTPUT.value}: {target} is there already; --overwrite replaces it.")
    if _RESULTS.value:
        dataset = read_predictions(_RESULTS.value, _ANNOTATIONS.value, _IMAGES.value, _SCORE.value)
    else:
        dataset = read_coco([_ANNOTATIONS.value], _IMAGES.value, crowd="auto", boxes="reject")
    if _FORMAT.value == "labelme":
        write_labelme(dataset, _OUTPUT.value, _IMAGES.value, _OVERWRITE.value)
    elif _FORMAT.value == "yolo":
        write_yolo(dataset, _OUTPUT.value, _IMAGES.value, _SUBSET.value, _OVERWRITE.value)
    else:
        coco_json.write_coco(dataset, target, _IMAGES.value)
    print(coco_json.summary(dataset))
    print(f"Wrote {_OUTPUT.value} as {_FORMAT.value}.")


if __name__ == "__main__":
    cli.run(main)
