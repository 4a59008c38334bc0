"""A whole small run in this process: the files it leaves, and what stands in the way of a wrong one."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from solo_dist.distributed import job
from solo_dist.errors import ConfigError, RunFailed, UserError
from solo_dist.run.checkpoint import load_checkpoint, save_checkpoint
from solo_dist.run.directory import RunDirectory
from solo_dist.run.metric_writers import read_events
from solo_dist.training import trainer
from solo_dist.training.build import build_batches
from solo_dist.training.length import find_length
from solo_dist.training.profiler import StepProfiler
from solo_dist.training.start import Start
from solo_dist.training.trainer import Trainer
from tests.distributed import tiny

STEPS = 4


def find_checkpoint(workdir, which):
    return RunDirectory(workdir).find_checkpoint(which)


def recipe(shards, **train):
    config = tiny.get_config()
    config.data.train, config.data.validation = shards
    config.train.steps, config.train.global_batch = STEPS, 4
    for name, value in train.items():
        setattr(config.train, name, value)
    return config


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory):
    """A finished run of four steps with a moving average, evaluations (the first of two images only) and panels."""
    workdir = str(tmp_path_factory.mktemp("run"))
    config = recipe(shards, log_every=2, save_every=2, eval_every=2, eval_images=2, panel_every=4)
    config.optimizer.ema_decay = 0.5
    run = Trainer(config.validate(), workdir, tf.distribute.OneDeviceStrategy("CPU:0"))
    run.fit()
    return workdir, run


def test_run_directory(finished):
    workdir, run = finished
    lines = [json.loads(line) for line in open(f"{workdir}/metrics.jsonl")]
    assert [(line["step"], line["split"]) for line in lines] == [
        (2, "train"),
        (2, "validation"),
        (4, "train"),
        (4, "validation"),
    ]
    assert {"loss/total", "loss/category", "loss/mask", "lr", "grad_norm", "images_per_second"} <= set(lines[2])
    assert {"data_wait_fraction", "targets/dropped_positives"} <= set(lines[2])
    assert {"segm/AP", "segm/AP50", "segm/APs", "segm/AR1"} <= set(lines[3])
    by_category = [value for key, value in lines[3].items() if key.startswith("category_AP/")]
    assert set(lines[3]) >= {"category_AP/disc", "category_AP/square", "category_AP/triangle"}
    assert np.mean(by_category) == pytest.approx(lines[3]["segm/AP"], abs=1e-6)
    assert lines[2]["loss/total"] == pytest.approx(lines[2]["loss/category"] + lines[2]["loss/mask"], rel=1e-5)
    assert json.load(open(f"{workdir}/config.json"))["model"]["num_categories"] == 3
    assert json.load(open(f"{workdir}/environment.json"))["packages"]["tensorflow"] == tf.__version__
    results = json.load(open(f"{workdir}/eval/step_4/coco_instances_results.json"))
    assert isinstance(results, list)
    for text in (f"--workdir={workdir}", "tensorboard --logdir", "step 4"):
        assert text in run.directory.summary(run.step_number)


def test_tensorboard_has_what_metrics_has(finished):
    workdir, _ = finished
    curves = {}
    for name in ("train", "eval"):
        for path in tf.io.gfile.glob(f"{workdir}/tensorboard/{name}/events*"):
            for event in read_events(path):
                for value in event.summary.value:
                    curves.setdefault(value.tag, []).append(event.step)
    assert curves["loss/total"] == curves["lr"] == curves["segm/AP"] == [2, 4]
    panels = {tag: steps for tag, steps in curves.items() if tag.startswith("panel/")}
    # Of the training image at step 4, and of four validation images after each evaluation.
    assert panels == {"panel/1": [4, 2, 4], "panel/2": [2, 4], "panel/3": [2, 4], "panel/4": [2, 4]}


def test_checkpoint_holds_the_whole_state(finished):
    workdir, run = finished
    arrays, metadata = load_checkpoint(find_checkpoint(workdir, "latest"))
    assert metadata.step == STEPS
    assert metadata.images == STEPS * 4
    assert [category["name"] for category in metadata.categories] == ["disc", "square", "triangle"]
    assert arrays["optimizer/step"] == STEPS
    for variable in run.parts.model.variables:
        np.testing.assert_array_equal(arrays[f"model/{variable.path}"], variable.numpy())
    trainable = {variable.path for variable in run.parts.model.trainable_variables}
    for kind in ("optimizer/first_moment", "optimizer/second_moment", "average"):
        assert {name.removeprefix(f"{kind}/") for name in arrays if name.startswith(f"{kind}/")} == trainable


def test_a_finished_run_has_nothing_left_to_do(finished, shards):
    workdir, _ = finished
    before = open(f"{workdir}/metrics.jsonl").read()
    config = recipe(shards, log_every=2, save_every=2, eval_every=2, panel_every=4)
    config.optimizer.ema_decay = 0.5
    Trainer(config, workdir, tf.distribute.OneDeviceStrategy("CPU:0")).fit()
    assert open(f"{workdir}/metrics.jsonl").read() == before


def test_measuring_the_length_leaves_no_trace(finished, shards):
    _, run = finished
    before = run.parts.state.copy_to_host("before")
    config = recipe(shards, steps=0, minutes=0.001)
    assert find_length(config, run.parts, run.strategy, Start(step=1000, images=4000), lambda: None) > 1000
    after = run.parts.state.copy_to_host("after")
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_a_length_is_measured_once_and_replaced_by_given_steps(finished, shards):
    _, run = finished
    timed, counted = recipe(shards, steps=0, minutes=0.001), recipe(shards, steps=9)
    start = Start(step=3, images=12, total_steps=77)
    assert find_length(timed, run.parts, run.strategy, start, lambda: None) == 77
    assert find_length(counted, run.parts, run.strategy, start, lambda: None) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: setattr(c, "name", "other"), r"holds a run with name='tiny', now it is 'other'"),
        (lambda c: setattr(c.model, "head_convs", 3), r"model.head_convs=1, now it is 3"),
        (
            lambda c: setattr(c.data, "canvas", (96, 64)),
            r"was sharded for canvas \(64, 64\), the recipe has \(96, 64\)",
        ),
        (lambda c: setattr(c.model.grid, "sizes", (8, 5)), r"grid"),
        (lambda c: setattr(c.model, "num_categories", 5), r"num_categories"),
        (lambda c: setattr(c.data, "train", "nowhere"), r"nowhere"),
    ],
)
def test_another_recipe_in_the_same_workdir_is_refused(finished, shards, change, message):
    workdir, _ = finished
    config = recipe(shards)
    change(config)
    with pytest.raises(UserError, match=message):
        Trainer(config, workdir, tf.distribute.OneDeviceStrategy("CPU:0")).restore()


def test_resume_never_does_not_touch_an_old_run(finished, shards):
    workdir, _ = finished
    with pytest.raises(ConfigError, match="--resume=never, but .* holds a run at step 4"):
        restored(recipe(shards), workdir, resume="never")


def restored(config, workdir, **arguments):
    """A run about to train."""
    run = Trainer(config, str(workdir), tf.distribute.OneDeviceStrategy("CPU:0"), **arguments)
    run.restore()
    return run


def train(config, workdir, **arguments):
    run = Trainer(config.validate(), str(workdir), tf.distribute.OneDeviceStrategy("CPU:0"), **arguments)
    run.fit()
    run.checkpoints.wait()
    return run


def test_a_named_checkpoint_is_where_only_the_first_start_of_a_job_begins(finished, shards, tmp_path, monkeypatch):
    named = find_checkpoint(finished[0], "latest") + "/"
    config = recipe(shards, steps=6)
    config.optimizer.ema_decay, config.data.validation = 0.5, ""
    for steps in (6, 8):  # the second time as a launcher would, after a worker has died
        config.train.steps = steps
        assert train(config, tmp_path, resume=named).step_number == steps
    config.train.steps = 9
    assert restored(config, tmp_path).step_number == 8
    monkeypatch.setenv(job.PROGRESS_VARIABLE, f"{tmp_path}/progress")
    assert restored(config, tmp_path, resume=named).step_number == 8
    # What a launcher has started saves a step only on the chief's machine, and goes on from it on every one.
    assert job.read_progress(f"{tmp_path}/progress") == 8


def test_resume_never_goes_on_in_later_starts_of_its_job(shards, tmp_path, monkeypatch):
    config = recipe(shards)
    config.data.validation = ""
    config.train.steps = 2
    monkeypatch.setenv("SOLO_DIST_JOB_ID", "mine")
    train(config, tmp_path, resume="never")
    config.train.steps = 4
    assert restored(config, tmp_path, resume="never").step_number == 2
    monkeypatch.setenv("SOLO_DIST_JOB_ID", "another")
    with pytest.raises(ConfigError, match="--resume=never, but .* holds a run at step 2"):
        restored(config, tmp_path, resume="never")


def test_a_run_goes_on_in_another_precision(finished, shards, tmp_path):
    arrays, metadata = load_checkpoint(find_checkpoint(finished[0], "latest"))
    arrays |= {"step/loss_scale": np.float32(8), "step/good_steps": np.int64(3)}
    save_checkpoint(f"{tmp_path}/float16", arrays, metadata)
    config = recipe(shards)
    config.optimizer.ema_decay = 0.5
    assert restored(config, tmp_path / "run", resume=f"{tmp_path}/float16").step_number == STEPS
    config.runtime.precision = "float16"
    named = find_checkpoint(finished[0], "latest")
    assert restored(config, tmp_path / "other", resume=named).step_number == STEPS


def test_a_request_to_save_is_granted_once(shards, tmp_path):
    config = recipe(shards, steps=7, save_every=7, save_minutes=1e-9, steps_per_call=1, keep_checkpoints=9)
    config.data.validation = ""
    # Read a call later than it is made, and made by every call: so every second step is saved.
    assert train(config, tmp_path).checkpoints.steps() == [2, 4, 6, 7]


def test_the_mask_ap_of_all_images_counts_more_than_that_of_some(finished):
    workdir, run = finished
    _, metadata = load_checkpoint(find_checkpoint(workdir, "best"))
    assert (metadata.step, metadata.ap_images) == (STEPS, run.validation.manifest.num_images)


def test_nothing_is_written_before_fit(shards, tmp_path):
    restored(recipe(shards), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_statistics_of_each_replica_are_refused(shards, tmp_path, mirrored):
    config = recipe(shards)
    config.model.backbone.norm = "batch"
    with pytest.raises(ConfigError, match="norm=batch would keep other statistics on each of the 2 replicas"):
        Trainer(config, str(tmp_path), mirrored)


@pytest.mark.parametrize("option", ["panel_every", "eval_images", "save_minutes"])
def test_negative_intervals_are_refused(shards, option):
    with pytest.raises(ConfigError, match=f"train.{option}=-1 must be at least 0"):
        recipe(shards, **{option: -1}).validate()


def test_weights_of_another_run_are_a_start(finished, shards, tmp_path, caplog):
    workdir, run = finished
    config = recipe(shards)
    config.model.weights = find_checkpoint(workdir, "latest")
    with caplog.at_level("INFO"):
        started = restored(config, tmp_path)
    assert f"weights: {config.model.weights}" in caplog.text
    assert started.step_number == 0
    averages = {name: average.numpy() for name, average in run.parts.optimizer.averages.items()}
    for variable in started.parts.model.trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), averages[variable.path])


def test_a_pretrained_backbone_is_loaded_and_the_rest_is_random(finished, shards, tmp_path, caplog):
    workdir, run = finished
    config = recipe(shards)
    config.model.backbone.weights = find_checkpoint(workdir, "latest")
    config.optimizer.ema_decay = 0.5
    with caplog.at_level("INFO"):
        started = restored(config, tmp_path)
    assert f"weights: backbone from {config.model.backbone.weights}" in caplog.text
    averages = {name: average.numpy() for name, average in run.parts.optimizer.averages.items()}
    backbone = {variable.path for variable in started.parts.model.backbone.trainable_variables}
    equal = {
        variable.path: np.array_equal(variable.numpy(), averages[variable.path])
        for variable in started.parts.model.trainable_variables
    }
    assert all(equal[path] for path in backbone)
    assert sum(equal.values()) < len(equal)
    for path in backbone:
        np.testing.assert_array_equal(started.parts.optimizer.averages[path].numpy(), averages[path])


def test_a_run_that_diverges_stops_and_saves_nothing_broken(shards, tmp_path):
    config = recipe(shards, max_nonfinite_steps=3, steps=50, log_every=1, save_every=1)
    config.data.validation = ""
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e30, 0
    run = Trainer(config, str(tmp_path), tf.distribute.OneDeviceStrategy("CPU:0"))
    with pytest.raises(RunFailed, match=r"not finite in [34] steps in a row.*lower optimizer.learning_rate"):
        run.fit()
    run.checkpoints.wait()
    arrays, _ = load_checkpoint(find_checkpoint(str(tmp_path), "latest"))
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_the_same_seed_gives_the_same_weights(shards, tmp_path):
    runs = []
    for name in ("a", "b"):
        keras.utils.set_random_seed(hash(name) % 1000)
        runs.append(restored(recipe(shards), tmp_path / name))
    for mine, theirs in zip(runs[0].parts.model.variables, runs[1].parts.model.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_the_profiled_steps_begin_and_end_a_call():
    """The profile of 2:4 begins when one step is finished and ends when four are."""
    profiler = StepProfiler("2:4", "")
    assert [profiler.steps_ahead(step) for step in range(5)] == [[1, 4], [3], [2], [1], []]


@pytest.mark.slow
def test_profile_of_some_steps(shards, tmp_path, caplog):
    config = recipe(shards, steps_per_call=10, steps=5)
    config.data.validation = ""
    train(config, tmp_path, profile="2:4")
    (path,) = tmp_path.glob("tensorboard/plugins/profile/*/*.xplane.pb")
    content = path.read_bytes()
    assert b"Conv2DBackpropFilter" in content
    assert content.count(b"ResourceApplyAdam") > 0

    config.train.steps = 6
    train(config, tmp_path, profile="4:6")
    assert "--profile=4:6: no profile is written, because the run resumes at step 5" in caplog.text
    train(config, tmp_path, profile="8:9")
    assert "--profile=8:9: no profile was written, because none of these steps was run" in caplog.text


@pytest.mark.parametrize("steps", ["10", "10-15", "15:10", "0:5", "a:b"])
def test_profile_of_something_else_is_refused(shards, tmp_path, steps):
    with pytest.raises(ConfigError, match=f"--profile={steps} must be FIRST:LAST"):
        Trainer(recipe(shards), str(tmp_path), tf.distribute.OneDeviceStrategy("CPU:0"), profile=steps)


def test_an_image_that_breaks_the_loss_is_named(shards, tmp_path, monkeypatch):
    """Every step has all 12 images, one at a time; the network takes floating-point images as well."""
    planted = 7
    config = recipe(shards, max_nonfinite_steps=3, steps=50, global_batch=12, micro_batch="1")
    config.data.validation = ""
    run = Trainer(config, str(tmp_path), tf.distribute.OneDeviceStrategy("CPU:0"))

    def broken_input():
        for batch in build_batches(config, run.strategy, run.parts.plan.replica_batch, 0):
            broken = np.where(batch["image_id"] == planted, np.nan, 0.0)[:, None, None, None]
            yield batch | {"image": tf.cast(batch["image"], tf.float32) + broken.astype(np.float32)}

    signature = tf.nest.map_structure(tf.TensorSpec.from_tensor, next(broken_input()))
    broken = tf.data.Dataset.from_generator(broken_input, output_signature=signature)
    monkeypatch.setattr(trainer, "build_batches", lambda *_: iter(broken))
    with pytest.raises(RunFailed, match="not finite in [34] steps in a row") as failure:
        run.fit()
    assert f"a micro-batch of the images [{planted}] was not finite" in str(failure.value)
    assert run.step_number in (3, 4)
    assert not list(tmp_path.glob("checkpoints/step_*"))
