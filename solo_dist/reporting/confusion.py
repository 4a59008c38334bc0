"""The confusion matrix of instances: true category by detected category, each with a row or column for background."""

from typing import NamedTuple

import numpy as np

from solo_dist.reporting.matching import Matches, Pairs, greedy


class Shown(NamedTuple):
    """What a person sees at a score threshold, matched at an overlap of 0.5 whatever the category."""

    counted: np.ndarray
    """bool [D]: shown, and not on a crowd only."""
    truth_of: np.ndarray
    """int32 [D]: the true instance under a shown detection, -1 for none."""
    unfound: np.ndarray
    """bool [G]: true instances, crowds left out, under no shown detection."""


def show(matches: Matches, threshold: float) -> Shown:
    """Matches the detections of at least a score, the best first. Those on a crowd of any category are left out."""
    truths, pairs = matches.truths, matches.pairs
    shown = matches.detections.score >= threshold
    kept = shown[pairs.detection]
    truth_of, ignored = greedy(Pairs(*(column[kept] for column in pairs)), truths.crowd, len(shown))
    unfound = ~truths.crowd
    unfound[truth_of[truth_of >= 0]] = False
    return Shown(shown & ~ignored, truth_of, unfound)


def confusion_matrix(matches: Matches, shown: Shown, num_categories: int) -> np.ndarray:
    """Counts, int64 [C+1, C+1]: true category by detected category.

    The last row has detections of nothing, the last column true instances without a detection. Row c < C adds up to
    the true instances of c, crowds left out.
    """
    truths, detections = matches.truths, matches.detections
    rows = np.full(len(shown.counted), num_categories)
    matched = shown.truth_of >= 0
    rows[matched] = truths.category[shown.truth_of[matched]]
    matrix = np.zeros((num_categories + 1, num_categories + 1), np.int64)
    np.add.at(matrix, (rows[shown.counted], detections.category[shown.counted]), 1)
    matrix[:num_categories, -1] = np.bincount(truths.category[shown.unfound], minlength=num_categories)
    return matrix


def most_confused(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The largest entries between two different categories: (true, detected, number), largest first."""
    off = matrix[:-1, :-1].copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:count]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, off.shape), strict=True)]
    return [(i, j, int(off[i, j])) for i, j in pairs if off[i, j]]
