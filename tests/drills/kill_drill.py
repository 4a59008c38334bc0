"""Kills workers of a real training at random moments and checks that this changes nothing.

    python tests/drills/kill_drill.py --folder=DIR --sigterm=20 --sigkill=30
    python tests/drills/kill_drill.py --folder=DIR --sigstop=1 --watchdog_minutes=1
    python tests/drills/kill_drill.py --folder=DIR --sigkill=10 --config.data.augment.mosaic=0.5

First the training runs undisturbed. Then it runs again as often as needed, always under `launch.local`, while a random
worker gets the signal at a random moment: at any time, in the first step, during a save, around an evaluation. The
launcher restarts the job without a person. After each run, weights, optimizer, metrics.jsonl and TensorBoard must equal
those of the undisturbed run bit for bit, with no step twice or missing. After each signal the newest complete
checkpoint must be used, so at most the steps of one save interval are lost, and those that run while a checkpoint is
being written.

Prints one line a signal, and a summary with the times that restarts took. Exit code 1 if anything differs.
"""

import argparse
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "tests/distributed/tiny.py"
STEPS, SAVE_EVERY, EVAL_EVERY = 40, 5, 20
MOMENTS = ("any", "any", "first step", "save", "evaluation")
TIMES = ("images_per_second", "data_wait_fraction", "checkpoint_wait_fraction")
"""Metrics that depend on time, and so differ."""


@dataclasses.dataclass
class SentSignal:
    """One signal: what happened before and after."""

    name: str
    moment: str
    worker: int
    step: int
    """Last step whose metrics were written before."""
    newest: int = -1
    """Newest complete checkpoint at the time of the signal."""
    resumed: int = -1
    """Step that the next start resumed from."""
    seconds: float = 0.0
    """From the signal to the first step of the next start."""


class Job:
    """A launcher with its workers, followed by its output."""

    def __init__(self, workdir: Path, options: argparse.Namespace):
        workdir.mkdir(parents=True)
        self.workdir = workdir
        self._output = workdir.with_suffix(".log")
        self._position = 0
        flags = [f"--{name}={value}" for name, value in options.overrides.items()] + options.flags
        command = [sys.executable, "-m", "launch.local", f"--workers={options.workers}", "--max_restarts=1000"]
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--kill_seconds=15", "--", f"--workdir={workdir}", *flags],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str] | None:
        """Waits for the next match in the output; None if the job ends or the time is over first."""
        end = time.monotonic() + seconds
        while True:
            ended = not self.running
            text = self._output.read_text()
            match = re.compile(pattern, re.MULTILINE).search(text, self._position)
            if match:
                self._position = match.end()
                return match
            if ended or time.monotonic() > end:
                return None
            time.sleep(0.005)

    def workers(self) -> list[psutil.Process]:
        """The running workers in the order of their start, which is that of their ranks."""
        children = psutil.Process(self.process.pid).children()
        return sorted(children, key=lambda child: (child.create_time(), child.pid))

    def last_step(self) -> int:
        path = self.workdir / "metrics.jsonl"
        steps = re.findall(r'"step": (\d+)', path.read_text()) if path.exists() else []
        return max(map(int, steps), default=0)

    def newest_checkpoint(self) -> int:
        commits = (self.workdir / "checkpoints").glob("step_*/checkpoint.json")
        return max((int(path.parent.name[5:]) for path in commits), default=0)

    def end(self) -> int:
        return self.process.wait(timeout=3600)


