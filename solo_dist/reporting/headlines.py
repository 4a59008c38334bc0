"""The top of the report: findings about a model in a few sentences, for someone who has never trained one."""

from typing import NamedTuple

import numpy as np

from solo_dist.reporting.analysis import Analysis, CategoryRow
from solo_dist.reporting.errors_by_kind import KINDS, Kind
from solo_dist.reporting.training_curves import Course

_WORTH_SAYING = 0.01
"""Difference in AP50 below which nothing is said about it."""
_FEW_INSTANCES = 200
"""Validation instances below which the page says that its numbers are uncertain."""

_REMEDIES = {
    Kind.CATEGORY: "show it more examples of the categories it confuses, and check that their labels are right",
    Kind.LOCALISATION: "a larger canvas or longer training; the close-ups show if masks are rough or cover several",
    Kind.BOTH: "longer training, and more examples",
    Kind.DUPLICATE: "a stricter postprocess.update_threshold or postprocess.nms_sigma",
    Kind.BACKGROUND: "a higher score threshold, or more images that show none of the categories",
    Kind.MISSED: "more examples like the missed ones, or a larger canvas if most of them are small",
}


class Headline(NamedTuple):
    """One finding."""

    title: str
    text: str


def headlines(analysis: Analysis, course: Course, ceiling: float | None) -> list[Headline]:
    """The findings, the most important first."""
    found = [_quality(analysis, ceiling), _threshold(analysis)]
    worst = worst_category(analysis)
    if worst is not None:
        others = [row.ap50 for row in analysis.rows if row.outcome.truths and row is not worst]
        found.append(Headline(f"Weakest category: {worst.name}", why(worst, float(np.median(others)))))
    found += _largest_gain(analysis)
    if course.remarks:
        found.append(Headline("Training", " ".join(course.remarks)))
    return found


def worst_category(analysis: Analysis) -> CategoryRow | None:
    """The category with the lowest AP, a rare one only if all are rare; None if fewer than two have instances."""
    present = [row for row in analysis.rows if row.outcome.truths]
    if len(present) < 2:
        return None
    return min([row for row in present if not row.rare] or present, key=lambda row: row.ap)


def why(row: CategoryRow, ap50_of_others: float) -> str:
    """How many instances of a category are found, confused, inaccurate and missed, and what holds its AP back.

    AP also falls if masks are found but inexact. The counts do not show that, as an overlap of 0.5 is enough for them;
    a category with a low AP whose AP50 is not below that of the others (their median) shows it.
    """
    outcome = row.outcome
    taken = f" (mostly for {row.confused_with})" if row.confused_with else ""
    parts = {
        "confused": f"{outcome.confused} taken for another category{taken}",
        "inaccurate": f"{outcome.inaccurate} covered by a mask that is too far off to count",
        "missed": f"{outcome.missed} missed",
    }
    main = max(parts, key=lambda name: getattr(outcome, name))
    text = f"AP {row.ap:.3f}. Of {outcome.truths} instances {outcome.found} are found, {', '.join(parts.values())}."
    reason = {
        "confused": "Its name is what goes wrong most",
        "inaccurate": "Its outline is what goes wrong most",
        "missed": "Not being seen at all is what goes wrong most",
    }[main]
    if row.ap50 >= ap50_of_others - _WORTH_SAYING:
        text += (
            f" With an AP50 of {row.ap50:.3f} it is found as well as the others (median {ap50_of_others:.3f}), but its "
            "masks are less exact, which costs AP at stricter overlaps."
        )
    elif getattr(outcome, main):
        text += f" {reason}."
    if row.false:
        text += f" {row.false} of {row.shown} detections with this name are false."
    if row.rare:
        text += f" It had only {row.trained} examples to learn from."
    return text


def _quality(analysis: Analysis, ceiling: float | None) -> Headline:
    ap, ap50 = analysis.metrics["segm/AP"], analysis.metrics["segm/AP50"]
    if ap < 0:
        return Headline(
            "Quality unknown", "The validation images have no instance, so there is nothing to measure against."
        )
    text = f"AP50, for which a mask needs an IoU of only 0.5, is {ap50:.3f}; 1 would be perfect."
    if ceiling is not None and ceiling > 0:
        text += (
            f" Masks are computed at a quarter of the canvas; perfect ones at that resolution would reach an AP of "
            f"{ceiling:.3f}, so the model is at {max(ap, 0) / ceiling:.0%} of what it can reach."
        )
    if analysis.num_truths < _FEW_INSTANCES:
        text += f" It was measured on {analysis.num_truths} instances only: small differences are chance."
    return Headline(f"Mask AP {ap:.3f}", text)


def _threshold(analysis: Analysis) -> Headline:
    if analysis.best is None:
        what = "There is no detection" if not len(analysis.matches.detections.score) else "No detection is right"
        return Headline("No threshold to recommend", f"{what}, so no score threshold is better than another.")
    best = analysis.best
    text = (
        f"It balances best: {best.precision:.0%} of what is shown is right, and {best.recall:.0%} of the instances are "
        "found. solo-dist predict takes it with --score_threshold=best."
    )
    if analysis.precise and analysis.precise.threshold <= best.threshold:
        text += (
            f" To find more, use {analysis.precise.threshold:.2f}: it finds {analysis.precise.recall:.0%}, and "
            f"{analysis.wanted_precision:.0%} of what is shown is still right."
        )
    elif analysis.precise:
        text += (
            f" If at least {analysis.wanted_precision:.0%} of what is shown has to be right, use "
            f"{analysis.precise.threshold:.2f}, which finds {analysis.precise.recall:.0%}."
        )
    else:
        text += f" No threshold makes {analysis.wanted_precision:.0%} of what is shown right."
    return Headline(f"Score threshold to use: {best.threshold:.2f}", text)


def _largest_gain(analysis: Analysis) -> list[Headline]:
    gains = {kind: value - analysis.mended.ap50 for kind, value in analysis.mended.after.items()}
    if not gains or np.isnan(analysis.mended.ap50):
        return []
    kind = max(gains, key=lambda k: gains[k])
    if gains[kind] < _WORTH_SAYING:
        return []
    name, meaning = KINDS[kind]
    text = f"{meaning} Without these errors AP50 would be {gains[kind]:.3f} higher. What may help: {_REMEDIES[kind]}."
    return [Headline(f"What costs most: {name}", text)]
