"""Fixtures: a bucket of a real server, and what makes that server fail."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stores.faults import CONTROL

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """A server process, which ends with this one at the latest."""

    def __init__(self, module: str):
        self._folder = tempfile.TemporaryDirectory(prefix="solo_dist_store_")
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, self._folder.name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.address = f"http://127.0.0.1:{self.facts['port']}"

    def kill(self) -> None:
        """Gone for good."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self._folder.cleanup()

    def control(self, action: str, **values: Any) -> bytes:
        # Without the proxies that the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.address + CONTROL + action, json.dumps(values).encode(), timeout=60) as reply:
            return reply.read()


class Bucket:
    """A bucket of a test of its own. Faults last until `heal` or the end of the test."""

    scheme: str

    def __init__(self, server: Server, environment: dict[str, str]):
        self.server = server
        self.name = f"bucket-{uuid.uuid4().hex[:8]}"
        self.environment = environment
        """What a process needs in its environment from its start."""
        server.control("make_bucket", bucket=self.name)

    def url(self, path: str = "") -> str:
        return f"{self.scheme}://{self.name}/{path}" if path else f"{self.scheme}://{self.name}"

    # ---- Faults, of the whole server

    def fail(self, fraction: float, status: int = 503, only: str = "", body: str = "") -> None:
        """That part of all requests, or of one kind only ("read", "write", ...), is answered with an error."""
        self.server.control("fail", fraction=fraction, status=status, only=only, body=body)

    def delay(self, seconds: float) -> None:
        """Every answer comes so much later."""
        self.server.control("delay", seconds=seconds)

    def cut(self, seconds: float) -> None:
        """Connections break for so long from now on, also in the middle of an answer."""
        self.server.control("cut", seconds=seconds)

    def heal(self) -> None:
        self.server.control("heal")

    # ---- What is there, and what was asked for, behind the back of the programs under test

    def requests(self) -> Counter[tuple[str, str]]:
        """("read" | "write" | "stat" | "list" | "delete" | "copy", name of the object) since `forget`."""
        rows = json.loads(self.server.control("requests"))
        mine = [(kind, name.split("/", 1)) for kind, name in rows]
        return Counter((kind, parts[1]) for kind, parts in mine if parts[0] == self.name)

    def most_at_a_time(self) -> int:
        """Requests that were waiting for their delay together, since `forget`."""
        return json.loads(self.server.control("most_at_a_time"))

    def forget(self) -> None:
        """Starts a new count of requests."""
        self.server.control("forget")

    def names(self) -> list[str]:
        """All objects, sorted."""
        return json.loads(self.server.control("names", bucket=self.name))

    def get(self, name: str) -> bytes:
        return self.server.control("get", bucket=self.name, name=name)

    def put(self, name: str, data: bytes) -> None:
        self.server.control("put", bucket=self.name, name=name, data=base64.b64encode(data).decode())


class GcsBucket(Bucket):
    scheme = "gs"

    def __init__(self, server: Server):
        environment = {
            "STORAGE_EMULATOR_HOST": server.address,
            "https_proxy": server.address,
            "no_proxy": "localhost,127.0.0.1",
            "CURL_CA_BUNDLE": server.facts["certificate"],
            "NO_GCE_CHECK": "true",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        }
        super().__init__(server, environment)


class S3Bucket(Bucket):
    scheme = "s3"

    def __init__(self, server: Server):
        environment = {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "S3_ENDPOINT": server.address,
            "S3_USE_HTTPS": "0",
            "S3_VERIFY_SSL": "0",
        }
        super().__init__(server, environment)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[Server]:
    """For all tests of a session. A test that kills its server starts one for itself: Server("tests.stores.gcs")."""
    server = Server("tests.stores.gcs")
    yield server
    server.kill()


@pytest.fixture
def gcs(gcs_server) -> Iterator[GcsBucket]:
    """An empty bucket, gs://."""
    bucket = GcsBucket(gcs_server)
    yield bucket
    bucket.heal()
    bucket.server.control("remove_bucket", bucket=bucket.name)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """For all tests of a session."""
    server = Server("tests.stores.s3")
    yield server
    server.kill()


@pytest.fixture
def s3(s3_server) -> Iterator[S3Bucket]:
    """An empty bucket, s3://."""
    bucket = S3Bucket(s3_server)
    yield bucket
    bucket.heal()
    bucket.server.control("remove_bucket", bucket=bucket.name)


def environment_with(bucket: Bucket, **more: str) -> dict[str, str]:
    """The environment of a process that is started to use the bucket."""
    return os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"} | bucket.environment | more
