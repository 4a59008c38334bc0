"""Files on a disk or in an object store: the one place that knows what tf.io.gfile does not say about stores.

    storage.prepare([workdir, images])                     # before the first use of s3:// and the like
    storage.write(f"{workdir}/config.json", data)          # whole, or not at all
    for name in storage.names(f"{workdir}/checkpoints"): ...

On object stores use these functions in place of tf.io.gfile's exists, isdir, listdir and makedirs: the first three take
a store that does not answer for one that has nothing there (s3:// always, gs:// for folders), and the last one makes
objects that stand for folders, which nobody needs.

What may pass (a store that does not answer, has too much to do, or cannot be reached) is tried again with growing
pauses, for SOLO_DIST_STORE_SECONDS (300) in all. What is left becomes a StoreError that says what to do.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import logging
import os
import posixpath
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import tensorflow as tf

# The public listdir asks isdir first, which hides errors.
from tensorflow.python.lib.io import _pywrap_file_io

from solo_dist.errors import StoreError, StoreUnavailable

PATIENCE_VARIABLE = "SOLO_DIST_STORE_SECONDS"
_PATIENCE_SECONDS = 300.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0

_TENSORFLOW_IO_SCHEMES = ("s3", "az", "hdfs", "viewfs", "har")
_TENSORFLOW_IO = "0.37"
_TENSORFLOW_OF_IO = ("2.16", "2.17")

_FIRST_READ = 1 << 19
_LONGEST_REASON = 300

T = TypeVar("T")

log = logging.getLogger(__name__)


def is_remote(path: str) -> bool:
    """Whether a path is a URL, gs://bucket/name for example."""
    return "://" in path


