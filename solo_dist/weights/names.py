"""Names of tensors in checkpoints of other programs, and our variables that they correspond to.

Our names are variable paths without the leading model name, for example `backbone/stage1/block0/conv1/kernel`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from solo_dist.models.resnet import STD

_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_LAYER = {"weight": "kernel", "bias": "bias"}

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


def _rule(pattern: str, build: Callable[[re.Match[str]], str]) -> Rule:
    return re.compile(pattern), build


_BACKBONE_RULES: list[Rule] = [
    _rule(r"conv1\.weight", lambda m: "backbone/stem/kernel"),
    _rule(r"bn1\.(\w+)", lambda m: f"backbone/stem/norm/{_NORM[m[1]]}"),
    _rule(
        r"layer(\d)\.(\d+)\.conv(\d)\.weight",
        lambda m: f"backbone/stage{m[1]}/block{m[2]}/conv{m[3]}/kernel",
    ),
    _rule(
        r"layer(\d)\.(\d+)\.conv(\d)\.conv_offset\.(\w+)",
        lambda m: f"backbone/stage{m[1]}/block{m[2]}/conv{m[3]}/offset/{_LAYER[m[4]]}",
    ),
    _rule(
        r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)",
        lambda m: f"backbone/stage{m[1]}/block{m[2]}/conv{m[3]}/norm/{_NORM[m[4]]}",
    ),
    _rule(
        r"layer(\d)\.(\d+)\.downsample\.0\.weight",
        lambda m: f"backbone/stage{m[1]}/block{m[2]}/shortcut/kernel",
    ),
    _rule(
        r"layer(\d)\.(\d+)\.downsample\.1\.(\w+)",
        lambda m: f"backbone/stage{m[1]}/block{m[2]}/shortcut/norm/{_NORM[m[3]]}",
    ),
]


def _conv_or_norm(prefix: str, kind: str, leaf: str) -> str:
    if kind == "conv.conv_offset":
        return f"{prefix}/offset/{_LAYER[leaf]}"
    return f"{prefix}/kernel" if kind == "conv" else f"{prefix}/norm/{_NORM[leaf]}"


# A convolution, the layer with its offsets if it is deformable, or the normalisation that follows it.
_PART = r"(conv|conv\.conv_offset|gn)\.(\w+)"


_BRANCH = {"cate": "category", "kernel": "kernel"}

_OFFICIAL_RULES: list[Rule] = [
    *[(re.compile(r"backbone\." + pattern.pattern), build) for pattern, build in _BACKBONE_RULES],
    _rule(r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", lambda m: f"fpn/lateral{int(m[1]) + 2}/{_LAYER[m[2]]}"),
    _rule(r"neck\.fpn_convs\.(\d)\.conv\.(\w+)", lambda m: f"fpn/output{int(m[1]) + 2}/{_LAYER[m[2]]}"),
    _rule(
        r"mask_feat_head\.convs_all_levels\.(\d)\.conv(\d)\." + _PART,
        lambda m: _conv_or_norm(f"mask_head/p{int(m[1]) + 2}_conv{m[2]}", m[3], m[4]),
    ),
    _rule(
        r"mask_feat_head\.conv_pred\.0\." + _PART,
        lambda m: _conv_or_norm("mask_head/output", m[1], m[2]),
    ),
    _rule(
        r"bbox_head\.(cate|kernel)_convs\.(\d)\." + _PART,
        lambda m: _conv_or_norm(f"head/{_BRANCH[m[1]]}_conv{m[2]}", m[3], m[4]),
    ),
    _rule(r"bbox_head\.d?solo_(cate|kernel)\.(\w+)", lambda m: f"head/{_BRANCH[m[1]]}/{_LAYER[m[2]]}"),
    # SOLO has one tower for masks and one output a level, Decoupled SOLO either or both of them for x and for y.
    _rule(
        r"bbox_head\.ins_convs(_[xy])?\.(\d)\." + _PART,
        lambda m: _conv_or_norm(f"mask_head/conv{m[1] or ''}{m[2]}", m[3], m[4]),
    ),
    _rule(
        r"bbox_head\.d?solo_ins_list(_[xy])?\.(\d)\.(\w+)",
        lambda m: f"mask_head/p{int(m[2]) + 2}_output{m[1] or ''}/{_LAYER[m[3]]}",
    ),
]


# mmdetection's names are the official ones with other prefixes (docs/numerics.md, quirk 31), for all of the family.
_MMDETECTION_TO_OFFICIAL = (
    ("mask_head.mask_feature_head.conv_pred.", "mask_feat_head.conv_pred.0."),
    ("mask_head.mask_feature_head.", "mask_feat_head."),
    ("mask_head.cls_convs.", "bbox_head.cate_convs."),
    ("mask_head.kernel_convs.", "bbox_head.kernel_convs."),
    ("mask_head.mask_convs", "bbox_head.ins_convs"),
    ("mask_head.conv_mask_list_", "bbox_head.dsolo_ins_list_"),
    ("mask_head.conv_mask_list.", "bbox_head.solo_ins_list."),
    ("mask_head.conv_cls.", "bbox_head.solo_cate."),
    ("mask_head.conv_kernel.", "bbox_head.solo_kernel."),
)


def official_name(name: str) -> str:
    """The official name of a tensor in a checkpoint of mmdetection; `dsolo_cate` is called `solo_cate`."""
    for theirs, official in _MMDETECTION_TO_OFFICIAL:
        if name.startswith(theirs):
            return official + name.removeprefix(theirs)
    return name


_ADELAIDET_RULES: list[Rule] = [
    _rule(r"backbone\.bottom_up\.stem\.conv1\.weight", lambda m: "backbone/stem/kernel"),
    _rule(r"backbone\.bottom_up\.stem\.conv1\.norm\.(\w+)", lambda m: f"backbone/stem/norm/{_NORM[m[1]]}"),
    _rule(
        r"backbone\.bottom_up\.res(\d)\.(\d+)\.(conv\d|shortcut)\.weight",
        lambda m: f"backbone/stage{int(m[1]) - 1}/block{m[2]}/{m[3]}/kernel",
    ),
    _rule(
        r"backbone\.bottom_up\.res(\d)\.(\d+)\.(conv\d|shortcut)\.norm\.(\w+)",
        lambda m: f"backbone/stage{int(m[1]) - 1}/block{m[2]}/{m[3]}/norm/{_NORM[m[4]]}",
    ),
    _rule(
        r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv2_offset\.(\w+)",
        lambda m: f"backbone/stage{int(m[1]) - 1}/block{m[2]}/conv2/offset/{_LAYER[m[3]]}",
    ),
    _rule(r"backbone\.fpn_(lateral|output)(\d)\.(\w+)", lambda m: f"fpn/{m[1]}{m[2]}/{_LAYER[m[3]]}"),
    # Towers are sequences of convolution, GroupNorm, ReLU.
    _rule(
        r"ins_head\.(cate|kernel)_tower\.(\d+)\.(\w+)",
        lambda m: _conv_or_norm(f"head/{_BRANCH[m[1]]}_conv{int(m[2]) // 3}", "gn" if int(m[2]) % 3 else "conv", m[3]),
    ),
    _rule(r"ins_head\.(cate|kernel)_pred\.(\w+)", lambda m: f"head/{_BRANCH[m[1]]}/{_LAYER[m[2]]}"),
    _rule(
        r"mask_head\.convs_all_levels\.(\d)\.conv(\d)\.([01])\.(\w+)",
        lambda m: _conv_or_norm(f"mask_head/p{int(m[1]) + 2}_conv{m[2]}", ("conv", "gn")[int(m[3])], m[4]),
    ),
    _rule(
        r"mask_head\.conv_pred\.([01])\.(\w+)",
        lambda m: _conv_or_norm("mask_head/output", ("conv", "gn")[int(m[1])], m[2]),
    ),
]

_LITE_NORM = {"0": "expand", "1": "depthwise", "2": "project"}

_EFFICIENTNET_LITE_RULES: list[Rule] = [
    _rule(r"_conv_stem\.weight", lambda m: "backbone/stem/kernel"),
    _rule(r"_bn0\.(\w+)", lambda m: f"backbone/stem/norm/{_NORM[m[1]]}"),
    _rule(r"_blocks\.(\d+)\._(expand|depthwise|project)_conv\.weight", lambda m: f"backbone/block{m[1]}/{m[2]}/kernel"),
    _rule(
        r"_blocks\.(\d+)\._bn(\d)\.(\w+)",
        lambda m: f"backbone/block{m[1]}/{_LITE_NORM[m[2]]}/norm/{_NORM[m[3]]}",
    ),
]


class Origin(NamedTuple):
    """A program, and how its names are translated."""

    label: str
    marker: str
    """A pattern that some name of such a checkpoint matches."""
    rules: list[Rule]
    rename: Callable[[str], str] = str
    """Applied to each name before the rules."""


# In this order: the first origin with a matching name is taken.
ORIGINS = (
    Origin("official SOLO", r"bbox_head\..*", _OFFICIAL_RULES),
    Origin("mmdetection", r"mask_head\.conv_cls\.weight", _OFFICIAL_RULES, official_name),
    Origin("AdelaiDet", r"backbone\.bottom_up\..*", _ADELAIDET_RULES),
    Origin("EfficientNet-Lite", r"_conv_stem\.weight", _EFFICIENTNET_LITE_RULES),
    Origin("torchvision ResNet", r"layer1\.0\.conv1\.weight", _BACKBONE_RULES),
)

# Counters of batches, constants of the preprocessing, and the classifiers of backbones.
_NOT_NEEDED = re.compile(r".*num_batches_tracked|pixel_mean|pixel_std|_?fc\.(weight|bias)|_conv_head\.weight|_bn1\.\w+")


class Translation(NamedTuple):
    """Arrays under our names and in our layout, and the names that correspond to no variable of ours."""

    label: str
    arrays: dict[str, np.ndarray]
    left_over: list[str]
    not_needed: list[str]


def translate(arrays: Mapping[str, np.ndarray]) -> Translation | None:
    """Recognises the origin of a checkpoint by its names and renames its arrays.

    Returns:
      None if the names are of no known origin.
    """
    for origin in ORIGINS:
        if any(re.fullmatch(origin.marker, name) for name in arrays):
            return _translate(arrays, origin)
    return None


def _translate(arrays: Mapping[str, np.ndarray], origin: Origin) -> Translation:
    result = Translation(origin.label, {}, [], [])
    for name, array in arrays.items():
        ours = _our_name(origin.rename(name), origin.rules)
        if ours is not None:
            result.arrays[ours] = _to_our_layout(array, ours)
        else:
            (result.not_needed if _NOT_NEEDED.fullmatch(name) else result.left_over).append(name)
    if origin.label == "AdelaiDet" and "backbone/stem/kernel" in result.arrays:
        # detectron2 feeds BGR with its mean subtracted; ours feeds RGB divided by a deviation: the same function.
        result.arrays["backbone/stem/kernel"] = result.arrays["backbone/stem/kernel"][:, :, ::-1] * STD[:, None]
    return result


def _our_name(name: str, rules: list[Rule]) -> str | None:
    for pattern, build in rules:
        match = pattern.fullmatch(name)
        if match:
            try:
                return build(match)
            except KeyError:  # a leaf that no layer of ours has
                return None
    return None


def _to_our_layout(array: np.ndarray, ours: str) -> np.ndarray:
    """OIHW -> HWIO, depthwise O1HW -> HWO1, and a dense layer's [out, in] -> [in, out]."""
    if array.ndim == 4:
        return array.transpose((2, 3, 0, 1) if "/depthwise/" in ours else (2, 3, 1, 0))
    return array.T


def keras_names(paths: Iterable[str]) -> Iterator[str]:
    """Names "layer/index" of weights with paths such as ".../layer/kernel": the index of each within its layer."""
    seen: Counter[str] = Counter()
    for path in paths:
        layer = path.split("/")[-2:][0]  # or the path itself, if it has one part
        yield f"{layer}/{seen[layer]}"
        seen[layer] += 1
