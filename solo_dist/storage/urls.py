"""Which paths are URLs, which import they need, and the local scratch folder of one."""

import hashlib
import importlib
import importlib.metadata
import os
import re
import tempfile
from collections.abc import Iterable

import tensorflow as tf

from solo_dist.errors import StoreError

_TENSORFLOW_IO_SCHEMES = ("s3", "az", "hdfs", "viewfs", "har")
_TENSORFLOW_IO = "0.37"
_TENSORFLOW_OF_IO = ("2.16", "2.17")


def is_remote(path: str) -> bool:
    """Whether a path is a URL, gs://bucket/name for example."""
    return "://" in path


def prepare(paths: Iterable[str]) -> None:
    """Imports tensorflow-io if a path needs it: s3://, az://, hdfs://. Nothing is imported for others.

    Raises:
      StoreError: tensorflow-io is missing, or does not fit TensorFlow.
    """
    schemes = {path.partition("://")[0] for path in paths if is_remote(path)}
    for scheme in sorted(schemes.intersection(_TENSORFLOW_IO_SCHEMES) - set(tf.io.gfile.get_registered_schemes())):
        _import_tensorflow_io(scheme)


def _import_tensorflow_io(scheme: str) -> None:
    install = f"pip install 'tensorflow-io=={_TENSORFLOW_IO}.*' 'tensorflow=={_TENSORFLOW_OF_IO[-1]}.*'"
    try:
        version = importlib.metadata.version("tensorflow-io")
    except importlib.metadata.PackageNotFoundError:
        raise StoreError(f"{scheme}:// paths need tensorflow-io, which is not installed: {install}") from None
    if not (version.startswith(_TENSORFLOW_IO) and tf.__version__.startswith(_TENSORFLOW_OF_IO)):
        raise StoreError(
            f"{scheme}:// paths need tensorflow-io {_TENSORFLOW_IO} with TensorFlow {' or '.join(_TENSORFLOW_OF_IO)}; "
            f"installed are tensorflow-io {version} and TensorFlow {tf.__version__}: {install}"
        )
    # In a download in parts, a part that is requested again after an error begins with the text of the error response.
    os.environ["S3_DISABLE_MULTI_PART_DOWNLOAD"] = "1"
    try:
        importlib.import_module("tensorflow_io")
    except Exception as error:  # which one depends on how the compiled library fails
        raise StoreError(f"tensorflow-io {version} does not load ({error}): {install}") from error


def scratch_folder(url: str) -> str:
    """This machine's local folder for a folder in a store: always the same one for a URL, below TMPDIR."""
    url = url.rstrip("/")
    name, digest = re.sub(r"[^\w.-]+", "_", url)[-100:], hashlib.sha256(url.encode()).hexdigest()
    return f"{tempfile.gettempdir()}/solo_dist_{os.getuid()}/{name}_{digest[:12]}"
