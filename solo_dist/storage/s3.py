"""Objects in s3:// by boto3. Errors are those that TensorFlow raises for other stores, with the words of boto3.

A request is repeated as AWS_MAX_ATTEMPTS and AWS_RETRY_MODE say; storage/retries.py repeats whole calls after that.
Uploads carry checksums, which the store verifies; so do the parts of objects above PART bytes.
"""

import contextlib
import fnmatch
import functools
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

PART = 1 << 26
"""Bytes; larger files are uploaded in parts of this size, several at a time."""
_CONNECTIONS = 64
_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 60
_KINDS = dict.fromkeys(("NoSuchKey", "NoSuchBucket", "404"), tf.errors.NotFoundError) | {
    "InvalidRange": tf.errors.OutOfRangeError
}
"""Errors of TensorFlow by codes of S3."""


def size_and_time(url: str) -> tuple[int, int]:
    """Bytes of an object, and its last change in nanoseconds. Raises NotFoundError, also for a folder."""
    bucket, key = _split(url)
    # A listing, since the answer to HEAD has no body that could say what went wrong. The exact name comes first.
    with _errors_of_tensorflow():
        found = _client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
    if not found or found[0]["Key"] != key:
        raise tf.errors.NotFoundError(None, None, f"{url} does not exist")
    return found[0]["Size"], int(found[0]["LastModified"].timestamp() * 1e9)


@contextlib.contextmanager
def opened(url: str) -> Iterator[Any]:
    """Yields an object as a file to read once from its start."""
    bucket, key = _split(url)
    with _errors_of_tensorflow(), contextlib.closing(_client().get_object(Bucket=bucket, Key=key)["Body"]) as body:
        yield body


def read_range(url: str, start: int, length: int) -> bytes:
    """`length` bytes from `start`, or fewer at the end. Raises OutOfRangeError if the object ends before `start`."""
    bucket, key = _split(url)
    wanted = f"bytes={start}-{start + length - 1}"
    with _errors_of_tensorflow():
        body = _client().get_object(Bucket=bucket, Key=key, Range=wanted)["Body"]
        with contextlib.closing(body):
            return body.read()


def upload(path: str, url: str) -> None:
    """Copies a local file to an object, which appears once it has arrived whole with the right checksum."""
    from boto3.s3.transfer import TransferConfig

    bucket, key = _split(url)
    with _errors_of_tensorflow():
        if os.path.getsize(path) <= PART:
            with open(path, "rb") as file:
                _client().put_object(Bucket=bucket, Key=key, Body=file)
        else:
            parts = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
            _client().upload_file(path, bucket, key, Config=parts)


def remove(url: str) -> None:
    """Removes an object if it exists."""
    bucket, key = _split(url)
    with _errors_of_tensorflow():
        _client().delete_object(Bucket=bucket, Key=key)


def names(folder: str) -> list[str]:
    """Names of the objects and folders directly in a folder."""
    bucket, prefix = _split(f"{folder.rstrip('/')}/")
    found = []
    for page in _pages(Bucket=bucket, Prefix=prefix, Delimiter="/"):
        found += [entry["Key"] for entry in page.get("Contents", [])]
        found += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
    return [name.removeprefix(prefix).rstrip("/") for name in found if name != prefix]


def files_below(folder: str) -> list[str]:
    """URLs of the objects in a folder and all folders in it."""
    bucket, prefix = _split(f"{folder.rstrip('/')}/")
    keys = [entry["Key"] for page in _pages(Bucket=bucket, Prefix=prefix) for entry in page.get("Contents", [])]
    return [f"s3://{bucket}/{key}" for key in keys if not key.endswith("/")]


def matches(pattern: str) -> list[str]:
    """URLs of objects and folders that match a pattern with "*", "?" and "[...]", none of which matches "/"."""
    bucket, key = _split(pattern)
    found, is_listed = [f"s3://{bucket}"], False
    for part in key.split("/"):
        is_listed = any(letter in part for letter in "*?[")
        if is_listed:
            found = [f"{folder}/{name}" for folder in found for name in fnmatch.filter(names(folder), part)]
        else:
            found = [f"{folder}/{part}" for folder in found]
    return found if is_listed else [url for url in found if _is_there(url)]


def _is_there(url: str) -> bool:
    try:
        return size_and_time(url)[0] >= 0
    except tf.errors.NotFoundError:
        return bool(names(url))


def _pages(**arguments: str) -> Iterator[dict[str, Any]]:
    with _errors_of_tensorflow():
        yield from _client().get_paginator("list_objects_v2").paginate(**arguments)


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key.lstrip("/")


@functools.cache
def _client() -> Any:
    import boto3
    from botocore.config import Config

    server = endpoint()
    settings = Config(
        max_pool_connections=_CONNECTIONS,
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_ANSWER_SECONDS,
        s3={"addressing_style": "path" if server else "auto"},
    )
    try:
        # A session of its own, as the default one must not be made by two threads at a time.
        return boto3.session.Session().client(
            "s3",
            region_name=os.environ.get("AWS_REGION"),
            endpoint_url=server,
            verify=False if os.environ.get("S3_VERIFY_SSL") == "0" else None,
            config=settings,
        )
    except ValueError as error:  # an endpoint that is no URL
        raise tf.errors.InvalidArgumentError(None, None, f"S3_ENDPOINT: {error}") from error


def endpoint() -> str | None:
    """The address of a server other than Amazon's, from S3_ENDPOINT and S3_USE_HTTPS, or AWS_ENDPOINT_URL."""
    given = os.environ.get("S3_ENDPOINT")
    if not given:
        return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if "://" in given:
        return given
    return f"{'http' if os.environ.get('S3_USE_HTTPS') == '0' else 'https'}://{given}"


@contextlib.contextmanager
def _errors_of_tensorflow() -> Iterator[None]:
    """Raises NotFoundError, OutOfRangeError or UnknownError in place of what boto3 raises."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code, status = error.response["Error"].get("Code", ""), error.response["ResponseMetadata"]["HTTPStatusCode"]
        kind = _KINDS.get(code, tf.errors.UnknownError)
        text = error.response["Error"].get("Message", "")
        raise kind(None, None, f"{code}: {text} (code {status})") from error
    except RecursionError as error:  # botocore asks without end if a server redirects it and names no region
        raise tf.errors.UnknownError(None, None, "PermanentRedirect: the bucket is in another region") from error
    except (BotoCoreError, Boto3Error) as error:
        raise tf.errors.UnknownError(None, None, f"{type(error).__name__}: {error}") from error
