"""The same global batch gives the same training however it is spread over devices, workers and micro-batches."""

import numpy as np
import pytest

STEPS = 22
START = 2
LOSS_TOLERANCE = 1e-5
WEIGHT_TOLERANCE = 1e-4

# Name of the case: workers, more flags. The global batch is 12.
CASES = {
    "mirrored on 2 logical CPUs": (1, ["--strategy=mirrored", "--cpu_devices=2"]),
    "2 workers": (2, []),
    "3 workers": (3, []),
    "2 workers, 2 micro-batches": (2, ["--config.train.micro_batch=3"]),
}


@pytest.fixture(scope="module")
def start(tmp_path_factory, flags, train):
    """A run of two steps; every case goes on from its checkpoint."""
    workdir = tmp_path_factory.mktemp("start")
    return train(workdir, flags(workdir, steps=START, save_every=START))


@pytest.fixture(scope="module")
def continue_run(tmp_path_factory, flags, train, start):
    def run(steps, workers=1, more=()):
        workdir = tmp_path_factory.mktemp("run")
        resume = f"--resume={start.checkpoint(START)}"
        return train(workdir, [*flags(workdir, steps=steps, save_every=STEPS), resume, *more], workers)

    return run


@pytest.fixture(scope="module")
def one_device(continue_run):
    return continue_run(STEPS)


def assert_agree(run, reference, steps):
    losses, expected = run.metrics(), reference.metrics()
    assert sorted(losses) == list(range(START + 1, steps + 1))
    for step in losses:
        for name in ("loss/total", "loss/category", "loss/mask", "grad_norm"):
            tolerance = LOSS_TOLERANCE if name.startswith("loss") else WEIGHT_TOLERANCE
            assert losses[step][name] == pytest.approx(expected[step][name], rel=tolerance), (step, name)
        assert losses[step]["lr"] == expected[step]["lr"]


def assert_weights_agree(run, reference, step):
    arrays, expected = run.arrays(step), reference.arrays(step)
    assert sorted(arrays) == sorted(expected)
    for name in arrays:
        if name.startswith("model/"):
            np.testing.assert_allclose(
                arrays[name], expected[name], rtol=WEIGHT_TOLERANCE, atol=WEIGHT_TOLERANCE, err_msg=name
            )


def test_training_changes_the_weights(start, one_device):
    before, after = start.arrays(START), one_device.arrays(STEPS)
    changes = [np.abs(after[name] - before[name]).max() for name in after if name.startswith("model/")]
    assert np.median(changes) > 10 * WEIGHT_TOLERANCE  # otherwise the comparisons below would mean nothing


@pytest.mark.slow
def test_two_workers_with_micro_batches(continue_run, one_device):
    workers, more = CASES["2 workers, 2 micro-batches"]
    run = continue_run(STEPS, workers, more)
    assert "2 accumulated micro-batches x 2 replicas" in run.output
    assert_agree(run, one_device, STEPS)
    assert_weights_agree(run, one_device, STEPS)


@pytest.mark.slow
def test_a_profile_cuts_the_calls_of_all_workers_alike(tmp_path, flags, train):
    run = train(tmp_path, [*flags(tmp_path, steps=8, save_every=8, log_every=8), "--profile=3:5"], workers=2)
    assert len(list(tmp_path.glob("tensorboard/plugins/profile/*/*.xplane.pb"))) == 1
    assert list(run.metrics()) == [8]


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if "micro-batches" not in case])
def test_spread_over(case, continue_run, one_device):
    workers, more = CASES[case]
    run = continue_run(STEPS, workers, more)
    assert_agree(run, one_device, STEPS)
    assert_weights_agree(run, one_device, STEPS)
