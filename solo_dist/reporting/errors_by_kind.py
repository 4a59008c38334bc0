"""Errors in kinds, and the gain in AP50 if all errors of a kind were corrected.

The kinds follow Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV
2020, on masks. With `a` the largest overlap with a true instance of the detection's category and `b` with one of
another category, a detection that was not matched is

    duplicate      if a >= 0.5   the instance was found already, by a better detection
    category       if b >= 0.5   the mask is right, the category is not
    localisation   if a >= 0.1   the right thing, but the mask is off
    both           if b >= 0.1   mask and category are off
    background     otherwise     nothing is there

A true instance is missed if it was neither found nor is the one that a category or localisation error is about.
"""

import enum
from typing import NamedTuple

import numpy as np

from solo_dist.reporting.curves import ap_by_category, truths_by_category
from solo_dist.reporting.matching import BACKGROUND, FOREGROUND, Matches


class Kind(enum.IntEnum):
    """The kinds of detections; MISSED is a kind of true instances."""

    CORRECT = 0
    CATEGORY = 1
    LOCALISATION = 2
    BOTH = 3
    DUPLICATE = 4
    BACKGROUND = 5
    MISSED = 6
    IGNORED = 7


FALSE_KINDS = (Kind.CATEGORY, Kind.LOCALISATION, Kind.BOTH, Kind.DUPLICATE, Kind.BACKGROUND)
"""Kinds of wrong detections."""


KINDS = {
    Kind.CATEGORY: ("wrong category", "The mask fits an instance, but the model calls it by another name."),
    Kind.LOCALISATION: (
        "mask is off",
        "The name is right, but mask and instance share too few pixels (overlap 0.1 to 0.5).",
    ),
    Kind.BOTH: (
        "mask and category",
        "The mask only touches an instance (overlap 0.1 to 0.5), and the name is another one.",
    ),
    Kind.DUPLICATE: ("found twice", "A second detection of an instance that was found already."),
    Kind.BACKGROUND: ("nothing there", "A detection where there is no instance at all."),
    Kind.MISSED: ("missed", "An instance that no detection touches."),
}
"""Name and explanation of each kind of error."""


class Errors(NamedTuple):
    """Errors of an evaluation."""

    kind: np.ndarray
    """int8 [D], a Kind."""
    target: np.ndarray
    """int32 [D]: the true instance that a category or localisation error is about, else -1."""
    missed: np.ndarray
    """bool [G]."""


class Mended(NamedTuple):
    """AP50 as it is, and as it would be after correcting one kind of error alone."""

    ap50: float
    """nan without true instances."""
    after: dict[Kind, float]
    after_all_false: float
    """If no detection were wrong."""
    after_all_missing: float
    """If no true instance were missing."""


def classify(matches: Matches) -> Errors:
    """The kind of each detection and which true instances are missed."""
    truths, detections, pairs = matches.truths, matches.detections, matches.pairs
    plain = ~truths.crowd[pairs.truth]
    same = detections.category[pairs.detection] == truths.category[pairs.truth]
    a, target_a = _largest(matches, plain & same)
    b, target_b = _largest(matches, plain & ~same)
    wrong = [a >= FOREGROUND, b >= FOREGROUND, a >= BACKGROUND, b >= BACKGROUND]
    names = [Kind.DUPLICATE, Kind.CATEGORY, Kind.LOCALISATION, Kind.BOTH]
    kind = np.select(
        [matches.truth_of >= 0, matches.ignored, *wrong], [Kind.CORRECT, Kind.IGNORED, *names], Kind.BACKGROUND
    ).astype(np.int8)
    target = np.select([kind == Kind.CATEGORY, kind == Kind.LOCALISATION], [target_b, target_a], -1)
    missed = ~matches.found & ~truths.crowd
    missed[target[target >= 0]] = False
    return Errors(kind, target, missed)


def mend(matches: Matches, errors: Errors, num_categories: int) -> Mended:
    """AP50 after correcting each kind.

    A category or localisation error becomes right if its instance is not found otherwise, by the best such detection;
    the rest of them, and errors of the other kinds, are taken away. Missed instances no longer count; a category all of
    whose instances are missed then has an AP of 1.
    """
    truths, nothing = truths_by_category(matches, num_categories), np.zeros(len(matches.truths.image), bool)
    unfound = ~matches.found & ~matches.truths.crowd
    as_it_is = _Ranked(matches.detections.category, errors.kind != Kind.IGNORED, errors.kind == Kind.CORRECT)
    only_right = as_it_is._replace(kept=as_it_is.correct)
    after = {kind: _mean_ap(matches, _mended(matches, errors, kind), truths, nothing) for kind in FALSE_KINDS}
    return Mended(
        ap50=_mean_ap(matches, as_it_is, truths, nothing),
        after={**after, Kind.MISSED: _mean_ap(matches, as_it_is, truths, errors.missed)},
        after_all_false=_mean_ap(matches, only_right, truths, nothing),
        after_all_missing=_mean_ap(matches, as_it_is, truths, unfound),
    )


class _Ranked(NamedTuple):
    """Detections as AP sees them, [D] each."""

    category: np.ndarray
    kept: np.ndarray
    """bool: whether the detection takes part."""
    correct: np.ndarray


def _mended(matches: Matches, errors: Errors, kind: Kind) -> _Ranked:
    """The detections without errors of a kind: some made right, the others taken away."""
    wrong = errors.kind == kind
    gained = np.flatnonzero(wrong & (errors.target >= 0))
    gained = gained[~matches.found[errors.target[gained]]]
    # Detections are in the order of their scores, so the first of each instance is the best.
    gained = gained[np.unique(errors.target[gained], return_index=True)[1]]
    made_right = np.zeros(len(wrong), bool)
    made_right[gained] = True
    category = matches.detections.category.copy()
    category[gained] = matches.truths.category[errors.target[gained]]
    kept = (errors.kind != Kind.IGNORED) & (~wrong | made_right)
    return _Ranked(category, kept, (errors.kind == Kind.CORRECT) | made_right)


def _mean_ap(matches: Matches, ranked: _Ranked, truths: np.ndarray, uncounted: np.ndarray) -> float:
    """Mean AP50 over categories with true instances int [C], those of bool [G] not counted; nan if there are none."""
    if not truths.any():
        return float("nan")
    left = truths - np.bincount(matches.truths.category[uncounted], minlength=len(truths))
    category, score = ranked.category[ranked.kept], matches.detections.score[ranked.kept]
    values = ap_by_category(category, score, ranked.correct[ranked.kept], left)
    values[(truths > 0) & (left == 0)] = 1.0
    return float(np.nanmean(values))


def _largest(matches: Matches, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU of each detection among the chosen pairs bool [P], 0 without one, and its instance or -1."""
    detection, truth, iou = (column[chosen] for column in matches.pairs)
    order = np.lexsort((truth, iou, detection))
    largest, target = np.zeros(len(matches.truth_of)), np.full(len(matches.truth_of), -1, np.int32)
    # Of equal indices the last value stays: the largest IoU, and of equal ones the later instance.
    largest[detection[order]], target[detection[order]] = iou[order], truth[order]
    return largest, target
