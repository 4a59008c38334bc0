"""Shards a data set in tasks that are killed at random moments, and compares the bytes with those of one command.

    python tests/drills/shard_drill.py --folder=drill --kills=20              # processes of this machine, with SIGKILL
    python tests/drills/shard_drill.py --folder=/shared/drill --slurm        # launch/slurm/shard.sbatch, with requeues

The data set is drawn from --seed: small JPEGs with seven annotations each. After each kill, shards that were committed
before it must stay as they are to the end: a kill costs at most the one shard that its task was making. Exit code 1 if
anything differs.
"""

import argparse
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
import PIL.Image

ROOT = Path(__file__).resolve().parents[2]
SIDE, FILES, ANNOTATIONS, LIMIT_SECONDS = 96, 50, 7, 3600
ENVIRON = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}


def draw(folder: Path, images: int, seed: int) -> None:
    """Writes instances.json and images/; the files repeat, as only their number matters."""
    if (folder / "instances.json").exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(FILES):
        pixels = PIL.Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        pixels.resize((SIDE, SIDE)).save(folder / "images" / f"{number}.jpg")
    entries, annotations = [], []
    for image in range(1, images + 1):
        entries.append({"id": image, "file_name": f"{image % FILES}.jpg", "height": SIDE, "width": SIDE})
        for x, y, w, h in rng.integers(4, SIDE // 2, (ANNOTATIONS, 4)).tolist():
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotation = {"id": len(annotations) + 1, "image_id": image, "category_id": 1, "iscrowd": 0}
            annotations.append(annotation | {"segmentation": [outline], "bbox": [x, y, w, h], "area": w * h})
    values = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
    (folder / "instances.json").write_text(json.dumps(values))


def flags(folder: Path, output: Path, shards: int) -> list[str]:
    paths = [f"--annotations={folder}/instances.json", f"--images={folder}/images", f"--output={output}"]
    return [*paths, "--config=shapes_tiny", "--canvas=96x96", f"--num_shards={shards}"]


def shard(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "solo_dist", "shard", "--processes=1", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRON, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def run(*arguments: str) -> None:
    process = shard(*arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def committed(output: Path) -> dict[str, int]:
    """Time of change of the shards that have a note."""
    notes = (output / ".progress").glob("*.note.json")
    numbers = [note.name.partition(".")[0] for note in notes]
    return {path.name: path.stat().st_mtime_ns for n in numbers for path in output.glob(f"shard-{n}-of-*.tfrecord")}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def with_kills(output: Path, arguments: list[str], kills: int, seed: int) -> int:
    """All steps, with SIGKILLs of tasks; returns how many committed shards were made again."""
    rng = random.Random(seed)
    run(*arguments, "--plan")
    kept: dict[str, int] = {}
    for kill in range(kills):
        task = shard(*arguments, f"--task_index={rng.randrange(4)}", "--task_count=4")
        before, more = len(committed(output)), rng.randrange(4)
        while task.poll() is None and len(committed(output)) < before + more:
            time.sleep(0.01)
        time.sleep(rng.random())
        task.send_signal(signal.SIGKILL)
        task.communicate()
        now = committed(output)
        print(f"kill {kill + 1}: exit code {task.returncode}, {len(now)} shards are committed", flush=True)
        kept |= {name: changed for name, changed in now.items() if name not in kept}
    for index in range(4):
        run(*arguments, f"--task_index={index}", "--task_count=4")
    changed = [name for name, then in kept.items() if committed(output).get(name) != then]
    run(*arguments, "--finish", "--task_count=4")
    return len(changed)


def with_slurm(output: Path, arguments: list[str], requeues: int, seed: int) -> int:
    """The job with its array and its finish; running tasks are requeued. Returns 0."""
    rng = random.Random(seed)
    log = output.with_suffix(".log")
    command = ["sbatch", "--parsable", f"--output={log}", "launch/slurm/shard.sbatch", *arguments]
    subprocess.run(command, cwd=ROOT, env=ENVIRON, check=True, stdout=subprocess.DEVNULL)
    array = wait_for(
        lambda: re.search(r"Submitted: tasks (\d+), finish (\d+)", log.read_text() if log.exists() else "")
    )
    left, struck = requeues, set()
    while not (output / "manifest.json").exists():
        listed = subprocess.run(
            ["squeue", "--noheader", "--array", f"--job={array[1]}", "--states=RUNNING", "--format=%i %N"],
            capture_output=True,
            text=True,
        ).stdout.split("\n")
        running = [line.split() for line in listed if line]
        for job, node in running:
            if job not in struck:
                print(f"{job} runs on {node}", flush=True)
        struck |= {job for job, _ in running}
        if left and running and len(committed(output)) >= 2 * (requeues - left + 1):
            job = rng.choice(running)[0]
            print(f"requeue {job}", flush=True)
            subprocess.run(["scontrol", "requeue", job], check=True)
            left -= 1
        subprocess.run(["scontrol", "update", f"JobId={array[1]}", "StartTime=now"], capture_output=True)
        time.sleep(2)
    wait_for(lambda: not (output / ".progress").exists())
    return 0


def wait_for(find):
    end = time.monotonic() + LIMIT_SECONDS
    while not (found := find()):
        assert time.monotonic() < end
        time.sleep(0.5)
    return found


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, help="folder for data and shards, seen by all nodes")
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--kills", type=int, default=20, help="or requeues")
    parser.add_argument("--tasks", type=int, default=8, help="of Slurm's array")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slurm", action="store_true")
    options = parser.parse_args()
    folder = Path(options.folder).resolve()
    draw(folder, options.images, options.seed)
    run(*flags(folder, folder / "one", options.shards))
    output = folder / ("slurm" if options.slurm else "killed")
    ENVIRON["TASKS"] = str(options.tasks)
    disturbed = with_slurm if options.slurm else with_kills
    again = disturbed(output, flags(folder, output, options.shards), options.kills, options.seed)
    same = content(output) == content(folder / "one")
    print(f"Committed shards that were made again: {again}. The bytes are those of one command: {same}.")
    sys.exit(0 if same and not again else 1)


if __name__ == "__main__":
    main()
