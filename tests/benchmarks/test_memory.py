"""The memory of a training step: measured in processes of its own, and what is recommended from it."""

import importlib.util
from pathlib import Path

import pytest

from solo_dist.benchmarks import memory
from solo_dist.benchmarks.timing import Options

RECIPE = Path(__file__).parents[1] / "distributed" / "tiny.py"


@pytest.fixture
def config():
    spec = importlib.util.spec_from_file_location("tiny_recipe", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.model.num_categories = 3
    config.train.global_batch = 4
    return config


@pytest.mark.slow
def test_a_larger_batch_takes_more(config):
    # 64 images of 64x64 take tens of megabytes, far more than what varies from run to run.
    small, large = memory.measure(config, 1), memory.measure(config, 64)
    assert small.total > 0.2  # a process that has imported TensorFlow
    assert small.step < small.total
    assert large.step > small.step + 0.02


@pytest.mark.parametrize(
    ("gigabytes", "advice"),
    [
        (
            3.5,
            ["micro_batch=2  (2 accumulated", "micro_batch=1  (4 accumulated", "float16: does not fit; try --config"],
        ),
        (100.0, ["float32 --config.train.micro_batch=4  (1 accumulated"]),
    ],
)
def test_the_largest_micro_batch_that_fits_is_recommended(config, monkeypatch, capsys, gigabytes, advice):
    """With given peaks: what is tested is the choice; the measuring is tested above."""
    first = {"float32": 1.0, "bfloat16": 2.0, "float16": 9.0}

    def peak(config, size):
        total = first[config.runtime.precision] + size
        return memory.Peak(total, total / 2)

    monkeypatch.setattr(memory, "measure", peak)
    results = memory.run(Options(config=config, memory_gigabytes=gigabytes))
    printed = capsys.readouterr().out
    for line in advice:
        assert line in printed
    assert results["gigabytes_float32_2"] == 3.0
    assert ("gigabytes_float16_2" in results) == (gigabytes == 100.0)


def test_a_recipe_that_cannot_be_measured_says_why(config):
    config.model.backbone.name = "resnet1000"
    with pytest.raises(RuntimeError, match="resnet1000"):
        memory.measure(config, 1)
