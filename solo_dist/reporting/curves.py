"""Precision, recall and F1 over the score, the threshold to use, average precision, and calibration.

Precision is the share of the detections that are right; recall the share of the true instances that are found; F1
their harmonic mean. All at an overlap of 0.5 (AP50), from the matching of `matching.py`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from solo_dist.reporting.matching import Matches

_RECALLS = np.linspace(0, 1, 101)
_BINS = 10


@dataclasses.dataclass(frozen=True)
class Curve:
    """Precision and recall at each score that occurs, from the highest down; [S] each."""

    score: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, [S]."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / np.where(total > 0, total, 1)


class Operating(NamedTuple):
    """Precision, recall and F1 at a score threshold."""

    threshold: float
    """Detections of at least this score are shown."""
    precision: float
    recall: float
    f1: float


class Calibration(NamedTuple):
    """Whether scores can be read as probabilities, in ten bins of the score."""

    score: np.ndarray
    """float64 [10], mean score of the bin's detections; nan if there are none."""
    correct: np.ndarray
    """float64 [10], share of them that is right."""
    detections: np.ndarray
    """int64 [10], how many there are."""
    error: float
    """Expected calibration error: mean distance between the two over all detections; nan without detections."""

    @property
    def visible(self) -> tuple[float, float]:
        """Mean distance, and mean of score minus share, from the second bin on; nan without detections there.

        Most detections have scores near 0 and are false. They would hide how far off the scores that people see are.
        """
        known = (self.detections > 0) & (np.arange(_BINS) > 0)
        if not known.any():
            return float("nan"), float("nan")
        differences, weights = (self.score - self.correct)[known], self.detections[known] / self.detections[known].sum()
        return float(np.abs(differences) @ weights), float(differences @ weights)


def curve(score: np.ndarray, correct: np.ndarray, num_truths: int) -> Curve:
    """The curve of detections [D] in any order; without true instances recall is 0."""
    order = np.argsort(-score, kind="stable")
    score, right = score[order], np.cumsum(correct[order])
    last = np.flatnonzero(np.diff(score, append=-np.inf))  # the last of each group of equal scores
    return Curve(score[last], right[last] / (last + 1), right[last] / max(num_truths, 1))


def best_f1(curve: Curve) -> Operating | None:
    """The threshold of the largest F1, of equal ones the highest; None if no detection is right."""
    if not curve.f1.any():
        return None
    return _operating(curve, int(np.argmax(curve.f1)))


def at_precision(curve: Curve, wanted: float) -> Operating | None:
    """The threshold with the highest recall of those with at least the wanted precision; None if there is none."""
    reaching = np.flatnonzero(curve.precision >= wanted)
    return _operating(curve, int(reaching[-1])) if len(reaching) else None


def average_precision(score: np.ndarray, correct: np.ndarray, num_truths: int) -> float:
    """COCO's average of the precision at 101 recalls, of detections [D]; nan without true instances.

    Args:
      score: [D], by image; of equal scores the earlier detection counts first.
      correct: bool [D].
      num_truths: true instances, crowds left out.
    """
    if not num_truths:
        return float("nan")
    right = np.cumsum(correct[np.argsort(-score, kind="stable")])
    precision = right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(right / num_truths, _RECALLS, side="left")
    return float(np.append(envelope, 0)[np.minimum(place, len(envelope))].mean())


def ap_by_category(category: np.ndarray, score: np.ndarray, correct: np.ndarray, num_truths: np.ndarray) -> np.ndarray:
    """AP50 of each category, float64 [C]; nan for those without true instances.

    Args:
      category, score, correct: of the detections that count, [D].
      num_truths: int [C].
    """
    order = np.argsort(category, kind="stable")
    edges = np.searchsorted(category[order], np.arange(len(num_truths) + 1))
    rows = [order[first:end] for first, end in zip(edges, edges[1:], strict=False)]
    return np.array([average_precision(score[r], correct[r], int(n)) for r, n in zip(rows, num_truths, strict=True)])


def truths_by_category(matches: Matches, num_categories: int) -> np.ndarray:
    """True instances of each category, crowds left out, int64 [C]."""
    return np.bincount(matches.truths.category[~matches.truths.crowd], minlength=num_categories)


def calibration(score: np.ndarray, correct: np.ndarray) -> Calibration:
    """Scores beside shares of right detections, [D] -> ten bins of equal width."""
    place = np.minimum((score * _BINS).astype(int), _BINS - 1)
    count = np.bincount(place, minlength=_BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, score, _BINS) / count
        share = np.bincount(place, correct, _BINS) / count
    error = np.nansum(count * np.abs(mean - share)) / count.sum() if count.any() else float("nan")
    return Calibration(mean, share, count, float(error))


def spread(length: int, most: int) -> np.ndarray:
    """At most so many positions, spread evenly over 0 to length - 1, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).astype(int))


def _operating(curve: Curve, place: int) -> Operating:
    return Operating(*(float(values[place]) for values in (curve.score, curve.precision, curve.recall, curve.f1)))