def prepare(paths: Iterable[str]) -> None:
    """Imports tensorflow-io where a path needs it: s3://, az://, hdfs://. Nothing is imported for others.

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
    # With parts, one that is asked for again after an error holds the text of the error, and the data after that.
    os.environ["S3_DISABLE_MULTI_PART_DOWNLOAD"] = "1"
    try:
        importlib.import_module("tensorflow_io")
    except Exception as error:  # a compiled library that does not load raises what it likes
        raise StoreError(f"tensorflow-io {version} does not load ({error}): {install}") from error


# ---------------------------------------------------------------- whole files


def read(path: str) -> bytes:
    """The content of a file.

    Raises:
      tf.errors.NotFoundError: there is no such file.
      StoreError: it cannot be read.
    """
    return with_retries(lambda: _read_s3(path) if path.startswith("s3://") else _read(path), path)


def _read(path: str) -> bytes:
    # Without a length, GFile asks for the size, which gs:// may remember from before another process wrote.
    with tf.io.gfile.GFile(path, "rb") as file:
        data = file.read(_FIRST_READ)
    # GFile reads on in small pieces, each a request; this op does it in one.
    return data if len(data) < _FIRST_READ else tf.io.read_file(path).numpy()


def _read_s3(path: str) -> bytes:
    # tensorflow-io dies of a segmentation fault where it reads at the end of an object, so the size has to be known.
    if _stat_s3(path).length == 0:
        return b""
    return tf.io.read_file(path).numpy()


def _stat_s3(path: str) -> Any:
    """As tf.io.gfile.stat, which says NotFoundError where the store does not answer: reading tells the truth."""
    try:
        return tf.io.gfile.stat(path)
    except tf.errors.NotFoundError:
        with tf.io.gfile.GFile(path, "rb") as file:
            file.read(1)
        return tf.io.gfile.stat(path)


def exists(path: str) -> bool:
    """Whether there is such a file (not: folder). Raises StoreError where the store does not tell."""

    def call() -> bool:
        if not is_remote(path):
            return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)
        if path.startswith("s3://"):
            return not _stat_s3(path).is_directory
        with tf.io.gfile.GFile(path, "rb") as file:
            file.read(1)
        return True

    try:
        return with_retries(call, path)
    except tf.errors.NotFoundError:
        return False


def write(path: str, data: bytes) -> None:
    """Writes a file, and its folder, so that readers see the old content or the new one, never a part.

    Object stores publish an object when it is closed; a file system needs a temporary name and a rename.

    Raises:
      StoreError: it cannot be written.
    """

    def call() -> None:
        if is_remote(path):
            _write(path, data)
            return
        tf.io.gfile.makedirs(posixpath.dirname(path) or ".")
        temporary = f"{path}.{os.getpid()}.tmp"
        _write(temporary, data)
        _to_disk(temporary, path)
        tf.io.gfile.rename(temporary, path, overwrite=True)

    try:
        with_retries(call, path)
    except tf.errors.NotFoundError as error:
        raise _explained(error, path) from error


def _write(path: str, data: bytes) -> None:
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(data)


def _to_disk(temporary: str, path: str) -> None:
    """Before the rename: a machine that is reset could be left with the name and no content."""
    try:
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise _explained(error, path) from error


def remove(path: str) -> None:
    """Removes a file; it may be gone already."""
    with contextlib.suppress(tf.errors.NotFoundError):
        with_retries(lambda: tf.io.gfile.remove(path), path)


def names(folder: str) -> list[str]:
    """Names of the files and folders in a folder, sorted; empty where it does not exist."""
    if not is_remote(folder) and not tf.io.gfile.isdir(folder):
        return []
    try:
        children = with_retries(lambda: _pywrap_file_io.GetChildren(folder), folder)
    except tf.errors.NotFoundError:
        return []
    return sorted({name.rstrip("/") for name in children} - {""})


def matches(pattern: str) -> list[str]:
    """Paths that match a pattern with "*" and "?", sorted. Raises StoreError."""
    with clear_errors(pattern):
        paths = sorted(tf.io.gfile.glob(pattern))
    if not paths and is_remote(pattern):
        names(posixpath.dirname(re.split(r"[*?\[]", pattern)[0]))  # tells of a store that does not answer
    return paths


def remove_folder(folder: str) -> None:
    """Removes a folder with everything in it; it may be gone already."""
    if not is_remote(folder):
        with contextlib.suppress(tf.errors.NotFoundError):
            with_retries(lambda: tf.io.gfile.rmtree(folder), folder)
        return
    for name in names(folder):
        if exists(f"{folder}/{name}"):
            remove(f"{folder}/{name}")
        else:
            remove_folder(f"{folder}/{name}")


@contextlib.contextmanager
def staged(folder: str) -> Iterator[str]:
    """A local folder for what others write file by file and rename; at the end it goes to `folder`.

    The files of subfolders are copied first, then the others by name: of a SavedModel, saved_model.pb is the last.
    """
    if not is_remote(folder):
        with clear_errors(folder):
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="solo_dist_") as local:
        yield local
        for root, _, files in tf.io.gfile.walk(local, topdown=False):
            for name in sorted(files):
                write(f"{folder}{root[len(local) :]}/{name}", read(f"{root}/{name}"))


def scratch_folder(url: str) -> str:
    """The local folder that belongs to a folder in a store on this machine: in TMPDIR, always the same, no other's."""
    url = url.rstrip("/")
    name, digest = re.sub(r"[^\w.-]+", "_", url)[-100:], hashlib.sha256(url.encode()).hexdigest()
    return f"{tempfile.gettempdir()}/solo_dist_{os.getuid()}/{name}_{digest[:12]}"


# ---------------------------------------------------------------- errors


@contextlib.contextmanager
def clear_errors(path: str) -> Iterator[None]:
    """Turns errors about a path, also NotFoundError, of TensorFlow and google-cloud-storage into a StoreError.

    For what is not in this module.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, tf.errors.OpError) or type(error).__module__.startswith(("google.", "requests.")):
            raise _explained(error, path) from error
        raise


def with_retries(call: Callable[[], T], path: str) -> T:
    """Calls until it succeeds or fails for good. Lets NotFoundError pass; raises StoreError for other failures."""
    try:
        return _retried(call) if is_remote(path) else call()
    except tf.errors.OpError as error:
        error = _told(error, path)
        cause = _cause_of(error)
        if isinstance(error, tf.errors.NotFoundError) and (cause is None or cause.name != "bucket"):
            raise
        raise _explained(error, path) from error


def _retried(call: Callable[[], T]) -> T:
    with warnings.catch_warnings():  # it warns of Python versions that it will not support in some years
        warnings.simplefilter("ignore", FutureWarning)
        from google.api_core import exceptions, retry

    patience = float(os.environ.get(PATIENCE_VARIABLE, _PATIENCE_SECONDS))
    policy = retry.Retry(
        predicate=_may_pass,
        initial=_FIRST_PAUSE_SECONDS,
        maximum=_LONGEST_PAUSE_SECONDS,
        timeout=patience,
        on_error=lambda error: log.warning("Tried again for up to %g s: %s", patience, _reason(error)),
    )
    try:
        return policy(call)()
    except exceptions.RetryError as error:
        raise error.cause from None


def _told(error: tf.errors.OpError, path: str) -> tf.errors.OpError:
    """The same failure with the store's own words: s3:// asks for the head of an object first, which has none."""
    if is_remote(path) and "No response body" in error.message and not isinstance(error, tf.errors.NotFoundError):
        try:
            _pywrap_file_io.GetChildren(posixpath.dirname(path))
        except tf.errors.OpError as same:
            return same
    return error


