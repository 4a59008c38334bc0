"""Python, TensorFlow and what they can do on the devices that TensorFlow sees."""

import platform
import time
from importlib import metadata
from pathlib import Path

import tensorflow as tf

from solo_dist import stack
from solo_dist.diagnosis.finding import Finding
from solo_dist.distributed.xla import start_xla_quietly

_TESTED = ("2.17.1", "2.21.0")
_BLACKWELL = (12, 0)
"""Compute capability of RTX 50 cards, for which the published packages of TensorFlow have no code."""
_TENSOR_CORES = (7, 0)
_BFLOAT16 = (8, 0)
_CONTAINER = "use NVIDIA's container of TensorFlow (see Graphics cards in the README)"


def python() -> Finding:
    """The interpreter."""
    return Finding("Python", f"{platform.python_version()} on {platform.machine()}")


def tensorflow() -> Finding:
    """Versions of TensorFlow and its relatives."""
    versions = {name: _version(name) for name in ("keras", "numpy", "tensorflow-io")}
    text = f"{tf.__version__} with " + ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if tf.__version__ not in _TESTED:
        remedy = f"tested are {' and '.join(_TESTED)}: pip install -c {stack.constraints()} -e ."
        return Finding("TensorFlow", text, "note", remedy)
    return Finding("TensorFlow", text)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def devices() -> list[Finding]:
    """Each GPU, tried with a product of matrices; or why there is none."""
    gpus = tf.config.list_physical_devices("GPU")
    return [_gpu(index, gpu) for index, gpu in enumerate(gpus)] or [_no_gpu()]


def _no_gpu() -> Finding:
    driver = Path("/proc/driver/nvidia/version")
    if not driver.exists():
        text = "none, and no driver of NVIDIA: training runs on the CPU"
        return Finding("GPU", text, "note", "the demo is meant for that; the recipes for COCO need a GPU")
    installed = driver.read_text().splitlines()[0].split("Module")[-1].strip()
    cuda = tf.sysconfig.get_build_info().get("cuda_version", "")
    if not cuda:
        return Finding("GPU", "this TensorFlow is built without CUDA", "PROBLEM", "pip install tensorflow")
    return Finding(
        "GPU",
        f"driver {installed} is there, but TensorFlow, built for CUDA {cuda}, sees no GPU",
        "PROBLEM",
        f"install CUDA's libraries: pip install -c {stack.constraints()} -e '.[gpu]'; in a container, start it with "
        "--gpus all; TF_CPP_MIN_LOG_LEVEL=0 solo-dist doctor shows what does not load",
    )


def _gpu(index: int, gpu: tf.config.PhysicalDevice) -> Finding:
    details = tf.config.experimental.get_device_details(gpu)
    capability = details.get("compute_capability", (0, 0))
    text = f"{details.get('device_name', gpu.name)}, compute capability {capability[0]}.{capability[1]}"
    try:
        with tf.device(f"GPU:{index}"):
            tf.linalg.matmul(tf.ones([256, 256]), tf.ones([256, 256])).numpy()
    except tf.errors.OpError as error:
        remedy = _CONTAINER if capability >= _BLACKWELL else "see whether nvidia-smi shows the card, then the driver"
        return Finding(f"GPU {index}", f"{text}; it does not compute ({error.message[:100]})", "PROBLEM", remedy)
    if capability >= _BLACKWELL:
        return Finding(f"GPU {index}", f"{text}; TensorFlow has no code made for it", "note", _CONTAINER)
    return Finding(f"GPU {index}", text)


def precision() -> Finding:
    """Which values of runtime.precision help."""
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    if not capabilities:
        return Finding("precision", "float32; 16 bits save memory on a CPU, and time on few")
    if min(capabilities) >= _BFLOAT16:
        return Finding("precision", "runtime.precision=bfloat16 is fast here; float16 too, with a loss scale")
    if min(capabilities) >= _TENSOR_CORES:
        return Finding("precision", "runtime.precision=float16 is fast here; bfloat16 is not")
    return Finding("precision", "float32; these GPUs have no fast 16 bits")


def xla() -> Finding:
    """Whether XLA compiles a function on the first device."""
    start = time.perf_counter()
    try:
        start_xla_quietly()
    except tf.errors.OpError as error:
        remedy = "train with --config.runtime.compile=none, or install CUDA's compiler with the extra gpu"
        return Finding("XLA", f"does not compile ({error.message[:200]})", "PROBLEM", remedy)
    return Finding("XLA", f"compiles; its start took {time.perf_counter() - start:.1f} s")
