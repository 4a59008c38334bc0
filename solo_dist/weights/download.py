"""Files that are published under a name that ends in the first digits of their SHA-256, such as resnet50-0676ba61.pth.

They are downloaded once, into the cache folder, and compared with these digits each time they are used.
"""

import hashlib
import http.client
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from solo_dist.storage.atomic import replacing
from solo_dist.storage.host_lock import exclusive
from solo_dist.weights.errors import WeightsError

CACHE_VARIABLE = "SOLO_DIST_CACHE"
_SILENCE_SECONDS = 60
_PAUSES_SECONDS = (1, 2)
"""Before each further attempt after one that brought nothing; one that brought something starts the count again."""
_MAY_PASS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)

log = logging.getLogger(__name__)


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of downloads: $SOLO_DIST_CACHE, or else solo_dist in $XDG_CACHE_HOME, by default ~/.cache."""
    if environment.get(CACHE_VARIABLE):
        return Path(environment[CACHE_VARIABLE]).expanduser()
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "solo_dist"


def cached(url: str) -> Path:
    """The path of a published file in the cache, whether or not it exists."""
    return cache_folder() / Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name


def fetch(url: str) -> str:
    """The local path of a published file, which is downloaded if the cache does not have it.

    Args:
      url: http:, https: or file:, ending in -DIGITS.SUFFIX with at least 8 digits of the file's SHA-256.

    Raises:
      WeightsError: the name has no such digits, the file cannot be downloaded, or its content has another SHA-256.
    """
    path = cached(url)
    if not _digits(path):
        raise WeightsError(
            f"{url} does not end in the first digits of its SHA-256, as in resnet50-0676ba61.pth, so that what comes "
            "from there cannot be checked; download it yourself and give the path of the file."
        )
    if not path.exists():
        try:
            with exclusive(str(path.parent / "lock")):
                if not path.exists():  # another process of this machine may have fetched it meanwhile
                    _download(url, path)
        except OSError as error:  # errors of the network have become WeightsErrors
            raise WeightsError(
                f"{url} cannot be kept in {path.parent}: {error.strerror or error}; "
                f"set {CACHE_VARIABLE} to a folder that can be written to and has space."
            ) from None
    found = _sha256(path)
    if not found.startswith(_digits(path)):
        raise WeightsError(
            f"{path} is not the file that was published: its SHA-256 begins with {found[:8]} and not with "
            f"{_digits(path)}; remove it, so that it is downloaded again."
        )
    return str(path)


def _digits(path: Path) -> str:
    match = re.search(r"-([0-9a-f]{8,64})$", path.stem)
    return match[1] if match else ""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _download(url: str, path: Path) -> None:
    """Downloads a file, which appears in the cache if the digits of its checksum are right."""
    log.info("downloading %s to %s", url, path.parent)
    with replacing(str(path)) as partial:
        with open(partial, "wb") as file:
            _receive_with_retries(url, file, path)
        found = _sha256(Path(partial))
        if not found.startswith(_digits(path)):
            raise WeightsError(
                f"{url} was downloaded, but its SHA-256 begins with {found[:8]} and not with {_digits(path)}: it was "
                f"changed on its way, or is another file. Try again, or {_by_hand(path)}"
            )
    log.info("downloaded %s (%.1f MB); its SHA-256 begins with %s", path.name, path.stat().st_size / 1e6, found[:8])


def _by_hand(path: Path) -> str:
    return f"get {path.name} elsewhere and put it at {path}."


def _receive_with_retries(url: str, file: BinaryIO, path: Path) -> None:
    failures = 0
    while True:
        before = file.tell()
        try:
            return _receive(url, file)
        except _MAY_PASS as error:
            failures = 0 if file.tell() > before else failures + 1
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 429)
            if final or failures > len(_PAUSES_SECONDS):
                raise WeightsError(f"{url} could not be downloaded ({_reason(error)}); {_by_hand(path)}") from None
            log.warning("%s: %s; trying again after %.1f MB", url, _reason(error), file.tell() / 1e6)
            time.sleep(_PAUSES_SECONDS[max(failures - 1, 0)])


def _receive(url: str, file: BinaryIO) -> None:
    """Appends the rest of the content at the URL to the file."""
    start = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=_SILENCE_SECONDS) as answer:
        if start and answer.status != http.HTTPStatus.PARTIAL_CONTENT:  # the server sends the whole file again
            start = 0
            file.seek(0)
            file.truncate()
        while chunk := answer.read(1 << 20):
            file.write(chunk)
        expected = answer.headers.get("Content-Length")
        if expected is not None and file.tell() - start < int(expected):
            raise ConnectionError("the connection was cut")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
