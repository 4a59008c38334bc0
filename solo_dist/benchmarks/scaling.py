"""The images/s of two workers of one core each over those of one worker, and the ratio that the cost model predicts.

The cases are real trainings of the demo under the launcher, with the same batch a worker; they take turns. The cost
model is given the images/s of the one worker and the bandwidth of an all-reduce alone between the same two cores.

    python -m solo_dist.benchmarks.scaling allreduce 8000000     # one worker of the measurement, under the launcher
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from solo_dist import recipes
from solo_dist.benchmarks.cost_model import Link, allreduce_bytes, allreduce_seconds, efficiency
from solo_dist.benchmarks.timing import Options
from solo_dist.data.sharding.demo_data import ensure_shapes

RECIPE = "shapes_tiny"
IMAGES, STEPS, LOG_EVERY, WARMUP = 8, 40, 5, 10


def run(options: Options) -> dict[str, float]:
    """Images/s of two workers over those of one (2 is perfect), measured and predicted by the cost model."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        ensure_shapes(f"{folder}/shapes", recipes.get(RECIPE), 64, 8)
        for turn in range(options.rounds):
            for workers, seen in rates.items():
                seen.append(_images_per_second(Path(folder) / f"run_{turn}_{workers}", workers, folder))
                print(f"  {workers} worker(s): {seen[-1]:.2f} images/s", flush=True)
        size = allreduce_bytes(_parameters())
        link = Link(_ring_bytes_per_second(int(size), folder), 0.0)
    one, two = (statistics.median(rates[workers]) for workers in (1, 2))
    expected = 2 * efficiency(IMAGES / one, allreduce_seconds(size, 2, link))
    print(f"  {size / 1e6:.1f} MB all-reduced a step at {link.bytes_per_second / 1e6:.0f} MB/s")
    return {"two_vs_one": two / one, "cost_model": expected}


def _launch(workers: int, log_dir: Path, *arguments: str) -> str:
    command = [
        sys.executable,
        "-m",
        "solo_dist.commands.launch",
        f"--workers={workers}",
        "--cores_per_worker=1",
        "--max_restarts=0",
    ]
    environ = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([*command, f"--log_dir={log_dir}", *arguments], env=environ, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
    return done.stdout


def _images_per_second(workdir: Path, workers: int, folder: str) -> float:
    train = {"steps": STEPS, "log_every": LOG_EVERY, "save_every": STEPS, "eval_every": 0, "panel_every": 0}
    overrides = [f"--config.train.{name}={value}" for name, value in train.items()]
    overrides += [f"--config.train.global_batch={IMAGES * workers}", f"--config.train.micro_batch={IMAGES}"]
    overrides += [f"--config.data.shapes_folder={folder}/shapes", "--config.data.validation="]
    overrides += [f"--config.data.train={folder}/shapes/train/shards", f"--workdir={workdir}"]
    _launch(workers, workdir / "logs", "--", f"--config={RECIPE}", *overrides)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(line["images_per_second"] for line in lines if line["step"] > WARMUP)


def _parameters() -> int:
    command = [sys.executable, "-m", "solo_dist.commands.inspect_model", f"--config={RECIPE}"]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    total = next(line for line in table.splitlines() if line.startswith("total"))
    return int(total.split()[2].replace(",", ""))


def _ring_bytes_per_second(size: int, folder: str) -> float:
    """Bandwidth of the link in a ring of two workers, from the time of an all-reduce alone."""
    module = ["--module=solo_dist.benchmarks.scaling", "--", "allreduce", str(size)]
    output = _launch(2, Path(folder) / "ring", *module)
    seconds = float(output.split("seconds:")[1].split()[0])
    return size / seconds  # 2 (W - 1) / W is 1 for two workers


def _main() -> None:
    import tensorflow as tf

    from solo_dist.distributed.cluster.resolve import resolve_cluster
    from solo_dist.distributed.exit_codes import exit_now
    from solo_dist.distributed.strategy import build_strategy

    strategy = build_strategy("multi_worker", resolve_cluster(os.environ), "ring")
    # As many tensors as a network has; the strategy packs them the same way.
    gradients = [tf.ones([int(sys.argv[2]) // 4 // 50]) for _ in range(50)]

    @tf.function(autograph=False)
    def reduce() -> tf.Tensor:
        def replica() -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)[0][0]

        return strategy.experimental_local_results(strategy.run(replica))[0]

    turns = []
    for _ in range(20):
        started = time.perf_counter()
        reduce().numpy()
        turns.append(time.perf_counter() - started)
    print(f"seconds: {statistics.median(turns[5:])}", flush=True)
    exit_now(0)


if __name__ == "__main__":
    _main()
