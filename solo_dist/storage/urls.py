"""Which paths are URLs, which packages they need, and the local scratch folder of one."""

import hashlib
import importlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterable

import tensorflow as tf

from solo_dist import stack
from solo_dist.errors import StoreError
from solo_dist.storage import s3

_TENSORFLOW_IO_SCHEMES = ("az", "hdfs", "viewfs", "har")
_SWITCH = "SOLO_DIST_TENSORFLOW_IO"
"""With the value 0, tensorflow-io is not used for s3://."""


def is_remote(path: str) -> bool:
    """Whether a path is a URL, gs://bucket/name for example."""
    return "://" in path


def prepare(paths: Iterable[str]) -> None:
    """Makes sure that the packages are there that paths need: boto3 for s3://, tensorflow-io for az:// and hdfs://.

    Raises:
      StoreError: one is missing, or does not fit TensorFlow.
    """
    schemes = {path.partition("://")[0] for path in paths if is_remote(path)}
    if "s3" in schemes and importlib.util.find_spec("boto3") is None:
        raise StoreError("s3:// paths need boto3, which is not installed: pip install boto3")
    for scheme in sorted(schemes.intersection(_TENSORFLOW_IO_SCHEMES) - set(tf.io.gfile.get_registered_schemes())):
        _import_tensorflow_io(scheme)


def is_read_in_graph(path: str) -> bool:
    """Whether operations of TensorFlow can read files of this kind; for s3://, tensorflow-io is imported if it fits."""
    scheme = path.partition("://")[0] if is_remote(path) else ""
    if scheme == "s3" and os.environ.get(_SWITCH) == "0":
        return False
    if scheme == "s3" and scheme not in tf.io.gfile.get_registered_schemes():
        if (address := s3.endpoint()) and not os.environ.get("S3_ENDPOINT"):
            os.environ["S3_ENDPOINT"] = address
        try:
            _import_tensorflow_io(scheme)
        except StoreError:
            return False
    return scheme in tf.io.gfile.get_registered_schemes()


def _import_tensorflow_io(scheme: str) -> None:
    install = "pip install tensorflow-io==0.37.1 'tensorflow==2.17.*'"
    if not stack.has_tensorflow_io():
        raise StoreError(f"{scheme}:// paths need tensorflow-io, which fits TensorFlow 2.17 only: {install}")
    # In a download in parts, a part that is requested again after an error begins with the text of the error response.
    os.environ["S3_DISABLE_MULTI_PART_DOWNLOAD"] = "1"
    try:
        importlib.import_module("tensorflow_io")
    except Exception as error:  # which one depends on how the compiled library fails
        raise StoreError(f"tensorflow-io does not load ({error}): {install}") from error


def scratch_folder(url: str) -> str:
    """This machine's local folder for a folder in a store: always the same one for a URL, below TMPDIR."""
    url = url.rstrip("/")
    name, digest = re.sub(r"[^\w.-]+", "_", url)[-100:], hashlib.sha256(url.encode()).hexdigest()
    return f"{tempfile.gettempdir()}/solo_dist_{os.getuid()}/{name}_{digest[:12]}"
