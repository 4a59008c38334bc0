"""Matching of detections to true instances: overlaps of masks, and COCO's matching at an IoU of 0.5.

    matches = match_instances(truths, detections)
    correct = matches.truth_of >= 0

Only pairs that overlap are kept, so memory grows with the detections and not with detections times instances.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from solo_dist.reporting.instances import Detections, Truths

FOREGROUND = 0.5
"""Least IoU (intersection over union) at which a detection counts as the true instance."""
BACKGROUND = 0.1
"""Below this IoU a detection has nothing to do with a true instance."""


class Pairs(NamedTuple):
    """Detections and true instances of one image that overlap by BACKGROUND or more; [P] each, by detection."""

    detection: np.ndarray
    """int32."""
    truth: np.ndarray
    """int32, in the order of the true instances for each detection."""
    iou: np.ndarray
    """float64; for a crowd, the share of the detection that lies on it."""


@dataclasses.dataclass(frozen=True)
class Matches:
    """The result of the matching."""

    truths: Truths
    detections: Detections
    pairs: Pairs
    truth_of: np.ndarray
    """int32 [D]: the true instance of the same category that it was matched to, -1 for none."""
    ignored: np.ndarray
    """bool [D]: lies on a crowd of its category, so it is neither right nor wrong."""

    @property
    def found(self) -> np.ndarray:
        """bool [G]: true instances that were matched."""
        found = np.zeros(len(self.truths.image), bool)
        found[self.truth_of[self.truth_of >= 0]] = True
        return found


def match_instances(truths: Truths, detections: Detections) -> Matches:
    """Matches within each image and category as COCO's evaluation does at an IoU of 0.5."""
    pairs = overlaps(truths, detections)
    same = detections.category[pairs.detection] == truths.category[pairs.truth]
    truth_of, ignored = greedy(Pairs(*(column[same] for column in pairs)), truths.crowd, len(detections.image))
    return Matches(truths, detections, pairs, truth_of, ignored)


def overlaps(truths: Truths, detections: Detections) -> Pairs:
    """All pairs of at least BACKGROUND, whatever their categories."""
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    num_images = int(max(truths.image.max(initial=-1), detections.image.max(initial=-1))) + 1
    true_edges, edges = (np.searchsorted(rows.image, np.arange(num_images + 1)) for rows in (truths, detections))
    for image in np.flatnonzero((np.diff(true_edges) > 0) & (np.diff(edges) > 0)):
        here, true_here = slice(edges[image], edges[image + 1]), slice(true_edges[image], true_edges[image + 1])
        iou = coco_mask.iou(detections.masks[here], truths.masks[true_here], truths.crowd[true_here].astype(np.uint8))
        rows, places = np.nonzero(iou >= BACKGROUND)
        columns.append((rows + here.start, places + true_here.start, iou[rows, places]))
    kinds = (np.int32, np.int32, np.float64)
    parts = zip(*columns, strict=True) if columns else ([], [], [])
    return Pairs(*(np.concatenate([np.zeros(0), *part]).astype(kind) for part, kind in zip(parts, kinds, strict=True)))


def greedy(pairs: Pairs, crowd: np.ndarray, num_detections: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives each detection, the best first, the free true instance that it overlaps most, by FOREGROUND at least.

    As COCO's evaluation: of equal overlaps the later instance is taken, and a detection that finds no free instance
    is ignored if FOREGROUND of it lies on a crowd.

    Args:
      pairs: the candidates.
      crowd: bool [G].
      num_detections: D.

    Returns:
      int32 [D], the true instance or -1; bool [D], whether the detection is ignored.
    """
    truth_of, ignored = np.full(num_detections, -1, np.int32), np.zeros(num_detections, bool)
    candidates = pairs.iou >= FOREGROUND
    on_crowd = candidates & crowd[pairs.truth]
    ignored[pairs.detection[on_crowd]] = True
    plain = np.flatnonzero(candidates & ~on_crowd)
    # Of one detection, the largest overlap comes first, and of equal ones the later instance.
    order = plain[np.lexsort((-pairs.truth[plain], -pairs.iou[plain], pairs.detection[plain]))]
    taken: set[int] = set()
    for detection, truth in zip(pairs.detection[order].tolist(), pairs.truth[order].tolist(), strict=True):
        if truth_of[detection] < 0 and truth not in taken:
            truth_of[detection] = truth
            taken.add(truth)
    return truth_of, ignored & (truth_of < 0)
