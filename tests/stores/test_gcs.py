"""The test server itself: both clients find there what either has written, also when it fails."""

import subprocess
import sys
import textwrap

import pytest

from tests.stores.fixtures import GcsBucket, Server, environment_with

DATA = bytes(range(256)) * 5000 + b"\r\n--\n"


def python(bucket, code: str, timeout: float = 120, **environ: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), bucket.url()],
        env=environment_with(bucket, TF_CPP_MIN_LOG_LEVEL="2", **environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


TENSORFLOW = """
    import sys
    import tensorflow as tf
    url, data = sys.argv[1], bytes(range(256)) * 5000 + b"\\r\\n--\\n"
    files = tf.io.gfile
    for name in ("a/one", "a/b/two", "a/b c/dr%ei+ü"):
        with files.GFile(f"{url}/{name}", "wb") as file:
            file.write(data)
        with files.GFile(f"{url}/{name}", "rb") as file:
            assert file.read() == data, name
    assert files.stat(f"{url}/a/one").length == len(data)
    assert sorted(files.listdir(f"{url}/a")) == ["b c/", "b/", "one"], files.listdir(f"{url}/a")
    assert files.glob(f"{url}/a/*/t*") == [f"{url}/a/b/two"]
    assert files.isdir(f"{url}/a/b") and not files.exists(f"{url}/nothing") and not files.isdir(f"{url}/nothing")
    files.rename(f"{url}/a/one", f"{url}/a/three")
    assert not files.exists(f"{url}/a/one") and files.exists(f"{url}/a/three")
    files.remove(f"{url}/a/b/two")  # rmtree takes a folder that is asked for in vain for one that is not there
    with files.GFile(f"{url}/empty", "wb") as file:
        file.write(b"")
    with files.GFile(f"{url}/log", "a") as file:
        file.write("first ")
        file.flush()
        file.write("second")
    files.makedirs(f"{url}/folder")
    print(tf.io.read_file(f"{url}/log").numpy().decode())
"""


def test_tensorflow_reads_and_writes(gcs):
    gcs.fail(0.2)
    # TensorFlow waits a second before it repeats a request; there are many.
    assert "first second" in python(gcs, TENSORFLOW, GCS_RETRY_CONFIG_INIT_DELAY_TIME_US="10000")
    assert gcs.names() == ["a/b c/dr%ei+ü", "a/three", "empty", "folder/", "log"]
    assert gcs.get("a/three") == gcs.get("a/b c/dr%ei+ü") == DATA and gcs.get("empty") == b""
    assert gcs.requests()["read", "log"] and gcs.requests()["copy", "a/one"]


@pytest.fixture
def bucket(gcs, monkeypatch):
    """The bucket as google-cloud-storage sees it."""
    for name, value in gcs.environment.items():
        monkeypatch.setenv(name, value)
    from google.cloud import storage

    return storage.Client(project="tests").bucket(gcs.name)


@pytest.mark.parametrize("fraction", [0, 0.2])
@pytest.mark.parametrize("chunk", [None, 1 << 18])
def test_google_cloud_storage_reads_and_writes(gcs, bucket, chunk, fraction):
    gcs.fail(fraction)
    for name in ("plain", "x/b c/dr%ei+ü"):
        blob = bucket.blob(name, chunk_size=chunk)
        blob.upload_from_string(DATA, checksum="crc32c", if_generation_match=0)
        assert gcs.get(name) == bucket.blob(name).download_as_bytes() == DATA
        assert bucket.blob(name).download_as_bytes(start=3, end=9) == DATA[3:10]
        assert bucket.get_blob(name).size == len(DATA)
    gcs.heal()  # the library does not repeat what would be done twice
    bucket.copy_blob(bucket.blob("plain"), bucket, "x/copy")
    bucket.blob("joined").compose([bucket.blob("plain"), bucket.blob("x/copy")])
    assert gcs.get("joined") == DATA + DATA
    assert [blob.name for blob in bucket.list_blobs(prefix="x/", page_size=1)] == ["x/b c/dr%ei+ü", "x/copy"]
    bucket.delete_blob("plain")
    assert bucket.get_blob("plain") is None


def test_conditions_and_checksums_are_kept(bucket):
    from google.api_core.exceptions import BadRequest, PreconditionFailed

    blob = bucket.blob("one")
    blob.upload_from_string(b"first")
    with pytest.raises(PreconditionFailed):
        bucket.blob("one").upload_from_string(b"second", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.blob("one").delete(if_generation_match=blob.generation + 1)
    wrong = bucket.blob("two")
    wrong.crc32c = "AAAAAA=="
    with pytest.raises(BadRequest):
        wrong.upload_from_string(b"data", checksum=None)
    assert bucket.get_blob("two") is None
    blob.upload_from_string(b"third", if_generation_match=blob.generation)
    assert blob.download_as_bytes() == b"third"


def test_cut_off_and_gone(gcs, bucket):
    from requests.exceptions import ConnectionError

    bucket.blob("one").upload_from_string(b"data")
    gcs.cut(60)
    with pytest.raises(ConnectionError):
        bucket.blob("one").download_as_bytes(retry=None)
    gcs.heal()
    assert bucket.blob("one").download_as_bytes(retry=None) == b"data"
    other = GcsBucket(Server("tests.stores.gcs"))
    other.server.kill()
    with pytest.raises(OSError):
        other.names()
