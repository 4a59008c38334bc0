"""Annotations that look like mistakes, from their masks and from what the shard tool noticed.

for split, suspicion in find_suspicious(splits)["tiny"]: ...
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from solo_dist.config import MASK_STRIDE
from solo_dist.data.schema import NOTICES
from solo_dist.data.sharding.reasons import remedy
from solo_dist.masks import rle
from solo_dist.reporting.splits import Split
from solo_dist.storage import file_io

WHOLE_IMAGE = 0.95
"""Share of the image from which a mask covers all of it."""
SAME = 0.9
"""IoU from which two masks are of one object."""

KINDS = {
    "tiny": f"masks below {MASK_STRIDE} x {MASK_STRIDE} pixels on the canvas: less than a pixel of the masks that the "
    "model predicts. A slip of the mouse, or the canvas is too small for them",
    "whole image": "masks of the whole image, which are often a background or a frame that was labelled by mistake",
    "annotated twice": f"masks of one category that cover the same pixels (IoU of {SAME} or more)",
    "two names": f"masks of different categories that cover the same pixels (IoU of {SAME} or more)",
}
"""Kinds that are found here, and what they are; the shard tool's notices are further kinds."""


class Suspicion(NamedTuple):
    """An annotation or image that may be wrong."""

    kind: str
    """A key of KINDS, or the words of a notice."""
    file: str
    """Name of the image."""
    truth: int
    """Position of the annotation among the split's instances, -1 if it is not one of them."""
    detail: str = ""


Found = Mapping[str, list[tuple[int, Suspicion]]]
"""Suspicions by kind, each with the number of its split; of a split the clearest come first."""


def find_suspicious(splits: Sequence[Split]) -> Found:
    """Everything that looks wrong in folders of shards: the kinds of KINDS first, then notices."""
    found: dict[str, list[tuple[int, Suspicion]]] = {kind: [] for kind in KINDS}
    for number, split in enumerate(splits):
        for one in (*_by_mask(split), *_doubles(split), *_noticed(split)):
            found.setdefault(one.kind, []).append((number, one))
    return {kind: group for kind, group in found.items() if group}


def explanation(kind: str) -> str:
    """What a kind means or what to do; empty if there is nothing to add to its name."""
    return KINDS.get(kind) or remedy(kind)


def _by_mask(split: Split) -> Iterator[Suspicion]:
    side = np.where(split.truths.crowd, np.inf, split.canvas_side)
    for truth in np.argsort(side, kind="stable")[: int((side < MASK_STRIDE).sum())].tolist():
        box = split.boxes[truth]
        yield _of(split, "tiny", truth, f"{box[2]:.0f} x {box[3]:.0f} pixels")
    area = rle.areas_of_rles(split.truths.masks)
    share = area / np.maximum(split.sizes.prod(axis=1), 1)[split.truths.image]
    for truth in np.flatnonzero(share >= WHOLE_IMAGE).tolist():
        yield _of(split, "whole image", truth, f"{share[truth]:.0%} of the image")


def _doubles(split: Split) -> Iterator[Suspicion]:
    """Pairs of nearly equal masks; the later one of each pair is named."""
    truths = split.truths
    edges = np.searchsorted(truths.image, np.arange(len(split.images) + 1))
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        plain = np.flatnonzero(~truths.crowd[first:end]) + first
        if len(plain) < 2:
            continue
        masks = [truths.masks[i] for i in plain]
        overlap = np.triu(coco_mask.iou(masks, masks, [False] * len(masks)), 1)
        for one, other in np.argwhere(overlap >= SAME).tolist():
            same = truths.category[plain[one]] == truths.category[plain[other]]
            kind = "annotated twice" if same else "two names"
            yield _of(split, kind, int(plain[other]), f"IoU {overlap[one, other]:.2f}")


def _noticed(split: Split) -> Iterator[Suspicion]:
    place = {int(number): truth for truth, number in enumerate(split.entry)}
    for entry in _notices(split):
        truth = place.get(entry.get("number", 0), -1)
        yield Suspicion(entry["reason"], entry["file"], truth, entry.get("detail", ""))


def _of(split: Split, kind: str, truth: int, detail: str) -> Suspicion:
    return Suspicion(kind, str(split.images[split.truths.image[truth]]["file_name"]), truth, detail)


def _notices(split: Split) -> list[dict[str, Any]]:
    """What the shard tool noticed; empty if it wrote no notice."""
    try:
        text = file_io.read(f"{split.manifest.folder}/{NOTICES}").decode()
    except tf.errors.NotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines()]
