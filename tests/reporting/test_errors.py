"""Matching, kinds of errors, confusion matrix, thresholds: against slow versions on random evaluations."""

import numpy as np
import pytest
from hypothesis import given, settings

from solo_dist.reporting import curves
from solo_dist.reporting.confusion import confusion_matrix, most_confused, show
from solo_dist.reporting.errors_by_kind import Kind, classify, mend
from solo_dist.reporting.instances import load_instances
from solo_dist.reporting.matching import match_instances
from tests.reporting.slow import NUM_CATEGORIES, SlowErrors, coco_ap50, encode, evaluations, mean_ap

SCORES = (0.1, 0.25, 0.5, 0.75, 0.9)


def matches_of(evaluation):
    annotations, results = evaluation
    return match_instances(*load_instances(annotations, results, [image["id"] for image in annotations["images"]]))


@settings(max_examples=50, deadline=None)
@given(evaluations())
def test_ap50_by_category_is_that_of_pycocotools(evaluation):
    matches = matches_of(evaluation)
    kept = ~matches.ignored
    mine = curves.ap_by_category(
        matches.detections.category[kept],
        matches.detections.score[kept],
        matches.truth_of[kept] >= 0,
        curves.truths_by_category(matches, NUM_CATEGORIES),
    )
    np.testing.assert_allclose(np.nan_to_num(mine, nan=-1), coco_ap50(*evaluation), atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(evaluations())
def test_kinds_of_errors_are_those_of_the_definitions(evaluation):
    matches = matches_of(evaluation)
    errors, slow = classify(matches), SlowErrors(*evaluation)
    assert [Kind(kind).name.lower() for kind in errors.kind] == [slow.kind[d] for d in slow.order]
    assert [None if t < 0 else t for t in errors.target] == [slow.target[d] for d in slow.order]
    assert np.flatnonzero(errors.missed).tolist() == slow.missed


@settings(max_examples=30, deadline=None)
@given(evaluations())
def test_ap_after_mending_is_that_of_results_mended_by_hand(evaluation):
    matches = matches_of(evaluation)
    mended, slow = mend(matches, classify(matches), NUM_CATEGORIES), SlowErrors(*evaluation)
    assert mended.ap50 == pytest.approx(mean_ap(coco_ap50(*evaluation)), abs=1e-12, nan_ok=True)
    for kind, value in mended.after.items():
        assert value == pytest.approx(slow.ap_after(kind.name.lower()), abs=1e-12, nan_ok=True), kind
    assert mended.after_all_false == pytest.approx(slow.ap_of_correct(), abs=1e-12, nan_ok=True)
    unfound = [g for g, truth in enumerate(slow.truths) if not truth["iscrowd"] and g not in slow.truth_of.values()]
    assert mended.after_all_missing == pytest.approx(slow.ap_without_truths(unfound), abs=1e-12, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(evaluations())
def test_sums_add_up_and_mending_never_costs(evaluation):
    matches = matches_of(evaluation)
    errors = classify(matches)
    counts = np.bincount(errors.kind, minlength=len(Kind))
    assert counts.sum() == len(evaluation[1]) and counts[Kind.MISSED] == 0
    assert counts[Kind.CORRECT] == matches.found.sum()
    aimed_at = np.zeros(len(errors.missed), bool)
    aimed_at[errors.target[errors.target >= 0]] = True
    parts = matches.found.sum() + errors.missed.sum() + (aimed_at & ~matches.found).sum()
    assert parts == (~matches.truths.crowd).sum()
    mended = mend(matches, errors, NUM_CATEGORIES)
    if not np.isnan(mended.ap50):
        worth = [*mended.after.values(), mended.after_all_false, mended.after_all_missing]
        assert all(mended.ap50 - 1e-12 <= value <= 1 for value in worth)


@settings(max_examples=30, deadline=None)
@given(evaluations())
def test_confusion_matrix_and_its_sums(evaluation):
    matches = matches_of(evaluation)
    slow = SlowErrors(*evaluation)
    for threshold in (0.0, 0.5):
        matrix = confusion_matrix(matches, show(matches, threshold), NUM_CATEGORIES)
        np.testing.assert_array_equal(matrix, slow.confusion(threshold))
        np.testing.assert_array_equal(matrix[:-1].sum(axis=1), curves.truths_by_category(matches, NUM_CATEGORIES))
        assert matrix[-1, -1] == 0
        for true, detected, count in most_confused(matrix, 4):
            assert true != detected and matrix[true, detected] == count > 0


@settings(max_examples=50, deadline=None)
@given(evaluations())
def test_best_f1_is_the_best_of_all_thresholds(evaluation):
    matches = matches_of(evaluation)
    slow = SlowErrors(*evaluation)
    kept = ~matches.ignored
    truths = int((~matches.truths.crowd).sum())
    curve = curves.curve(matches.detections.score[kept], matches.truth_of[kept] >= 0, truths)
    best = curves.best_f1(curve)
    by_hand = {score: slow.f1_at(score) for score in SCORES}
    if best is None:
        assert max(by_hand.values()) == 0
        return
    assert best.f1 == pytest.approx(max(by_hand.values()))
    assert best.threshold == max(score for score in SCORES if by_hand[score] == pytest.approx(best.f1))
    wanted = curves.at_precision(curve, 0.75)
    reaching = [score for score, value in zip(curve.score, curve.precision, strict=True) if value >= 0.75]
    assert (wanted.threshold == min(reaching)) if reaching else wanted is None


def test_calibration_by_hand():
    score, correct = np.array([0.05, 0.95, 0.91, 1.0]), np.array([False, True, False, True])
    result = curves.calibration(score, correct)
    assert result.detections.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert result.score[9] == pytest.approx(2.86 / 3) and result.correct[9] == pytest.approx(2 / 3)
    assert result.error == pytest.approx((0.05 + 2.86 - 2) / 4)
    assert np.isnan(curves.calibration(score[:0], correct[:0]).error)


def test_only_the_best_hundred_of_an_image_and_category_count():
    mask = np.ones((4, 4), bool)
    image = {"id": 1, "height": 4, "width": 4}
    annotations = {"images": [image], "annotations": [], "categories": [{"id": 1}, {"id": 2}]}
    result = {"image_id": 1, "segmentation": encode(mask)}
    results = [result | {"category_id": 1, "score": i / 200} for i in range(101)]
    results.append(result | {"category_id": 2, "score": 0.0})
    _, detections = load_instances(annotations, results, [1])
    assert len(detections.score) == 101 and detections.score[:100].min() == 1 / 200
    assert detections.category[-1] == 1
