"""Trains the demo's recipe in two environments and checks that they compute the same and read each other's checkpoints.

    python tests/drills/two_stacks.py --folder=DIR .venv-2.17/bin/python .venv-newest/bin/python

Needs the demo's data (`make demo` makes them in data/, or --data=FOLDER names them). Each interpreter trains 20 steps
from the same seed; then each continues the other's run from step 10 to 20. Compared are the losses of all steps,
relative to their size, and the arrays of a checkpoint after the other interpreter has loaded and saved it, bit for bit.

Prints a table. Exit code 1 if losses differ by more than 1e-5, or any bit of a checkpoint is lost.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS, MIDDLE = 20, 10
TOLERANCE = 1e-5
RESAVE = """
import sys
from solo_dist.run.checkpoint import load_checkpoint, save_checkpoint
arrays, metadata = load_checkpoint(sys.argv[1])
save_checkpoint(sys.argv[2], arrays, metadata)
"""


def run(python: str, *arguments: str) -> None:
    """Runs an interpreter with the package of this checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([python, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{python} {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def train(python: str, workdir: Path, data: str) -> None:
    """Trains to the last step, from the checkpoint in the folder if there is one."""
    run(
        *(python, "-m", "solo_dist.train", "--config=shapes_tiny", f"--workdir={workdir}", "--strategy=one_device"),
        *(f"--config.data.train={data}/train/shards", f"--config.data.validation={data}/validation/shards"),
        *("--config.data.shapes_folder=", "--config.runtime.deterministic=true", "--config.seed=0"),
        *(f"--config.train.steps={STEPS}", f"--config.train.save_every={MIDDLE}", "--config.train.log_every=1"),
        "--config.train.eval_every=0",
    )


def losses(workdir: Path) -> dict[int, dict[str, float]]:
    """Losses by step and name."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {
        line["step"]: {name: value for name, value in line.items() if name.startswith("loss/")}
        for line in lines
        if line["split"] == "train"
    }


def difference(one: Path, other: Path, after: int = 0) -> float:
    """The largest relative difference of any loss."""
    mine, theirs = losses(one), losses(other)
    assert mine.keys() >= set(range(after + 1, STEPS + 1)) and mine.keys() == theirs.keys(), (mine, theirs)
    return max(
        abs(mine[step][name] - theirs[step][name]) / abs(mine[step][name])
        for step in range(after + 1, STEPS + 1)
        for name in mine[step]
    )


def continued(python: str, source: Path, workdir: Path, data: str) -> None:
    """Continues a copy of another run from its middle."""
    shutil.copytree(source, workdir)
    shutil.rmtree(workdir / f"checkpoints/step_{STEPS:08d}")
    train(python, workdir, data)


def same_bits(python: str, source: Path, target: Path) -> bool:
    """Whether a checkpoint that an interpreter loads and saves keeps every bit of its arrays."""
    checkpoint = source / f"checkpoints/step_{STEPS:08d}"
    run(python, "-c", RESAVE, str(checkpoint), str(target))
    return (checkpoint / "arrays.safetensors").read_bytes() == (target / "arrays.safetensors").read_bytes()


def main() -> None:
    """Runs the drill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs=2)
    parser.add_argument("--folder", required=True, type=Path, help="for the runs; must not exist")
    parser.add_argument("--data", default=str(ROOT / "data/shapes_tiny"))
    options = parser.parse_args()
    first, second = options.pythons
    folder, data = options.folder.resolve(), os.path.abspath(options.data)
    folder.mkdir(parents=True)
    train(first, folder / "first", data)
    train(second, folder / "second", data)
    continued(second, folder / "first", folder / "first_by_second", data)
    continued(first, folder / "second", folder / "second_by_first", data)
    rows = {
        "20 steps each": difference(folder / "first", folder / "second"),
        "steps 11 to 20 of the first's run by the second": difference(
            folder / "first", folder / "first_by_second", MIDDLE
        ),
        "steps 11 to 20 of the second's run by the first": difference(
            folder / "second", folder / "second_by_first", MIDDLE
        ),
    }
    print("largest relative difference of a loss:")
    for name, value in rows.items():
        print(f"  {name:50}{value:.2e}")
    kept = [
        same_bits(second, folder / "first", folder / "resaved_by_second"),
        same_bits(first, folder / "second", folder / "resaved_by_first"),
    ]
    print(f"checkpoints bit for bit: {kept[0]} (first to second), {kept[1]} (second to first)")
    sys.exit(not (max(rows.values()) <= TOLERANCE and all(kept)))


if __name__ == "__main__":
    main()
