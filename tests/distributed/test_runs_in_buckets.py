"""Runs whose shards and run directory are in a bucket: interrupted, disturbed and cut off, they end as on a disk."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tensorflow as tf

from tests.drills.kill_drill import compare, read_tensorboard
from tests.stores.fixtures import Bucket, GcsBucket, Server, environment_with

# Several programs in a row, and a machine that tests several things at a time.
pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Path(__file__).with_name("tiny.py")
STEPS = 30
LIMIT_SECONDS = 500
# Not a second, but a moment before a failed request is repeated: there are many.
BRISK = {"GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "10000"}
# A store that is gone is given up within seconds.
IMPATIENT = {
    "SOLO_DIST_STORE_SECONDS": "3",
    "GCS_RETRY_CONFIG_MAX_RETRIES": "1",
    "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "10000",
    "AWS_RETRY_MODE": "standard",
    "AWS_MAX_ATTEMPTS": "2",
}


class Program:
    """A program of the project, followed by its output."""

    def __init__(self, log: Path, bucket: Bucket, module: str, *arguments: str, **environ: str):
        self.log, self._position = log, 0
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=environment_with(bucket, TMPDIR=str(log.parent), **environ),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, pattern: str) -> re.Match[str]:
        end = time.monotonic() + LIMIT_SECONDS
        while True:
            ended = self.process.poll() is not None
            found = re.compile(pattern).search(self.log.read_text(), self._position)
            if found:
                self._position = found.end()
                return found
            assert not ended and time.monotonic() < end, f"no {pattern}:\n{self.log.read_text()[-5000:]}"
            time.sleep(0.01)

    def end(self, code: int = 0) -> str:
        self.process.wait(timeout=LIMIT_SECONDS)
        text = self.log.read_text()
        assert self.process.returncode == code, text[-5000:]
        assert "Traceback" not in text and "pure virtual" not in text, text[-5000:]
        return text


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Program]]:
    """start(bucket, module, *arguments, **environ) -> Program."""
    programs: list[Program] = []

    def run(bucket: Bucket, module: str, *arguments: str, **environ: str) -> Program:
        programs.append(Program(tmp_path / f"{len(programs)}.log", bucket, module, *arguments, **environ))
        return programs[-1]

    yield run
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait()


@pytest.fixture(params=["gcs", "s3"])
def bucket(request) -> Bucket:
    return request.getfixturevalue(request.param)


def flags_of(workdir: str, train: str, validation: str) -> list[str]:
    return [
        f"--config={RECIPE}",
        f"--workdir={workdir}",
        f"--config.data.train={train}",
        f"--config.data.validation={validation}",
        f"--config.train.steps={STEPS}",
        "--config.train.save_every=10",
        "--config.train.eval_every=15",
        "--config.train.keep_checkpoints=2",
    ]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, shards, train) -> Path:
    """The run directory of the same run on a disk."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    return train(workdir, flags_of(str(workdir), shards["train"], shards["validation"])).workdir


@pytest.fixture
def flags(bucket, shards) -> list[str]:
    """Flags of the run in the bucket, with shards that are in it too."""
    return flags_in(bucket, shards)


def flags_in(bucket: Bucket, shards: dict[str, str]) -> list[str]:
    for split, folder in shards.items():
        for path in Path(folder).iterdir():
            bucket.put(f"{split}/{path.name}", path.read_bytes())
    return flags_of(bucket.url("run"), bucket.url("train"), bucket.url("validation"))


def download(bucket: Bucket, folder: Path, prefix: str = "run") -> Path:
    """What is in the bucket, as a folder."""
    for name in bucket.names():
        if name.startswith(f"{prefix}/"):
            path = folder / "bucket" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bucket.get(name))
    return folder / "bucket" / prefix


def interrupt_and_continue(start, bucket: Bucket, flags: list[str], step: int = 12, **environ: str) -> None:
    first = start(bucket, "solo_dist.train", *flags, **environ)
    first.wait_for(f"step {step}/{STEPS} ")
    first.process.send_signal(signal.SIGTERM)
    assert "saved at step" in first.end(193)
    assert re.search(r"weights: checkpoint of step \d+", start(bucket, "solo_dist.train", *flags, **environ).end())


def check(bucket: Bucket, undisturbed: Path, tmp_path: Path) -> Path:
    """Compares with the run on a disk; returns the downloaded run."""
    run = download(bucket, tmp_path)
    assert compare(undisturbed, run) == []
    assert [len(list((run / kind).iterdir())) for kind in ("checkpoints", "best")] == [2, 1]
    strays = [name for name in bucket.names() if name.startswith("run/") and (name.endswith("/") or "tmp" in name)]
    assert not strays and "run/lock.json" not in bucket.names()
    assert not list(tmp_path.glob("solo_dist_[0-9]*/*")), "nothing is left on this machine"
    return run


