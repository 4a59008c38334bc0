"""Interrupts a real Slurm job in each way that Slurm has and checks that this changes nothing.

    python tests/drills/slurm_drill.py --folder=/shared/drill       # on a machine with sbatch and two free nodes

The job is launch/slurm/train.sbatch with the tests' tiny recipe on two nodes. It runs undisturbed once, then once for
each of: scontrol requeue; scancel --batch --signal=USR1 (what the time limit sends); scancel --batch --signal=TERM and
plain scancel, after which the same sbatch is given again. Weights, optimizer, metrics.jsonl and TensorBoard must equal
those of the undisturbed run. Exit code 1 if anything differs.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from kill_drill import RECIPE, ROOT, compare, make_shards, read_metrics

STEPS, SAVE_EVERY, EVAL_EVERY, STRIKE_AT = 40, 5, 20, 12
LIMIT_SECONDS = 1800
REQUEUE_SECONDS = 3
"""A job that starts again in the second of its end is refused: its credential counts as revoked."""
# Name, command, whether the job goes back into the queue by itself.
INTERRUPTIONS = (
    ("requeue", ["scontrol", "requeue"], True),
    ("early_signal", ["scancel", "--batch", "--signal=USR1"], True),
    ("term", ["scancel", "--batch", "--signal=TERM"], False),
    ("cancel", ["scancel"], False),
)


class SlurmJob:
    """One submitted job."""

    def __init__(self, workdir: Path, overrides: dict[str, object]):
        self.workdir = workdir
        self.log = workdir.with_suffix(".log")
        flags = [f"--{name}={value}" for name, value in overrides.items()]
        output = [f"--output={self.log}", "--chdir", str(ROOT)]
        command = ["sbatch", "--parsable", *output, "launch/slurm/train.sbatch", f"--workdir={workdir}", *flags]
        environ = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
        self.number = subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True).stdout
        self.number = self.number.strip().partition(";")[0]

    def state(self) -> tuple[str, int]:
        """Slurm's word for the state, and the number of restarts."""
        text = subprocess.run(["scontrol", "show", "job", self.number], check=True, capture_output=True, text=True)
        found = re.search(r"JobState=(\w+)", text.stdout), re.search(r"Restarts=(\d+)", text.stdout)
        assert found[0] and found[1], text.stdout
        return found[0][1], int(found[1][1])

    def wait(self, what: str, *states: str) -> str:
        """Waits for one of the states; a requeued job need not wait out Slurm's delay."""
        end = time.monotonic() + LIMIT_SECONDS
        while (state := self.state()[0]) not in states:
            assert time.monotonic() < end, f"{what}: job {self.number} is {state}, see {self.log}"
            if state == "PENDING":
                time.sleep(REQUEUE_SECONDS)
                command = ["scontrol", "update", f"JobId={self.number}", "StartTime=now"]
                subprocess.run(command, capture_output=True)
            time.sleep(0.5)
        return state

    def wait_for_step(self, step: int) -> int:
        """Waits until a step's metrics are written; returns the last one written."""
        end = time.monotonic() + LIMIT_SECONDS
        path = self.workdir / "metrics.jsonl"
        while not path.exists() or max((line["step"] for line in read_metrics(self.workdir)), default=0) < step:
            assert time.monotonic() < end, f"no step {step}, see {self.log}"
            time.sleep(0.1)
        return int(max(line["step"] for line in read_metrics(self.workdir)))


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, help="folder for all output, seen by all nodes; new or empty")
    folder = Path(parser.parse_args().folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    shards = make_shards(folder)
    overrides = {
        "config": RECIPE,
        "config.data.train": shards["train"],
        "config.data.validation": shards["validation"],
        "config.train.eval_every": EVAL_EVERY,
        "config.train.steps": STEPS,
        "config.train.save_every": SAVE_EVERY,
    }
    reference = SlurmJob(folder / "undisturbed", overrides)
    assert reference.wait("undisturbed", "COMPLETED", "FAILED") == "COMPLETED", f"see {reference.log}"
    problems = []
    for name, command, comes_back in INTERRUPTIONS:
        job = SlurmJob(folder / name, overrides)
        step = job.wait_for_step(STRIKE_AT)
        struck = time.monotonic()
        subprocess.run([*command, job.number], check=True)
        if not comes_back:
            state = job.wait(name, "COMPLETED", "FAILED", "CANCELLED")
            print(f"{name}: {state} {time.monotonic() - struck:.0f} s after the signal", flush=True)
            job = SlurmJob(folder / name, overrides)
        final = job.wait(name, "COMPLETED", "FAILED", "CANCELLED")
        resumed = re.findall(r"weights: checkpoint of step (\d+)", job.log.read_text())
        differences = compare(reference.workdir, job.workdir)
        print(
            f"{name} at step {step}: resumed from {resumed}, {final}, differences: {differences or 'none'}", flush=True
        )
        if final != "COMPLETED" or not resumed or int(resumed[-1]) < step - SAVE_EVERY or differences:
            problems.append(name)
    print(f"Problems: {problems or 'none'}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