class Drill:
    """Runs the training, undisturbed and disturbed, and compares."""

    def __init__(self, options: argparse.Namespace):
        self._options = options
        self._random = random.Random(options.seed)
        self._folder = Path(options.folder).resolve()
        self._runs = 0
        self.signals: list[SentSignal] = []
        self.problems: list[str] = []

    def undisturbed(self) -> None:
        started = time.monotonic()
        job = Job(self._folder / "undisturbed", self._options)
        assert job.end() == 0, f"the undisturbed run failed, see {job.workdir}.log"
        self._reference = job.workdir
        self._duration = time.monotonic() - started
        print(f"undisturbed: {self._duration:.0f} s", flush=True)

    def disturb(self, number: signal.Signals, count: int) -> None:
        """Sends the signal `count` times, over as many runs as that takes."""
        left = count
        while left > 0:
            self._runs += 1
            job = Job(self._folder / f"{number.name.lower()}_{self._runs}", self._options)
            assert job.wait_for(r"^\[launcher\] Starting", 60)
            while left > 0 and job.running:
                sent = self._send_signal(job, number)
                left -= sent is not None
            code = job.end()
            if code != 0:
                self.problems.append(f"{job.workdir.name}: exit code {code}")
                continue
            problems = compare(self._reference, job.workdir)
            self.problems += [f"{job.workdir.name}: {problem}" for problem in problems]
            print(f"{job.workdir.name}: {problems or 'equal'}", flush=True)

    def _send_signal(self, job: Job, number: signal.Signals) -> SentSignal | None:
        """Waits for a random moment, sends the signal, waits until the job runs again; None if it ended first."""
        moment = self._random.choice(MOMENTS)
        if not self._wait_for_moment(job, moment):
            return None
        workers = job.workers()
        if len(workers) < self._options.workers:
            return None  # already ending
        index = self._random.randrange(len(workers))
        sent = SentSignal(number.name, moment, index, job.last_step(), job.newest_checkpoint())
        started = time.monotonic()
        workers[index].send_signal(number)
        # Every start logs its weights before its first step; if it does not, the job was ending.
        again = job.wait_for(r"^\[launcher\] (Starting \d+|The job has ended)", 900)
        if again is None or "ended" in again[0]:
            return sent
        resumed = job.wait_for(r"weights: (?:checkpoint of step (\d+)|random)", 900)
        if resumed is None:
            self.problems.append(f"{job.workdir.name}: no start after {sent}")
            return sent
        sent.resumed = int(resumed[1] or 0)
        if job.wait_for(r"step \d+/\d+ |Finished at", 900):
            sent.seconds = time.monotonic() - started
        self._check(job, sent)
        return sent

    def _wait_for_moment(self, job: Job, moment: str) -> bool:
        if moment == "any":
            end = time.monotonic() + self._random.uniform(0, self._duration)
            while time.monotonic() < end and job.running:
                time.sleep(0.01)
        elif moment == "first step":
            job.wait_for(r"weights: ", 900)
            time.sleep(self._random.uniform(0, 5))
        elif moment == "save":
            folder = job.workdir / "checkpoints"
            before = set(os.listdir(folder)) if folder.exists() else set()
            while job.running and not (folder.exists() and set(os.listdir(folder)) - before):
                time.sleep(0.0005)
        else:
            job.wait_for(rf"step ({EVAL_EVERY}|{STEPS})/{STEPS} ", 900)
            time.sleep(self._random.uniform(0, 3))
        return job.running

    def _check(self, job: Job, sent: SentSignal) -> None:
        self.signals.append(sent)
        lost = sent.step - sent.resumed
        print(f"{job.workdir.name}: {sent} lost {max(lost, 0)}", flush=True)
        if sent.resumed < sent.newest:
            self.problems.append(f"{job.workdir.name}: step {sent.newest} was saved, but {sent}")
        if lost >= 2 * SAVE_EVERY:
            self.problems.append(f"{job.workdir.name}: {lost} steps lost: {sent}")

    def summary(self) -> str:
        seconds = sorted(sent.seconds for sent in self.signals if sent.seconds) or [0.0]
        most = max((sent.step - sent.resumed for sent in self.signals), default=0)
        return (
            f"{len(self.signals)} signals followed by a restart, {self._runs} runs. From signal to the next step: "
            f"median {seconds[len(seconds) // 2]:.0f} s, at most {seconds[-1]:.0f} s. At most {most} steps lost, "
            f"saving every {SAVE_EVERY}. Problems: {self.problems or 'none'}"
        )


