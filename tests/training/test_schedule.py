"""What happens at which step, against a slow count of single steps."""

import pytest

from solo_dist.config import TrainConfig
from solo_dist.training.schedule import Schedule

STEPS = 23


@pytest.mark.parametrize("per_call", [1, 4, 100])
def test_no_call_runs_past_an_event(per_call):
    train = TrainConfig(
        steps=STEPS, log_every=3, save_every=5, eval_every=4, panel_every=7, eval_images=9, steps_per_call=per_call
    )
    schedule, step, seen = Schedule(train), 0, []
    while not schedule.is_last(step):
        step += schedule.steps_to_run(step, [10 - step] if step < 10 else [])
        seen.append(step)
    assert {10, STEPS} <= set(seen) and (per_call > 1 or seen == list(range(1, STEPS + 1)))
    for every, happens in [(3, schedule.logs), (5, schedule.saves), (4, schedule.evaluates), (7, schedule.draws_panel)]:
        assert [s for s in seen if happens(s)] == sorted({*range(every, STEPS, every), STEPS})
    assert [schedule.evaluation_images(s) for s in (4, STEPS)] == [9, 0]


def test_what_is_turned_off():
    schedule = Schedule(TrainConfig(steps=STEPS, eval_every=0, panel_every=0))
    assert [s for s in range(STEPS + 1) if schedule.evaluates(s)] == [STEPS]
    assert not any(schedule.draws_panel(s) for s in range(STEPS + 1))
    assert not Schedule(TrainConfig(eval_every=5)).evaluates(0)
