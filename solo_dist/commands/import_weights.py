r"""Converts the weights of other programs (PyTorch, Keras) into a checkpoint; needs no PyTorch.

    solo-dist import-weights --config=solov2_r50_fpn_3x --input=SOLOv2_R50_3x.pth \
        --output=checkpoints/solov2_r50_3x
    solo-dist import-weights --config=solov2_light_448_r50_fpn_3x --input=Light.pth \
        --output=checkpoints/mine --data=mine/shards
    solo-dist import-weights --config=solov2_r50_fpn_3x --input=resnet50.safetensors --part=backbone \
        --output=checkpoints/resnet50

It reads official SOLO models, mmdetection's, AdelaiDet's (with --config.model.backbone.stride_in_1x1), ResNets of
torchvision and timm and EfficientNet-Lite as .pth or .safetensors, and backbones of keras.applications as .h5 or
.keras. It prints what became of every array. Give the result as --checkpoint to evaluate, predict and export, or as
model.weights or model.backbone.weights to a training.
"""

from absl import flags
from ml_collections import config_flags

from solo_dist import cli
from solo_dist.config import Config
from solo_dist.errors import ConfigError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe of the model to fill.", lock_config=True)
_INPUT = flags.DEFINE_string(
    "input",
    None,
    "The weights: a path, a URL, or the name of a published model, mmdet:NAME (`solo-dist models`).",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the checkpoint to write.", required=True)
_PART = flags.DEFINE_enum("part", "model", ["model", "backbone"], "What to convert.")
_STRICT = flags.DEFINE_bool("strict", True, "Fail if arrays are left over, missing or of another shape.")
_DATA = flags.DEFINE_string("data", "", "Folder of shards whose categories the model is to have; empty: COCO's 80.")
flags.mark_flag_as_required("config")

CANVAS = (64, 64)  # any: the variables of a model do not depend on it


def main(arguments: list[str]) -> None:
    """Reads, matches, prints the table and writes the checkpoint."""
    del arguments
    from solo_dist.run.checkpoint import MODEL, CheckpointMetadata, save_checkpoint
    from solo_dist.solo.network import build_model
    from solo_dist.weights.categories import adapt
    from solo_dist.weights.files import read_weights
    from solo_dist.weights.load import assign, check_arrangement
    from solo_dist.weights.match import match_weights, variables_by_name

    _check_output()
    config = _CONFIG.value
    categories = _categories(config)
    config.model.num_categories = len(categories)
    model = build_model(config.model, CANVAS)
    variables = variables_by_name(model)
    if _PART.value == "backbone":
        variables = {name: variable for name, variable in variables.items() if name.startswith("backbone/")}
    match = match_weights(read_weights(_INPUT.value), variables, _INPUT.value)
    if _PART.value == "backbone":
        match.not_needed += [name for name in match.left_over if not name.startswith("backbone/")]
        match.left_over = [name for name in match.left_over if name.startswith("backbone/")]
    print(match.table())
    check_arrangement(match, config.model)
    match.check(_STRICT.value)
    adapt(match, variables, [category["name"] for category in categories])
    assign(match, variables)
    arrays = {f"{MODEL}{variable.path}": variable.numpy() for variable in variables.values()}
    metadata = CheckpointMetadata(categories=categories, recipe=config.name, imported_from=_INPUT.value)
    save_checkpoint(_OUTPUT.value.rstrip("/"), arrays, metadata)
    print(f"Written to {_OUTPUT.value}.")


def _check_output() -> None:
    """Raises ConfigError if --output holds other files: writing a checkpoint deletes all files of its folder."""
    from solo_dist.run.checkpoint import ARRAYS_FILE, COMMIT_FILE
    from solo_dist.storage import file_io

    output = _OUTPUT.value.rstrip("/")
    others = [name for name in file_io.names(output) if not name.startswith((ARRAYS_FILE, COMMIT_FILE))]
    if others:
        raise ConfigError(
            f"--output={_OUTPUT.value} holds other files ({others[0]}), which would be deleted; name a folder for this "
            f"checkpoint alone, for example --output={output}/imported."
        )


def _categories(config: Config) -> list[dict]:
    from solo_dist.data.schema import load_manifest
    from solo_dist.weights.categories import coco_categories

    categories = load_manifest(_DATA.value).categories if _DATA.value else coco_categories()
    if config.model.num_categories not in (0, len(categories)):
        raise ConfigError(
            f"model.num_categories={config.model.num_categories}, but there are {len(categories)} categories: "
            "give --data=SHARDS with yours."
        )
    return categories


if __name__ == "__main__":
    cli.run(main)
