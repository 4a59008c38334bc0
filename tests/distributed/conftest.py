"""Data and runs shared by the tests with real processes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Path(__file__).with_name("tiny.py")


class Run:
    """What a finished run has left in its workdir."""

    def __init__(self, workdir: Path, output: str):
        self.workdir, self.output = workdir, output

    def checkpoint(self, step: int) -> Path:
        return self.workdir / f"checkpoints/step_{step:08d}"

    def arrays(self, step: int) -> dict[str, np.ndarray]:
        return load_file(self.checkpoint(step) / "arrays.safetensors")

    def metrics(self, split: str = "train") -> dict[int, dict[str, float]]:
        lines = [json.loads(line) for line in (self.workdir / "metrics.jsonl").read_text().splitlines()]
        assert len({(line["step"], line["split"]) for line in lines}) == len(lines), "a step occurs twice"
        return {line["step"]: line for line in lines if line["split"] == split}


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> dict[str, str]:
    """Folders of shards of 40 and 8 images, made for the tiny recipe."""
    import importlib.util

    from solo_dist.data.sharding.demo_data import ensure_shapes

    spec = importlib.util.spec_from_file_location("tiny", RECIPE)
    recipe: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    train, validation = ensure_shapes(str(tmp_path_factory.mktemp("shapes")), recipe.get_config(), 40, 8)
    return {"train": train, "validation": validation}


@pytest.fixture(scope="session")
def flags(shards) -> Callable[..., list[str]]:
    """flags(workdir, steps=5, ...) -> flags of the trainer, with overrides of train.* fields by name."""

    def make(workdir: Path, **train: object) -> list[str]:
        overrides = [f"--config.train.{name}={value}" for name, value in train.items()]
        return [f"--config={RECIPE}", f"--workdir={workdir}", f"--config.data.train={shards['train']}", *overrides]

    return make


@pytest.fixture(scope="session")
def environ() -> dict[str, str]:
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}


@pytest.fixture(scope="session")
def train(environ) -> Callable[..., Run]:
    """train(workdir, flags, workers=1) -> Run: runs to the end, with the launcher if there are several workers."""

    def run(workdir: Path, flags: list[str], workers: int = 1) -> Run:
        if workers > 1:
            command = ["launch.local", f"--workers={workers}", "--max_restarts=0", "--", *flags]
        else:
            command = ["solo_dist.train", *flags]
        process = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert process.returncode == 0, process.stdout[-5000:]
        return Run(workdir, process.stdout)

    return run