class _Cause:
    """Something that goes wrong with stores, how it is told, and what to do."""

    def __init__(self, name: str, pattern: str, what: str):
        self.name, self.what = name, what
        self.pattern = re.compile(pattern, re.IGNORECASE)


# The first that matches. Text of errors comes from TensorFlow's gs:// client, the AWS SDK and the stores themselves.
_CAUSES = (
    _Cause("bucket", r"NoSuchBucket|bucket does not exist", "there is no such bucket; create it or correct the path"),
    _Cause(
        "expired",
        r"ExpiredToken|token.{0,20}expired|TokenRefreshRequired|RequestTimeTooSkewed|RequestExpired",
        "the login has expired; renew it (AWS_SESSION_TOKEN, aws sso login, gcloud auth application-default login) "
        "and check the clock of this machine",
    ),
    _Cause(
        "region",
        r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|region '",
        "the bucket is in another region; set AWS_REGION to its region",
    ),
    _Cause(
        "credentials",
        r"code 401|InvalidAccessKeyId|SignatureDoesNotMatch|AuthFailure|Invalid Credentials|Anonymous caller|"
        r"DefaultCredentialsError|RefreshError",
        "no valid credentials; run gcloud auth application-default login or set GOOGLE_APPLICATION_CREDENTIALS for "
        "gs://, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE for s3://",
    ),
    _Cause(
        "quota",
        r"code 429|SlowDown|rateLimitExceeded|quota|TooManyRequests|No space left|ResourceExhausted",
        "a quota is used up or there is no space left; make room, ask for more, or wait",
    ),
    _Cause(
        "scheme", r"File system scheme .* not implemented", "TensorFlow knows no such kind of path; use gs:// or s3://"
    ),
    _Cause(
        "permission",
        r"AccessDenied|code 403|PermissionDenied|permission denied",
        "no permission; use an account that may list, read, write and delete there, or have this one allowed to",
    ),
    _Cause(
        "network",
        r"libcurl code|curlCode|ConnectionError|resolve host|connect to server|timed? ?out",
        "the store cannot be reached; check the network, proxies and S3_ENDPOINT, then run the same command again",
    ),
    _Cause("unavailable", r"code 5\d\d|InternalError|UnavailableError", "the store answers with errors; try later"),
)
_MAY_PASS = ("quota", "network", "unavailable")


def _explained(error: Exception, path: str) -> StoreError:
    cause = _cause_of(error)
    if cause is None:
        return StoreError(f"{path}: {_reason(error)}")
    kind = StoreUnavailable if is_remote(path) and cause.name in _MAY_PASS else StoreError
    return kind(f"{path}: {cause.what}. ({_reason(error)})")


def _cause_of(error: BaseException) -> _Cause | None:
    text = f"{type(error).__name__}: {getattr(error, 'message', error)}"
    if isinstance(code := getattr(error, "code", None), int):  # google-cloud-storage keeps it apart
        text += f" (code {int(code)})"
    return next((cause for cause in _CAUSES if cause.pattern.search(text)), None)


def _may_pass(error: BaseException) -> bool:
    if not isinstance(error, tf.errors.OpError):
        return False
    cause = _cause_of(error)
    return cause is not None and cause.name in _MAY_PASS


def _reason(error: BaseException) -> str:
    """What the store said, in one line."""
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", getattr(error, "message", str(error)))
    return re.sub(r"\s+", " ", text).strip()[:_LONGEST_REASON]
