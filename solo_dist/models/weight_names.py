"""Names of tensors in other people's checkpoints and the variables of ours that they are.

Our names are variable paths without the leading model name, for example `backbone/stage1/block0/conv1/kernel`.
"""

import re
from collections.abc import Callable

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
    return f"{prefix}/kernel" if kind == "conv" else f"{prefix}/norm/{_NORM[leaf]}"


_BRANCH = {"cate": "category", "kernel": "kernel"}

_OFFICIAL_RULES: list[Rule] = [
    *[(re.compile(r"backbone\." + pattern.pattern), build) for pattern, build in _BACKBONE_RULES],
    _rule(r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", lambda m: f"fpn/lateral{int(m[1]) + 2}/{_LAYER[m[2]]}"),
    _rule(r"neck\.fpn_convs\.(\d)\.conv\.(\w+)", lambda m: f"fpn/output{int(m[1]) + 2}/{_LAYER[m[2]]}"),
    _rule(
        r"mask_feat_head\.convs_all_levels\.(\d)\.conv(\d)\.(conv|gn)\.(\w+)",
        lambda m: _conv_or_norm(f"mask_head/p{int(m[1]) + 2}_conv{m[2]}", m[3], m[4]),
    ),
    _rule(
        r"mask_feat_head\.conv_pred\.0\.(conv|gn)\.(\w+)",
        lambda m: _conv_or_norm("mask_head/output", m[1], m[2]),
    ),
    _rule(
        r"bbox_head\.(cate|kernel)_convs\.(\d)\.(conv|gn)\.(\w+)",
        lambda m: _conv_or_norm(f"head/{_BRANCH[m[1]]}_conv{m[2]}", m[3], m[4]),
    ),
    _rule(r"bbox_head\.solo_(cate|kernel)\.(\w+)", lambda m: f"head/{_BRANCH[m[1]]}/{_LAYER[m[2]]}"),
]


def _translate(name: str, rules: list[Rule]) -> str | None:
    for pattern, build in rules:
        match = pattern.fullmatch(name)
        if match:
            try:
                return build(match)
            except KeyError:  # a leaf that no layer of ours has
                return None
    return None


def official_name(name: str) -> str | None:
    """Our name of a tensor of the official SOLOv2 code; None where ours has no such variable."""
    return _translate(name, _OFFICIAL_RULES)


def torchvision_name(name: str) -> str | None:
    """Our name of a tensor of a torchvision or timm ResNet; None where ours has no such variable."""
    return _translate(name, _BACKBONE_RULES)
