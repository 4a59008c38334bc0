"""Fixtures shared by all tests: logical devices, the folder of photos, golden numbers."""

import logging
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# Before any test module imports TensorFlow: its log on every start hides what a failed test has to say.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A shell that starts the tests in the background makes them ignore Ctrl-C, nohup makes them ignore SIGHUP, and so would
# the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

pytest_plugins = ["tests.stores.fixtures", "tests.torch_files", "tests.weights.http_server"]

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT.parent / "shared" / "data"


class _Deprecations(logging.Handler):
    """Fails a test whose code, if it is ours, calls what TensorFlow says is deprecated."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "deprecated" in text and re.search(r"/(solo_dist|configs|tools|launch)/[\w/]+\.py", text.split(": ")[0]):
            raise DeprecationWarning(text)


logging.getLogger("tensorflow").addHandler(_Deprecations())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file comes first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: "training/test_trainer.py" not in item.nodeid)


@pytest.fixture(scope="session", autouse=True)
def two_cpus() -> list[str]:
    """The CPU as two logical devices, for Mirrored without GPUs; set before any test can start TensorFlow's runtime."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return ["CPU:0", "CPU:1"]


@pytest.fixture(scope="session")
def mirrored(two_cpus):
    """Mirrored over both devices, one strategy for the whole process.

    TensorFlow gives the collectives of every such strategy the same keys. If a second strategy uses a key for another
    operation, all collectives of the process fail with `Collective ops is aborted`.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(two_cpus)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with photos and their masks, which may not be copied here; without it the tests that need it skip."""
    folder = Path(os.environ.get("SOLO_DIST_DATA", PHOTOS))
    if not folder.is_dir():
        pytest.skip(f"no photos at {folder}; set SOLO_DIST_DATA to a folder with coco128/ and fruits_nuts18/")
    return folder


@pytest.fixture(scope="session")
def shared_folder(shared_data) -> Callable[[str], Path]:
    """The path of a file or folder in it, for example shared_folder("coco128"); the test skips if there is none."""

    def find(name: str) -> Path:
        if not (shared_data / name).exists():
            pytest.skip(f"there is no {shared_data / name}")
        return shared_data / name

    return find


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Loads an array file of tests/golden by name, for example golden("nms_50"); fails if there is none."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(ROOT / "tests" / "golden" / f"{name}.npz", allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    return load
