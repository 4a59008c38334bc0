"""Access to the folders and stores that a run would use."""

import importlib.util
import os
import time
import uuid

from solo_dist import stack
from solo_dist.diagnosis.finding import Finding
from solo_dist.errors import UserError
from solo_dist.storage import file_io, urls

_SLOW_SECONDS = 0.5


def packages() -> Finding:
    """What can be read and written beside local folders."""
    kinds = ["gs://"]
    if importlib.util.find_spec("boto3"):
        kinds.append("s3://" if stack.has_tensorflow_io() else "s3:// (shards by data.cache_dir)")
    if stack.has_tensorflow_io():
        kinds += ["az://", "hdfs://"]
    missing = "" if importlib.util.find_spec("boto3") else "for s3://: pip install boto3"
    return Finding("stores", ", ".join(kinds), remedy=missing)


def reading(folder: str) -> Finding:
    """Whether a folder of data, a path or URL, can be listed, and how long that takes."""
    try:
        urls.prepare([folder])
        start = time.perf_counter()
        names = file_io.names(folder)
        seconds = time.perf_counter() - start
    except UserError as error:
        return Finding("data", str(error), "PROBLEM", "correct that, then run this command again")
    if not names:
        return Finding("data", f"{folder} is empty or does not exist", "PROBLEM", "make it with solo-dist shard")
    text = f"{folder}: {len(names)} names, listed in {seconds:.2f} s"
    if seconds > _SLOW_SECONDS:
        return Finding("data", text, "note", "set data.cache_dir to a local folder, so that each shard is read once")
    return Finding("data", text)


def writing(workdir: str) -> Finding:
    """Whether files can be written to, and removed from, a run directory in a store."""
    path = f"{workdir.rstrip('/')}/doctor_{os.getpid()}_{uuid.uuid4().hex}"
    try:
        urls.prepare([workdir])
        start = time.perf_counter()
        file_io.write(path, b"written by solo-dist doctor")
        file_io.remove(path)
    except UserError as error:
        return Finding("workdir", str(error), "PROBLEM", "correct that, or choose another --workdir")
    return Finding("workdir", f"{workdir}: a file was written and removed in {time.perf_counter() - start:.2f} s")
