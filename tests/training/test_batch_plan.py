"""How the global batch is cut up."""

import pytest

from solo_dist.config import TrainConfig
from solo_dist.errors import ConfigError
from solo_dist.training.batch_plan import plan_batch


@pytest.mark.parametrize(
    ("global_batch", "micro", "replicas", "fitting", "expected"),
    [
        (16, "auto", 8, 64, (2, 1)),
        (16, "auto", 1, 2, (2, 8)),
        (16, "auto", 1, 5, (4, 4)),
        (16, "auto", 1, 0, (1, 16)),
        (16, "16", 1, 1, (16, 1)),
        (12, "3", 2, 1, (3, 2)),
    ],
)
def test_accumulation_is_derived(global_batch, micro, replicas, fitting, expected):
    plan = plan_batch(TrainConfig(global_batch=global_batch, micro_batch=micro), replicas, fitting)
    assert (plan.micro_batch, plan.accumulation) == expected
    assert plan.micro_batch * plan.accumulation * replicas == global_batch


def test_numbers_that_do_not_divide_name_ones_that_do():
    with pytest.raises(ConfigError, match=r"global_batch=10 cannot be shared by 4 replicas; 8 or 12 would work"):
        plan_batch(TrainConfig(global_batch=10), 4, 8)
    with pytest.raises(ConfigError, match=r"micro_batch=3 does not divide the 8 images.*1, 2, 4, 8 or auto"):
        plan_batch(TrainConfig(global_batch=16, micro_batch="3"), 2, 8)
