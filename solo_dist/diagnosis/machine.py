"""Memory, cores, disk and clock, from Linux."""

import ctypes
import os
import shutil
import tempfile
import time
from pathlib import Path

from solo_dist.diagnosis.finding import Finding

_GB = 1e9
_LITTLE_MEMORY = 6 * _GB
"""One image of the official R50 model at 512x512 takes 2.5 GB; TensorFlow, input and evaluation come on top."""
_LITTLE_SPACE = 10 * _GB
_SLOW_DISK = 100e6
"""Bytes/s; a training at 512x512 reads some 10 MB/s for each GPU, checkpoints and caches write in bursts."""
_PROBE_BYTES = 1 << 26
_CORES_OF_A_GPU = 4
_TIME_ERROR = 5
"""What adjtimex(2) returns for a clock that nothing keeps right."""


def cores(gpus: int) -> Finding:
    """The CPU cores that this process may use, beside `gpus` GPUs."""
    allowed, quota = len(os.sched_getaffinity(0)), _cpu_quota()
    text = f"{allowed} for this process" + (f", limited to the time of {quota:g}" if quota and quota < allowed else "")
    usable = min(allowed, quota or allowed)
    if gpus and usable < gpus * _CORES_OF_A_GPU:
        return Finding(
            "cores",
            f"{text}, beside {gpus} GPU{'s' * (gpus > 1)}",
            "note",
            "preparing images may be slower than the GPU: shard without --keep_original, or use solo-dist data-service",
        )
    return Finding("cores", text)


def _cpu_quota() -> float | None:
    """Cores' worth of time that the control group of a container allows; None: no limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def memory() -> Finding:
    """Main memory that is there and free, or what the control group of a container allows."""
    kilobytes = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, number, *_ = line.split()
        kilobytes[name.rstrip(":")] = int(number)
    total, free = kilobytes["MemTotal"] * 1024.0, kilobytes["MemAvailable"] * 1024.0
    limit = _memory_limit()
    text = f"{total / _GB:.1f} GB, {free / _GB:.1f} GB of it free"
    if limit and limit < total:
        text += f"; this container may use {limit / _GB:.1f} GB"
    if min(free, limit or free) < _LITTLE_MEMORY:
        remedy = "close other programs; train with train.recompute=all, and see solo-dist benchmark --what=memory"
        return Finding("memory", text, "note", remedy)
    return Finding("memory", text)


def _memory_limit() -> int | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return None if text == "max" else int(text)
    except (OSError, ValueError):
        return None


def disk(folder: str) -> Finding:
    """Free space of a folder's disk, and the speed of writing to it. If there is no such folder, it is one above it."""
    subject, folder = "disk", os.path.abspath(folder)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    try:
        speed = _write_speed(folder)
    except OSError as error:
        return Finding(subject, f"{folder} cannot be written: {error.strerror}", "PROBLEM", "choose another --workdir")
    text = f"{folder}: {free / _GB:.0f} GB free, writes {speed / 1e6:.0f} MB/s"
    if free < _LITTLE_SPACE:
        return Finding(subject, text, "note", "delete old runs, or choose another --workdir")
    if speed < _SLOW_DISK:
        return Finding(subject, text, "note", "set data.cache_dir to a folder on a faster local disk")
    return Finding(subject, text)


def _write_speed(folder: str) -> float:
    """Bytes/s of one file, until it is on the disk."""
    data = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(_PROBE_BYTES // len(data)):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return _PROBE_BYTES / (time.perf_counter() - start)


def clock() -> Finding:
    """Whether something keeps the clock right: stores refuse requests that are signed at a wrong time."""
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    # struct timex has 208 bytes on 64-bit Linux; its first field, 0, means that nothing is to be changed.
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(256))
    if state == _TIME_ERROR:
        remedy = (
            "compare it with a watch: s3:// refuses requests 15 minutes off. timedatectl set-ntp true keeps it right"
        )
        return Finding("clock", f"{now}; nothing on this machine says that it is kept right", "note", remedy)
    return Finding("clock", now + ("" if state < 0 else "; synchronised"))
