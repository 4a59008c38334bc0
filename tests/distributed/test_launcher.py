"""The local launcher with real processes and real signals. The workers are small scripts, so that starts are fast."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 60

# Every worker script starts with this: who it is, how often it was started, and a way to wait for the others' files.
PREAMBLE = """
import json, os, pathlib, signal, sys, time
from solo_dist.distributed import exit_codes as launcher
from solo_dist.distributed.job import report_progress

here = pathlib.Path(__file__).parent
config = json.loads(os.environ["TF_CONFIG"])
index = config["task"]["index"]
mine = here / f"starts_{index}"
mine.write_text(mine.read_text() + "x" if mine.exists() else "x")
start = len(mine.read_text())

def wait_for(name):
    while not (here / name).exists():
        time.sleep(0.02)
"""


class Job:
    """A launcher whose workers run a script of the test."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self, script: str, *flags: str, worker_flags: tuple[str, ...] = (), **environ: str) -> "Job":
        (self.folder / "fake_train.py").write_text(PREAMBLE + script)
        command = [sys.executable, "-m", "launch.local", "--module=fake_train", f"--log_dir={self.folder}/logs"]
        self.process = subprocess.Popen(
            [*command, *flags, "--", *worker_flags],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{self.folder}:{ROOT}"} | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=LIMIT_SECONDS)
        return self.process.returncode, output

    def wait_for(self, name: str) -> str:
        def written() -> bool:
            assert self.process.poll() is None, self.process.communicate()[0]
            return (self.folder / name).exists() and (self.folder / name).read_text() != ""

        if not (self.folder / name).exists():
            wait_until(written, name)
        return (self.folder / name).read_text()

    def starts(self) -> list[int]:
        return [len(path.read_text()) for path in sorted(self.folder.glob("starts_*"))]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def job(tmp_path):
    job = Job(tmp_path)
    yield job
    if job.process and job.process.poll() is None:
        job.process.kill()
        job.process.wait()


def test_cluster_arguments_prefixes_and_logs(job):
    script = """
print("cluster", json.dumps(config["cluster"]["worker"]), flush=True)
print("arguments", sys.argv[1:], file=sys.stderr)
sys.stdout.write("no end of line")
"""
    code, output = job.start(script, "--workers=3", worker_flags=("--config=a.py", "--seed=1")).end()
    assert code == 0
    addresses = set()
    for index in range(3):
        lines = [line for line in output.splitlines() if line.startswith(f"[worker {index}] ")]
        assert f"[worker {index}] arguments ['--config=a.py', '--seed=1', '--strategy=multi_worker']" in lines
        assert f"[worker {index}] no end of line" in lines
        addresses.add(next(line.partition("cluster ")[2] for line in lines if "cluster" in line))
        assert "no end of line" in (job.folder / f"logs/worker_{index}.log").read_text()
    assert len(addresses) == 1
    workers = json.loads(addresses.pop())
    assert len(set(workers)) == 3
    assert all(worker.startswith("127.0.0.1:") for worker in workers)


def test_restarts_all_workers_after_one_is_killed(job):
    script = """
(here / f"ports_{start}_{index}").write_text(config["cluster"]["worker"][index])
if start == 1:
    (here / f"pid_{index}").write_text(str(os.getpid()))
    time.sleep(600)
"""
    job.start(script, "--workers=2", "--kill_seconds=1")
    job.wait_for("pid_0")
    os.kill(int(job.wait_for("pid_1")), signal.SIGKILL)
    code, output = job.end()
    assert code == 0, output
    assert job.starts() == [2, 2]
    assert "Worker 1 has ended: killed by SIGKILL." in output
    assert job.wait_for("ports_1_0") != job.wait_for("ports_2_0")


def test_kills_a_stopped_worker_when_the_other_fails(job):
    script = """
if start == 1:
    (here / f"pid_{index}").write_text(str(os.getpid()))
    wait_for("stopped")
    sys.exit(launcher.EXIT_WATCHDOG if index == 0 else 0)
"""
    job.start(script, "--workers=2", "--kill_seconds=1")
    job.wait_for("pid_0")
    stopped = int(job.wait_for("pid_1"))
    os.kill(stopped, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{stopped}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the stop")
    (job.folder / "stopped").write_text("yes")
    code, output = job.end()
    assert code == 0, output
    assert job.starts() == [2, 2]
    assert "watchdog" in output
    assert not is_running(stopped)


def test_kills_what_a_dead_worker_has_started(job):
    script = """
import subprocess
if start == 1:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (here / "child").write_text(str(child.pid))
    os._exit(7)
"""
    code, output = job.start(script, "--workers=1", TF_CONFIG='{"task": {"index": 0}}').end()
    assert code == 0, output
    assert not is_running(int(job.wait_for("child")))


@pytest.mark.parametrize(
    ("first", "second", "expected", "starts"),
    [
        ("0", "0", 0, 1),
        ("2", "0", 2, 1),
        ("launcher.EXIT_PEER_LOST", "2", 2, 1),
        ("launcher.EXIT_PREEMPTED", "launcher.EXIT_PREEMPTED", 193, 3),
        ("launcher.EXIT_WATCHDOG", "0", 195, 3),
        ("1", "0", 1, 3),
        ("-signal.SIGSEGV", "0", 128 + signal.SIGSEGV, 3),
    ],
)
def test_exit_codes(job, first, second, expected, starts):
    script = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the other's failure does not hide this one's code
(here / f"ready_{{index}}").write_text("yes")
wait_for(f"ready_{{1 - index}}")
code = int({first} if index == 0 else {second})
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""
    code, output = job.start(script, "--workers=2", "--max_restarts=2", "--kill_seconds=1").end()
    assert code == expected, output
    assert max(job.starts()) == starts


def test_a_new_checkpoint_gives_new_restarts(job):
    script = """
if index == 1:
    wait_for("finished")
elif start < 5:
    report_progress(10 * start)
    sys.exit(1)
else:
    (here / "finished").write_text("yes")
"""
    code, output = job.start(script, "--workers=2", "--max_restarts=1", "--kill_seconds=1").end()
    assert code == 0, output
    assert job.starts()[0] == 5


def test_progress_that_stands_still_does_not(job):
    script = "report_progress(10)\nsys.exit(1)"
    code, output = job.start(script, "--workers=2", "--max_restarts=1").end()
    assert code == 1, output
    assert max(job.starts()) == 2
    assert "Giving up" in output


@pytest.mark.parametrize(
    "sent",
    ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"],
)
def test_passes_signals_on_and_does_not_restart(job, sent):
    script = """
received = []
for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"):
    signal.signal(getattr(signal, name), lambda number, frame: received.append(signal.Signals(number).name))
(here / f"ready_{index}").write_text("yes")
while not received:
    time.sleep(0.02)
print("received", received, flush=True)
sys.exit(launcher.EXIT_PREEMPTED)
"""
    job.start(script, "--workers=2")
    job.wait_for("ready_0")
    job.wait_for("ready_1")
    job.process.send_signal(getattr(signal, sent))
    code, output = job.end()
    assert code == 193, output
    assert job.starts() == [1, 1]
    assert all(f"[worker {index}] received ['{sent}']" in output for index in range(2))


def test_workers_save_although_nobody_reads_the_output_any_more(job):
    # As with `| tee log` and Ctrl-C, which tee gets too, or a terminal that is closed.
    script = """
received = []
signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
(here / f"ready_{index}").write_text("yes")
while not received:
    print("training", flush=True)
    time.sleep(0.02)
(here / f"saved_{index}").write_text("yes")
sys.exit(launcher.EXIT_PREEMPTED)
"""
    job.start(script, "--workers=2")
    job.wait_for("ready_0")
    job.wait_for("ready_1")
    job.process.stdout.close()
    job.process.send_signal(signal.SIGINT)
    assert job.process.wait(timeout=LIMIT_SECONDS) == 193
    assert job.wait_for("saved_0") == job.wait_for("saved_1") == "yes"


def test_a_job_under_nohup_goes_on_when_the_terminal_is_closed(job):
    script = """
assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
(here / f"ready_{index}").write_text("yes")
wait_for("go_on")
"""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; the launcher inherits it
    try:
        job.start(script, "--workers=2")
    finally:
        signal.signal(signal.SIGHUP, before)
    job.wait_for("ready_0")
    job.wait_for("ready_1")
    job.process.send_signal(signal.SIGHUP)
    (job.folder / "go_on").write_text("yes")
    code, output = job.end()
    assert code == 0 and "SIGHUP" not in output, output


def test_a_worker_that_was_killed_while_saving_has_not_saved(job):
    script = """
received = []
signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
(here / f"ready_{index}").write_text("yes")
while not received or index == 0:
    time.sleep(0.02)
sys.exit(launcher.EXIT_PREEMPTED)
"""
    job.start(script, "--workers=2", "--stop_seconds=2")
    job.wait_for("ready_0")
    job.wait_for("ready_1")
    job.process.terminate()
    code, output = job.end()
    assert code == 128 + signal.SIGKILL and "Worker 1 has ended: exit code 193" in output, output


def test_kills_workers_that_do_not_stop(job):
    script = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(here / f"ready_{index}").write_text("yes")
time.sleep(600)
"""
    job.start(script, "--workers=2", "--stop_seconds=0.5")
    job.wait_for("ready_0")
    job.wait_for("ready_1")
    job.process.terminate()
    code, output = job.end()
    assert code == 128 + signal.SIGKILL, output
    assert job.starts() == [1, 1]


def test_lets_the_others_save_when_one_was_preempted(job):
    script = """
if start == 1:
    if index == 1:
        sys.exit(launcher.EXIT_PREEMPTED)
    wait_for("saved")
    print("saved in peace", flush=True)
    sys.exit(launcher.EXIT_PREEMPTED)
"""
    job.start(script, "--workers=2", "--kill_seconds=0", "--stop_seconds=600")
    job.wait_for("starts_0")
    while "Worker 1 has ended" not in job.process.stdout.readline():
        pass
    (job.folder / "saved").write_text("yes")
    code, output = job.end()
    assert code == 0, output
    assert "[worker 0] saved in peace" in output
    assert job.starts() == [2, 2]


def test_workers_die_with_a_killed_launcher(job):
    script = """
(here / f"pid_{index}").write_text(str(os.getpid()))
time.sleep(600)
"""
    job.start(script, "--workers=2")
    pids = [int(job.wait_for(f"pid_{index}")) for index in range(2)]
    job.process.kill()
    wait_until(lambda: not any(is_running(pid) for pid in pids), "the workers' end")


def test_binds_workers_to_cores_and_gpus(job):
    script = """print("bound", sorted(os.sched_getaffinity(0)), os.environ["CUDA_VISIBLE_DEVICES"])"""
    flags = ("--workers=2", "--cores_per_worker=1", "--gpus_per_worker=2")
    code, output = job.start(script, *flags, CUDA_VISIBLE_DEVICES="4,5,6,7").end()
    cores = sorted(os.sched_getaffinity(0))
    assert code == 0, output
    assert f"[worker 0] bound [{cores[0]}] 4,5" in output
    assert f"[worker 1] bound [{cores[1 % len(cores)]}] 6,7" in output


@pytest.mark.parametrize(
    ("flags", "worker_flags", "message"),
    [
        (["--workers=0"], (), "--workers=0 must be at least 1"),
        (["--workers=2"], ("--strategy=mirrored",), "--strategy=mirrored uses one process"),
        (["--workers=2", "--gpus_per_worker=2"], (), "CUDA_VISIBLE_DEVICES lists fewer GPUs"),
    ],
)
def test_wrong_flags(job, flags, worker_flags, message):
    code, output = job.start("", *flags, worker_flags=worker_flags, CUDA_VISIBLE_DEVICES="0,1,2").end()
    assert code == 2
    assert message in output
    assert job.starts() == []


@pytest.mark.parametrize(
    ("worker_flags", "log"),
    [
        (["--workdir={run}"], "worker_0.log"),
        (["--workdir", "{run}", "--worker_index=3", "--workers=a:1"], "worker_3.log"),
    ],
)
def test_logs_go_to_the_workdir(job, worker_flags, log):
    (job.folder / "fake_train.py").write_text("import os\nprint(os.environ['SOLO_DIST_PROGRESS_FILE'])")
    command = [sys.executable, "-m", "launch.local", "--workers=1", "--module=fake_train", "--"]
    command += [flag.format(run=job.folder / "run") for flag in worker_flags]
    environ = os.environ | {"PYTHONPATH": f"{job.folder}:{ROOT}"}
    output = subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True).stdout
    progress = job.folder / "run/logs" / log.replace("worker", "progress").removesuffix(".log")
    assert (job.folder / "run/logs" / log).read_text() == f"{progress}\n"
    assert f"[{log.removesuffix('.log').replace('_', ' ')}] {progress}\n" in output


def test_does_not_import_tensorflow():
    code = "import sys, solo_dist.commands.launch; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