def compare(reference: Path, run: Path) -> list[str]:
    """What differs between two finished runs; empty if nothing does."""
    problems = []
    for kind in ("checkpoints", "best"):
        newest = max((reference / kind).glob("step_*"))
        if not (run / kind / newest.name).exists():
            problems.append(f"no {kind}/{newest.name}")
            continue
        expected, arrays = (
            load_file(folder / kind / newest.name / "arrays.safetensors") for folder in (reference, run)
        )
        different = [
            name
            for name in sorted(set(expected) | set(arrays))
            if name not in arrays or name not in expected or not np.array_equal(arrays[name], expected[name])
        ]
        if different:
            problems.append(f"{len(different)} of {len(expected)} arrays differ in {kind}: {different[:3]}")
    if read_metrics(run) != read_metrics(reference):
        problems.append("metrics.jsonl differs")
    if read_tensorboard(run) != read_tensorboard(reference):
        problems.append("TensorBoard differs")
    return problems


def read_metrics(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def read_tensorboard(run: Path) -> list[tuple[str, str, int, str]]:
    """What TensorBoard shows: folder, tag, step and value of every point, sorted; a repeated point is there twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    points = []
    for folder in sorted({path.parent for path in (run / "tensorboard").rglob("*tfevents*")}):
        accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["tensors"]:
            if not any(name in tag for name in TIMES):
                name = str(folder.relative_to(run))
                values = [(event.step, make_ndarray(event.tensor_proto)) for event in accumulator.Tensors(tag)]
                points += [(name, tag, step, str(value.tolist())) for step, value in values]
    return sorted(points)


def make_shards(folder: Path) -> dict[str, str]:
    """Shards of the tiny recipe's shapes, made by the trainer's own code in a process of its own."""
    code = (
        "import importlib.util, sys\n"
        "from solo_dist.data.sharding.demo_data import ensure_shapes\n"
        "if __name__ == '__main__':\n"
        "    spec = importlib.util.spec_from_file_location('tiny', sys.argv[1])\n"
        "    recipe = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(recipe)\n"
        "    ensure_shapes(sys.argv[2], recipe.get_config(), 40, 8)\n"
    )
    program = folder / "make_shards.py"
    program.write_text(code)
    environ = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run([sys.executable, str(program), str(RECIPE), str(folder / "shapes")], env=environ, check=True)
    return {split: f"{folder}/shapes/{split}/shards" for split in ("train", "validation")}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, help="folder for all output; must not hold earlier runs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sigterm", type=int, default=0, help="number of SIGTERMs")
    parser.add_argument("--sigkill", type=int, default=0, help="number of SIGKILLs")
    parser.add_argument("--sigstop", type=int, default=0, help="number of SIGSTOPs, which only the watchdog notices")
    parser.add_argument("--watchdog_minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options, options.flags = parser.parse_known_args()
    return options


def main() -> None:
    options = parse()
    folder = Path(options.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    shards = make_shards(folder)
    options.overrides = {
        "config": RECIPE,
        "config.data.train": shards["train"],
        "config.data.validation": shards["validation"],
        "config.train.steps": STEPS,
        "config.train.save_every": SAVE_EVERY,
        "config.train.eval_every": EVAL_EVERY,
        "config.runtime.watchdog_minutes": options.watchdog_minutes,
    }
    drill = Drill(options)
    drill.undisturbed()
    for name in ("sigterm", "sigkill", "sigstop"):
        drill.disturb(signal.Signals[name.upper()], getattr(options, name))
    print(drill.summary(), flush=True)
    sys.exit(1 if drill.problems else 0)


if __name__ == "__main__":
    main()
