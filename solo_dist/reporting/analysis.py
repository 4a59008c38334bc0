"""Everything a report says about an evaluation, as numbers.

    analysis = analyse(annotations, results, image_ids)
    analysis.best.threshold, analysis.rows[0].ap

They are computed once, then shown on the page and written to files.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from solo_dist.inference.coco_metrics import CocoEvaluator
from solo_dist.reporting import curves
from solo_dist.reporting.confusion import Shown, confusion_matrix, show
from solo_dist.reporting.errors_by_kind import Errors, Mended, classify, mend
from solo_dist.reporting.instances import load_instances
from solo_dist.reporting.matching import Matches, match_instances

DEFAULT_THRESHOLD = 0.3
"""Used if no detection is right, so that no threshold is best; that of solo-dist predict."""
RARE = 10
"""Categories with fewer instances in training are marked: their numbers are mostly luck."""
SIZES = (("small", 0, 32**2), ("medium", 32**2, 96**2), ("large", 96**2, np.inf))
"""COCO's classes of mask area in pixels."""
CROWDING = (
    ("1", 1, 1),
    ("2", 2, 2),
    ("3 to 5", 3, 5),
    ("6 to 10", 6, 10),
    ("11 to 20", 11, 20),
    ("over 20", 21, 10**9),
)
FREQUENCIES = (("rare", 1, 10), ("common", 11, 100), ("frequent", 101, 10**9))
"""Groups of categories by the number of training images that show them, as in LVIS."""
OUTCOMES = ("found", "confused", "inaccurate", "missed", "crowd")
"""What became of a true instance at the score threshold. The first four are the fields of `Outcome`, in their order."""
FOUND, CONFUSED, INACCURATE, MISSED, CROWD = range(len(OUTCOMES))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The true instances of a group by result at the score threshold; the four parts add up to `truths`."""

    truths: int
    found: int
    confused: int
    """Covered by a detection of another category."""
    inaccurate: int
    """Only touched by detections of their category, with an overlap from 0.1 to 0.5."""
    missed: int

    @property
    def recall(self) -> float:
        """Share that was found."""
        return self.found / self.truths if self.truths else float("nan")


@dataclasses.dataclass(frozen=True)
class CategoryRow:
    """A category."""

    name: str
    ap: float
    """Mask AP; nan without true instances, as are the next two."""
    ap50: float
    ar100: float
    outcome: Outcome
    shown: int
    """Detections at the threshold."""
    false: int
    """Of these, the detections on nothing or on an instance of another category."""
    confused_with: str
    """The category it is most often taken for, or empty."""
    best: curves.Operating | None
    """The best threshold for this category alone."""
    trained: int | None
    """Instances in the training data; None if unknown."""

    @property
    def rare(self) -> bool:
        """Whether the category had few examples to learn from."""
        return self.trained is not None and self.trained < RARE


@dataclasses.dataclass(frozen=True)
class GroupRow:
    """A group of instances, images or categories."""

    name: str
    count: int
    ap50: float
    outcome: Outcome | None


@dataclasses.dataclass(frozen=True)
class Analysis:
    """An evaluation, analysed."""

    image_ids: list[int]
    """Sorted; the positions in them are what `image` columns hold."""
    categories: list[str]
    metrics: dict[str, float]
    matches: Matches
    errors: Errors
    mended: Mended
    curve: curves.Curve
    """The curve of all categories together."""
    best: curves.Operating | None
    precise: curves.Operating | None
    """The threshold for the wanted precision, if one reaches it."""
    wanted_precision: float
    threshold: float
    """The one that counts below: the best, or DEFAULT_THRESHOLD."""
    shown: Shown
    confusion: np.ndarray
    calibration: curves.Calibration
    rows: list[CategoryRow]
    sizes: list[GroupRow]
    crowding: list[GroupRow]
    frequencies: list[GroupRow]
    """Groups of categories by training images; empty if these are unknown."""
    truth_outcome: np.ndarray
    """What `truth_outcomes` returns."""

    @property
    def num_images(self) -> int:
        """Images that were evaluated."""
        return len(self.image_ids)

    @property
    def num_truths(self) -> int:
        """True instances, crowds left out."""
        return int((~self.matches.truths.crowd).sum())


class CocoMetrics(NamedTuple):
    """What an evaluation measures."""

    metrics: dict[str, float]
    """segm/AP and so on."""
    by_category: Mapping[int, Mapping[str, float]]
    """AP, AP50 and AR100 by id."""


def evaluate_results(
    annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]], image_ids: Collection[int]
) -> CocoMetrics:
    """Evaluates the results of the images."""
    evaluator = CocoEvaluator(dict(annotations))
    evaluator.add([dict(r) for r in results if r["image_id"] in image_ids], image_ids)
    return CocoMetrics(evaluator.metrics(), evaluator.by_category())


def analyse(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    image_ids: Collection[int],
    wanted_precision: float = 0.9,
    training: Mapping[str, Any] | None = None,
    measured: CocoMetrics | None = None,
) -> Analysis:
    """Analyses an evaluation.

    Args:
      annotations: the COCO json of the validation images.
      results: entries of coco_instances_results.json.
      image_ids: the images that were evaluated.
      wanted_precision: for the second threshold, 0 to 1.
      training: the COCO json of the training images, for the counts of examples.
      measured: the metrics, if they are known; to compute them takes most of the time.
    """
    measured = measured or evaluate_results(annotations, results, image_ids)
    matches = match_instances(*load_instances(annotations, results, image_ids))
    names = [category["name"] for category in annotations["categories"]]
    counted, correct = ~matches.ignored, matches.truth_of >= 0
    num_truths = int((~matches.truths.crowd).sum())
    whole = curves.curve(matches.detections.score[counted], correct[counted], num_truths)
    best = curves.best_f1(whole) if num_truths else None
    threshold = best.threshold if best else DEFAULT_THRESHOLD
    shown, errors = show(matches, threshold), classify(matches)
    outcome = truth_outcomes(matches, shown)
    confusion = confusion_matrix(matches, shown, len(names))
    examples = training_counts(training, annotations["categories"])
    rows = _category_rows(annotations["categories"], measured.by_category, matches, outcome, confusion, examples)
    return Analysis(
        image_ids=sorted(image_ids),
        categories=names,
        metrics=measured.metrics,
        matches=matches,
        errors=errors,
        mended=mend(matches, errors, len(names)),
        curve=whole,
        best=best,
        precise=curves.at_precision(whole, wanted_precision),
        wanted_precision=wanted_precision,
        threshold=threshold,
        shown=shown,
        confusion=confusion,
        calibration=curves.calibration(matches.detections.score[counted], correct[counted]),
        rows=rows,
        sizes=[_size_row(matches, outcome, size) for size in SIZES],
        crowding=[row for group in CROWDING if (row := _crowding_row(matches, outcome, len(names), group)).count],
        frequencies=_frequency_rows(rows, examples),
        truth_outcome=outcome,
    )


def truth_outcomes(matches: Matches, shown: Shown) -> np.ndarray:
    """What became of each true instance, int [G]: its place in OUTCOMES."""
    truths, detections, pairs = matches.truths, matches.detections, matches.pairs
    outcome = np.where(truths.crowd, CROWD, MISSED)
    same = detections.category[pairs.detection] == truths.category[pairs.truth]
    touched = np.zeros(len(outcome), bool)
    touched[pairs.truth[same & shown.counted[pairs.detection]]] = True
    outcome[(outcome == MISSED) & touched] = INACCURATE
    matched = np.flatnonzero(shown.truth_of >= 0)
    truth = shown.truth_of[matched]
    outcome[truth] = np.where(detections.category[matched] == truths.category[truth], FOUND, CONFUSED)
    return outcome


@dataclasses.dataclass(frozen=True)
class TrainingCounts:
    """Examples of each category in the training data, int [C]."""

    instances: np.ndarray
    images: np.ndarray


def training_counts(
    training: Mapping[str, Any] | None, categories: Sequence[Mapping[str, Any]]
) -> TrainingCounts | None:
    """Counts by category of the training annotations, crowds left out; None without these."""
    if training is None:
        return None
    by_name = {category["name"]: i for i, category in enumerate(categories)}
    class_of = {c["id"]: by_name[c["name"]] for c in training["categories"] if c["name"] in by_name}
    entries = [a for a in training["annotations"] if not a.get("iscrowd", 0) and a["category_id"] in class_of]
    pairs = {(a["image_id"], class_of[a["category_id"]]) for a in entries}
    instances = np.bincount([class_of[a["category_id"]] for a in entries], minlength=len(categories))
    return TrainingCounts(instances, np.bincount([c for _, c in pairs], minlength=len(categories)))


def _outcome(outcome: np.ndarray) -> Outcome:
    counts = np.bincount(outcome, minlength=len(OUTCOMES))[:CROWD]
    return Outcome(int(counts.sum()), *(int(n) for n in counts))


def _category_rows(
    categories: Sequence[Mapping[str, Any]],
    metrics: Mapping[int, Mapping[str, float]],
    matches: Matches,
    outcome: np.ndarray,
    confusion: np.ndarray,
    examples: TrainingCounts | None,
) -> list[CategoryRow]:
    detections, truths = matches.detections, matches.truths
    order = np.argsort(detections.category, kind="stable")
    edges = np.searchsorted(detections.category[order], np.arange(len(categories) + 1))
    true_order = np.argsort(truths.category, kind="stable")
    true_edges = np.searchsorted(truths.category[true_order], np.arange(len(categories) + 1))
    rows = []
    for i, category in enumerate(categories):
        mine = order[edges[i] : edges[i + 1]]
        mine = mine[~matches.ignored[mine]]
        result = _outcome(outcome[true_order[true_edges[i] : true_edges[i + 1]]])
        curve = curves.curve(detections.score[mine], matches.truth_of[mine] >= 0, result.truths)
        taken_for = confusion[i, :-1].copy()
        taken_for[i] = 0
        ap, ap50, ar100 = (_or_nan(metrics[category["id"]][name]) for name in ("AP", "AP50", "AR100"))
        rows.append(
            CategoryRow(
                name=category["name"],
                ap=ap,
                ap50=ap50,
                ar100=ar100,
                outcome=result,
                shown=int(confusion[:, i].sum()),
                false=int(confusion[:, i].sum() - confusion[i, i]),
                confused_with=categories[int(taken_for.argmax())]["name"] if taken_for.any() else "",
                best=curves.best_f1(curve) if result.truths else None,
                trained=int(examples.instances[i]) if examples else None,
            )
        )
    return rows


def _or_nan(value: float) -> float:
    """A metric of COCO, which is -1 without true instances."""
    return value if value >= 0 else float("nan")


def _size_row(matches: Matches, outcome: np.ndarray, size: tuple[str, float, float]) -> GroupRow:
    name, low, high = size
    inside = (matches.truths.area >= low) & (matches.truths.area < high)
    result = _outcome(outcome[inside])
    return GroupRow(name, result.truths, float("nan"), result)


def _crowding_row(matches: Matches, outcome: np.ndarray, num_categories: int, group: tuple[str, int, int]) -> GroupRow:
    """Images with a number of true instances within bounds."""
    name, low, high = group
    truths, detections = matches.truths, matches.detections
    number = max(int(truths.image.max(initial=-1)), int(detections.image.max(initial=-1))) + 1
    instances = np.bincount(truths.image[~truths.crowd], minlength=number)
    inside = (instances >= low) & (instances <= high)
    mine, true_mine = inside[detections.image] & ~matches.ignored, inside[truths.image]
    counts = np.bincount(truths.category[true_mine & ~truths.crowd], minlength=num_categories)
    values = curves.ap_by_category(
        detections.category[mine], detections.score[mine], matches.truth_of[mine] >= 0, counts
    )
    ap50 = float(np.nanmean(values)) if counts.any() else float("nan")
    return GroupRow(name, int(inside.sum()), ap50, _outcome(outcome[true_mine]))


def _frequency_rows(rows: Sequence[CategoryRow], examples: TrainingCounts | None) -> list[GroupRow]:
    """AP of the categories by the number of training images that show them."""
    if examples is None:
        return []
    found = []
    for name, low, high in FREQUENCIES:
        chosen = [row for row, n in zip(rows, examples.images, strict=True) if low <= n <= high and row.outcome.truths]
        found.append(
            GroupRow(name, len(chosen), float(np.mean([row.ap for row in chosen])) if chosen else np.nan, None)
        )
    return found