@pytest.mark.slow
def test_every_program_works_on_a_bucket(bucket, start, undisturbed, shards, tmp_path):
    for split, folder in shards.items():
        data = Path(folder).parent
        sources = [f"--annotations={data}/instances.json", f"--images={data}/images"]
        start(bucket, "tools.shard_coco", f"--config={RECIPE}", *sources, f"--output={bucket.url(split)}").end()
    flags = flags_of(bucket.url("run"), bucket.url("train"), bucket.url("validation"))
    interrupt_and_continue(start, bucket, flags)
    run = check(bucket, undisturbed, tmp_path)
    points = {(tag, step) for _, tag, step, _ in read_tensorboard(run)}
    assert {("loss/total", 1), ("loss/total", STEPS), ("segm/AP", 15), ("segm/AP", STEPS)} <= points
    evaluated = start(bucket, "solo_dist.evaluate", f"--workdir={bucket.url('run')}", "--checkpoint=best")
    table = evaluated.end()
    picture = sorted(Path(shards["validation"]).parent.joinpath("images").iterdir())[0]
    bucket.put("photos/one.jpg", picture.read_bytes())
    predicted = start(
        bucket,
        "solo_dist.predict",
        f"--workdir={bucket.url('run')}",
        f"--images={bucket.url('photos/*.jpg')}",
        f"--output={bucket.url('overlays')}",
        "--score_threshold=0",
    )
    assert "instances in 1 images" in predicted.end()
    assert {"overlays/one.jpg", "overlays/coco_instances_results.json"} <= set(bucket.names())
    step = re.search(r"eval/step_(\d+)", table)[1]
    assert bucket.get(f"run/eval/step_{step}/metrics.json")
    assert bucket.url("run/export") in start(bucket, "solo_dist.export", f"--workdir={bucket.url('run')}").end()
    exported = tf.saved_model.load(str(download(bucket, tmp_path, "run/export")))
    image = tf.io.decode_jpeg(picture.read_bytes())
    found = exported.signatures["serving_default"](image=image[None])
    assert found["masks"].shape[2:] == image.shape[:2]
    nothing = start(bucket, "solo_dist.evaluate", f"--workdir={bucket.url('nothing')}")
    assert f"There is no run in {bucket.url('nothing')}" in nothing.end(2)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["errors", "late", "cut"])
def test_a_store_that_fails_now_and_then_changes_nothing(fault, bucket, flags, start, undisturbed, tmp_path):
    if fault == "errors":
        bucket.fail(0.2)
    elif fault == "late":
        bucket.delay(0.1)
    program = start(bucket, "solo_dist.train", *flags, **(BRISK if fault == "errors" else {}))
    program.wait_for(f"step 12/{STEPS} ")
    if fault == "cut":
        bucket.cut(10)
    program.end()
    bucket.heal()
    check(bucket, undisturbed, tmp_path)


@pytest.mark.slow
def test_an_interrupted_run_in_s3_is_that_on_a_disk(s3, start, undisturbed, shards, tmp_path):
    interrupt_and_continue(start, s3, flags_in(s3, shards))
    check(s3, undisturbed, tmp_path)


@pytest.mark.slow
def test_errors_and_an_interruption_change_nothing(gcs, start, undisturbed, shards, tmp_path):
    gcs.fail(0.2)
    flags = flags_of(gcs.url("run"), shards["train"], shards["validation"])
    interrupt_and_continue(start, gcs, flags, **BRISK)
    gcs.heal()
    check(gcs, undisturbed, tmp_path)


@pytest.mark.slow
def test_when_the_store_is_gone_the_local_checkpoint_goes_on(start, undisturbed, shards, tmp_path):
    bucket = GcsBucket(Server("tests.stores.gcs"))
    flags = flags_of(bucket.url("run"), shards["train"], shards["validation"])
    program = start(bucket, "solo_dist.train", *flags, **IMPATIENT)
    program.wait_for(f"step 12/{STEPS} ")
    bucket.server.kill()
    text = program.end(196)
    assert len(re.findall("^error: ", text, re.MULTILINE)) == 1
    local = re.search(r"the same command with --resume=(\S+) continues from it", text)[1]
    assert re.search("error: .*the store cannot be reached; check the network", text)
    # The bucket is lost: the run goes on from what is on this machine, in another place.
    workdir = tmp_path / "elsewhere"
    other = GcsBucket(Server("tests.stores.gcs"))
    try:
        flags = flags_of(str(workdir), shards["train"], shards["validation"])
        start(other, "solo_dist.train", *flags, f"--resume={local}").end()
    finally:
        other.server.kill()
    problems = compare(undisturbed, workdir)
    assert problems == ["metrics.jsonl differs", "TensorBoard differs"]  # which are about the steps since


@pytest.mark.slow
def test_when_the_store_comes_back_nothing_is_missing(gcs, start, undisturbed, shards, tmp_path):
    flags = flags_in(gcs, shards)
    program = start(gcs, "solo_dist.train", *flags, **IMPATIENT)
    program.wait_for(f"step 12/{STEPS} ")
    gcs.cut(3600)
    text = program.end(196)
    local = re.search(r"the same command with --resume=(\S+) continues from it", text)[1]
    gcs.heal()
    start(gcs, "solo_dist.train", *flags, f"--resume={local}").end()
    check(gcs, undisturbed, tmp_path)


@pytest.mark.slow
def test_two_workers_share_a_bucket(gcs, start, shards, tmp_path):
    flags = flags_in(gcs, shards)
    disk = tmp_path / "disk"
    launch = ["--workers=2", "--max_restarts=5", "--kill_seconds=15"]
    local = flags_of(str(disk), shards["train"], shards["validation"])
    start(gcs, "launch.local", *launch, f"--log_dir={tmp_path}/logs_disk", "--", *local).end()
    job = start(gcs, "launch.local", *launch, f"--log_dir={tmp_path}/logs", "--", *flags)
    for step, number in ((8, signal.SIGKILL), (16, signal.SIGTERM), (24, signal.SIGKILL)):
        job.wait_for(f"step {step}/{STEPS} ")
        worker = subprocess.run(["pgrep", "-P", str(job.process.pid)], capture_output=True, text=True).stdout.split()
        subprocess.run(["kill", f"-{number}", worker[step % 2]], check=True)
        job.wait_for("Starting all workers again")
    job.end()
    run = download(gcs, tmp_path)
    assert compare(disk, run) == []
