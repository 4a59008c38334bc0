"""environment.json: the versions and devices of a run, which explain its numbers later."""

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import tensorflow as tf

import solo_dist
from solo_dist.storage import file_io

_PACKAGES = (
    "tensorflow",
    "keras",
    "tensorflow-io",
    "numpy",
    "pycocotools",
    "tensorboard",
    "google-cloud-storage",
    "boto3",
)


def write_environment(path: str, strategy: tf.distribute.Strategy) -> None:
    """Writes the file `path`: command, versions, source revision, devices, replicas."""
    devices = tf.config.list_logical_devices()
    environment = {
        "command": sys.argv,
        "solo_dist": solo_dist.__version__,
        "revision": _source_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": [f"{device.device_type}: {device.name}" for device in devices],
        "gpus": [
            tf.config.experimental.get_device_details(device).get("device_name", device.name)
            for device in tf.config.list_physical_devices("GPU")
        ],
        "strategy": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
    }
    file_io.write(path, json.dumps(environment, indent=2).encode())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _source_revision() -> str:
    """The git revision of a source checkout, with + if there are changes; empty for an installed package."""
    root = Path(__file__).resolve().parents[2]
    try:
        call = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
