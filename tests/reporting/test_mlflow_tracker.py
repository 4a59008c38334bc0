"""Curves in MLflow: which values of a run are sent; with -m slow, by a real server."""

import contextlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from solo_dist.config import Config
from solo_dist.distributed.launcher import free_ports
from solo_dist.errors import ConfigError
from solo_dist.reporting.mlflow_tracker import MlflowTracker, has_ended, points_of
from solo_dist.reporting.run_files import read_run
from solo_dist.run.checkpoint import CheckpointMetadata, save_checkpoint
from solo_dist.run.directory import RunDirectory
from solo_dist.run.metric_writers import MetricWriter


def installed(distribution):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(distribution))


needs_server = pytest.mark.skipif(not installed("mlflow"), reason="pip install mlflow")
needs_client = pytest.mark.skipif(not installed("mlflow-skinny"), reason="pip install mlflow-skinny")


def make_run(folder):
    folder.mkdir()
    config = Config(name="tiny")
    config.train.steps, config.train.global_batch = 50, 4
    (folder / "config.json").write_text(config.to_json())


def write_steps(folder, after_step, last):
    """Trains on paper: steps after_step + 1 to last, with an evaluation every 10 steps."""
    writer = MetricWriter(RunDirectory(str(folder)), after_step)
    for step in range(after_step + 1, last + 1):
        writer.scalars(step, "train", {"loss/total": 1 / step, "lr": 0.1, "images_per_second": 8.0})
        if step % 10 == 0:
            writer.scalars(step, "validation", {"segm/AP": step / 100, "segm/AP50": float("nan")})
    writer.close()


def track(folder, *arguments):
    command = [sys.executable, "-m", "solo_dist", "track", f"--workdir={folder}", "--to=mlflow", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tracked(folder, uri):
    out, err = track(folder, f"--uri={uri}").communicate(timeout=300)
    assert not err, err
    return int(out.split()[0])


def test_points_have_the_time_of_their_step(tmp_path):
    make_run(tmp_path / "run")
    write_steps(tmp_path / "run", 0, 20)
    points = list(points_of(read_run(str(tmp_path / "run"))))
    assert len(points) == 20 * 3 + 2  # nan is no value
    assert points[3] == ("train/loss/total", 2, 0.5, 2 * 4 / 8)
    assert points[-1] == ("validation/segm/AP", 20, 0.2, 20 * 4 / 8)


def test_a_run_has_ended_at_its_last_step_also_if_it_trains_for_minutes(tmp_path):
    folder = str(tmp_path / "run")
    make_run(tmp_path / "run")
    write_steps(tmp_path / "run", 0, 49)
    assert not has_ended(read_run(folder))
    config = Config(name="tiny")
    config.train.steps, config.train.minutes = 0, 5.0
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    assert not has_ended(read_run(folder))  # how many steps there are is not known yet
    save_checkpoint(RunDirectory(folder).checkpoints().path(40), {}, CheckpointMetadata(step=40, total_steps=50))
    assert not has_ended(read_run(folder))
    write_steps(tmp_path / "run", 49, 50)
    assert has_ended(read_run(folder))


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="There is no address of a server"):
        MlflowTracker("", "solo_dist")
    if not installed("mlflow-skinny"):
        with pytest.raises(ConfigError, match="pip install mlflow-skinny"):
            MlflowTracker("http://127.0.0.1:5000", "solo_dist")


@contextlib.contextmanager
def server(folder):
    """A local MLflow server; its address."""
    uri = f"http://127.0.0.1:{free_ports(1)[0]}"
    command = [sys.executable, "-m", "mlflow", "server", f"--port={uri.rsplit(':', 1)[1]}", "--workers=1"]
    # Without the nine processes for jobs of language models.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:
                if answer.status == 200:
                    break
            assert process.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield uri
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def histories(uri):
    """{name: [(step, value), ...]} of the only run, its parameters and its status."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("solo_dist")
    (run,) = client.search_runs([experiment.experiment_id])
    names = run.data.metrics
    curves = {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in names}
    return {name: sorted(values) for name, values in curves.items()}, run.data.params, run.info.status


@needs_server
@pytest.mark.slow
def test_a_resumed_run_is_one_run_without_a_doubled_or_missing_step(tmp_path):
    run = tmp_path / "run"
    make_run(run)
    with server(tmp_path) as uri:
        write_steps(run, 0, 37)  # killed here; the newest checkpoint is of step 30
        assert tracked(run, uri) == 37 * 3 + 3
        assert tracked(run, uri) == 0
        write_steps(run, 30, 50)
        assert tracked(run, uri) == 13 * 3 + 2
        curves, parameters, status = histories(uri)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for split, tag in (("train", "loss/total"), ("train", "lr"), ("validation", "segm/AP")):
        wanted = [(line["step"], line[tag]) for line in lines if line["split"] == split]
        assert curves[f"{split}/{tag}"] == wanted
    assert parameters["train.global_batch"] == "4" and status == "FINISHED"


@needs_server
@pytest.mark.slow
def test_it_follows_a_training_until_it_is_interrupted(tmp_path):
    run = tmp_path / "run"
    make_run(run)
    write_steps(run, 0, 10)
    with server(tmp_path) as uri:
        process = track(run, f"--uri={uri}", "--every=0.2")
        assert process.stdout.readline().startswith("31 new values")
        write_steps(run, 10, 20)
        counts = [0]
        while sum(counts) < 31:
            counts.append(int(process.stdout.readline().split()[0]))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert [step for step, _ in histories(uri)[0]["train/lr"]] == list(range(1, 21))


@needs_client
@pytest.mark.slow
def test_a_server_that_is_not_there(tmp_path):
    make_run(tmp_path / "run")
    out, err = track(tmp_path / "run", f"--uri=http://127.0.0.1:{free_ports(1)[0]}").communicate(timeout=300)
    assert not out and "Check --uri and the server." in err and "Traceback" not in err
