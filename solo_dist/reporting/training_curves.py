"""The course of a training, from the lines of metrics.jsonl: duration, speed, and remarks in plain words."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_NOTICEABLE = 0.01
"""Differences in AP below this are within the noise between two runs."""
_LOSS_FALLS = 0.03
"""Relative fall of the training loss that counts as still learning."""
_AP_FALLS = 0.1
"""Relative fall of the AP that counts as one; a few validation images do not measure it more finely."""


@dataclasses.dataclass(frozen=True)
class Course:
    """Curves and facts of the lines of metrics.jsonl."""

    steps: int
    seconds: float
    """Estimated from the images/s of each line, evaluations left out; nan without lines."""
    images_per_second: float
    """Median; nan without lines."""
    data_wait: float
    """Median share of the time that the step waited for data; nan without lines."""
    best_step: int | None
    best_ap: float
    remarks: list[str]


def course(train: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]], global_batch: int) -> Course:
    """Reads the course of a run from its lines, by step."""
    aps = [(line["step"], line["segm/AP"]) for line in validation if line.get("segm/AP", -1) >= 0]
    best_step, best_ap = max(aps, key=lambda pair: pair[1], default=(None, float("nan")))
    seconds = seconds_at(train, global_batch)
    return Course(
        steps=max((line["step"] for line in [*train, *validation]), default=0),
        seconds=seconds[-1] if len(seconds) else float("nan"),
        images_per_second=_median(train, "images_per_second"),
        data_wait=_median(train, "data_wait_fraction"),
        best_step=best_step,
        best_ap=best_ap,
        remarks=[*_remarks_on_ap(train, aps), *_remarks_on_training(train)],
    )


def seconds_at(train: Sequence[Mapping[str, Any]], global_batch: int) -> np.ndarray:
    """Seconds of training up to each line, estimated from the speed it reports, [lines]."""
    steps = np.array([line["step"] for line in train], float)
    speed = np.array([line.get("images_per_second") or np.nan for line in train], float)
    return np.nancumsum(np.diff(steps, prepend=0) * global_batch / speed)


def dropped_positives_a_step(train: Sequence[Mapping[str, Any]]) -> float:
    """Positives beyond data.max_positives, a step; nan if no line has them. A line has the total since the line before.

    The first line is left out if there are more: the step before it is not known if the run began at a checkpoint.
    """
    lines = [line for line in train if "targets/dropped_positives" in line]
    if not lines:
        return float("nan")
    first, counted = (lines[0]["step"], lines[1:]) if len(lines) > 1 else (0, lines)
    return sum(line["targets/dropped_positives"] for line in counted) / max(lines[-1]["step"] - first, 1)


def smoothed_loss(train: Sequence[Mapping[str, Any]], tag: str = "loss/total") -> np.ndarray:
    """Medians of the loss over five neighbouring lines, [lines]; nan where a line has none."""
    values = np.array([line.get(tag, np.nan) for line in train], float)
    padded = np.pad(values, 2, mode="edge") if len(values) else values
    windows = [padded[i : i + 5] for i in range(len(values))]
    return np.array([np.nanmedian(w) if np.isfinite(w).any() else np.nan for w in windows])


def _remarks_on_ap(train: Sequence[Mapping[str, Any]], aps: Sequence[tuple[int, float]]) -> list[str]:
    if not aps:
        return []
    if len(aps) == 1:
        return ["There is only one evaluation, so AP does not show whether the model would still improve."]
    best_step, best = max(aps, key=lambda pair: pair[1])
    last_step, last = aps[-1]
    if best_step == last_step and last - aps[-2][1] > _NOTICEABLE:
        return [
            f"AP was still rising at the end, from {aps[-2][1]:.3f} to {last:.3f} between steps {aps[-2][0]} and "
            f"{last_step}: longer training would probably help (a new run with more train.steps or train.minutes)."
        ]
    if best - last <= max(_NOTICEABLE, _AP_FALLS * best):
        return [f"AP has levelled off: {best:.3f} at step {best_step}, {last:.3f} at the end. More steps at the last "
                "learning rate would bring little; a new, longer run keeps the rate high for longer."]  # fmt: skip
    remark = f"AP was best at step {best_step} ({best:.3f}) and fell to {last:.3f} at the end"
    before, after = _loss_near(train, best_step), _loss_near(train, last_step)
    if after < before * (1 - _LOSS_FALLS):
        return [
            f"{remark}, while the loss on the training images went on falling ({before:.2f} to {after:.2f}): the model "
            "began to learn its training images by heart (overfitting). Use --checkpoint=best, train for fewer steps, "
            "or give it more varied images."
        ]
    return [f"{remark}. Use --checkpoint=best; a lower learning rate may keep it from falling."]


def _remarks_on_training(train: Sequence[Mapping[str, Any]]) -> list[str]:
    remarks = []
    loss = smoothed_loss(train)
    if len(loss) >= 10:
        late = loss[-len(loss) // 5]
        if loss[-1] < late * (1 - _LOSS_FALLS):
            remarks.append(f"The training loss was still falling in the last fifth, from {late:.2f} to {loss[-1]:.2f}.")
    dropped = sum(line.get("targets/dropped_positives", 0) for line in train)
    if dropped:
        remarks.append(
            "Some images had more objects than data.max_instances, or more positive cells than data.max_positives; the "
            "rest was left out of training: raise both."
        )
    bad = sum(line.get("nonfinite_steps", 0) for line in train)
    if bad:
        remarks.append(f"{bad:.0f} steps had a loss or gradient that was not finite and were skipped.")
    waiting = _median(train, "data_wait_fraction")
    if waiting > 0.3:
        remarks.append(f"The step waited for its data {waiting:.0%} of the time: reading is slower than computing.")
    return remarks


def _loss_near(train: Sequence[Mapping[str, Any]], step: int) -> float:
    if not train:
        return float("nan")
    loss = smoothed_loss(train)
    return float(loss[np.argmin([abs(line["step"] - step) for line in train])])


def _median(train: Sequence[Mapping[str, Any]], tag: str) -> float:
    values = [line[tag] for line in train if isinstance(line.get(tag), (int, float))]
    return float(np.median(values)) if values else float("nan")
