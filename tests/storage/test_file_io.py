"""Files in object stores: what is there, what fails and is tried again, and what users are told."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import tensorflow as tf

from solo_dist import stack
from solo_dist.errors import StoreError
from solo_dist.storage import file_io, urls
from solo_dist.storage.atomic import replacing
from tests.stores.fixtures import Bucket, environment_with

# A process that calls the functions of the module, since TensorFlow reads what leads to a test server when it starts.
SERVE = """
import json, os, sys
from solo_dist import cli
from solo_dist.storage import file_io as storage, urls

urls.prepare([sys.argv[1]])
print(flush=True)
for line in sys.stdin:
    patience, name, *arguments = json.loads(line)
    os.environ["SOLO_DIST_STORE_SECONDS"] = str(patience)
    if name == "write":
        arguments[1] = arguments[1].encode()
    try:
        result = getattr(storage, name)(*arguments)
        answer = {"result": result.decode() if isinstance(result, bytes) else result}
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error), "code": cli.exit_code_of(error)}
    print(json.dumps(answer), flush=True)
os._exit(0)
"""
SHORT = {
    "GCS_RETRY_CONFIG_MAX_RETRIES": "1",
    "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "1000",
    "AWS_RETRY_MODE": "standard",
    "AWS_MAX_ATTEMPTS": "2",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


class Failed(Exception):
    """An error in the other process."""

    def __init__(self, name: str, message: str, code: int):
        super().__init__(message)
        self.name, self.code = name, code


class Caller:
    """Calls functions of `storage` in a process that is led to a test server."""

    def __init__(self, bucket: Bucket):
        environ = environment_with(bucket, **SHORT)
        command = [sys.executable, "-c", SERVE, bucket.url()]
        self._process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._process.stdout.readline()

    def __call__(self, name: str, *arguments: str | int, patience: float = 20):
        self._process.stdin.write(json.dumps([patience, name, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise Failed(answer["error"], answer["message"], answer["code"])
        return answer["result"]

    def end(self) -> str:
        _, errors = self._process.communicate(timeout=60)
        assert self._process.returncode == 0
        return errors


@pytest.fixture(scope="module")
def callers() -> Iterator[dict[str, Caller]]:
    started: dict[str, Caller] = {}
    yield started
    for caller in started.values():
        caller.end()


@pytest.fixture(params=["gcs", "s3"])
def bucket(request) -> Bucket:
    return request.getfixturevalue(request.param)


@pytest.fixture
def call(bucket, callers) -> Caller:
    if bucket.scheme not in callers:
        callers[bucket.scheme] = Caller(bucket)
    return callers[bucket.scheme]


def test_what_is_written_is_there(bucket, call):
    assert call("names", bucket.url("run")) == []
    assert not call("exists", bucket.url("run/a"))
    for name in ("a", "b/c", "b/empty"):
        call("write", bucket.url(f"run/{name}"), "" if name == "b/empty" else name * 3)
    assert bucket.names() == ["run/a", "run/b/c", "run/b/empty"]  # and nothing that stands for a folder
    assert call("names", bucket.url("run")) == ["a", "b"]
    assert [call("read", bucket.url(f"run/{name}")) for name in ("a", "b/c", "b/empty")] == ["aaa", "b/cb/cb/c", ""]
    assert call("exists", bucket.url("run/b/empty")) and not call("exists", bucket.url("run/b"))
    call("remove", bucket.url("run/a"))
    call("remove", bucket.url("run/a"))
    call("remove_folder", bucket.url("run"))
    assert bucket.names() == []
    with pytest.raises(Failed) as missing:
        call("read", bucket.url("run/a"))
    assert missing.value.name == "NotFoundError"


def test_parts_of_a_file(bucket, call):
    text = "".join(map(str, range(200_000)))
    bucket.put("a", text.encode())
    bucket.fail(0.2)
    size = len(text)
    for start, length in ((0, 3), (5, 1), (700_001, 600_000), (size - 2, 2), (size - 2, 9), (size, 1), (2 * size, 5)):
        assert call("read_range", bucket.url("a"), start, length) == text[start : start + length]
    with pytest.raises(Failed) as missing:
        call("read_range", bucket.url("b"), 0, 1)
    assert missing.value.name == "NotFoundError"


def test_what_another_process_writes_is_seen_at_once(bucket, call):
    call("write", bucket.url("lock"), "old")
    assert call("read", bucket.url("lock")) == "old"
    bucket.put("lock", b"new and longer")
    assert call("read", bucket.url("lock")) == "new and longer"
    big = "x" * 3_000_000
    call("write", bucket.url("lock"), big)
    assert call("read", bucket.url("lock")) == big


def test_requests_that_fail_now_and_then_change_nothing(bucket, call):
    text = "".join(map(str, range(200_000)))
    bucket.fail(0.2)
    for number in range(5):
        call("write", bucket.url(f"folder/{number}"), text)
        assert call("read", bucket.url(f"folder/{number}")) == text
        assert call("exists", bucket.url(f"folder/{number}"))
    assert call("names", bucket.url("folder")) == list("01234")


def test_a_cut_is_waited_for(bucket, call):
    call("write", bucket.url("a"), "text")
    bucket.cut(2)
    assert call("read", bucket.url("a")) == "text"


@pytest.mark.parametrize("ask", [("exists", "run/a"), ("names", "run"), ("read", "run/a"), ("write", "run/a", "text")])
def test_a_store_that_does_not_answer_is_not_an_empty_one(bucket, call, ask):
    bucket.fail(1)
    with pytest.raises(Failed, match="answers with errors|quota") as failed:
        call(ask[0], bucket.url(ask[1]), *ask[2:], patience=0.5)
    assert (failed.value.name, failed.value.code) == ("StoreUnavailable", 196)
    bucket.fail(0)
    bucket.cut(600)
    with pytest.raises(Failed, match="cannot be reached; check the network") as failed:
        call(ask[0], bucket.url(ask[1]), *ask[2:], patience=0.5)
    assert (failed.value.name, failed.value.code) == ("StoreUnavailable", 196)


def xml(code: str, message: str = "Denied") -> str:
    return f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


# Status, body and the beginning of the advice, as the stores' own documentation has them.
REFUSALS = {
    "gs": [
        (401, '{"error": {"code": 401, "message": "Invalid Credentials"}}', "no valid credentials; run gcloud auth"),
        (403, '{"error": {"code": 403, "message": "a@b does not have storage.objects.get access"}}', "no permission;"),
        (429, '{"error": {"code": 429, "message": "rateLimitExceeded"}}', "a quota is used up"),
    ],
    "s3": [
        (403, xml("InvalidAccessKeyId"), "no valid credentials; "),
        (403, xml("SignatureDoesNotMatch"), "no valid credentials; "),
        (403, xml("AccessDenied"), "no permission; "),
        (400, xml("ExpiredToken", "The provided token has expired."), "the login has expired; "),
        (
            301,
            xml("PermanentRedirect", "Use the specified endpoint."),
            "the bucket is in another region; set AWS_REGION",
        ),
        (400, xml("AuthorizationHeaderMalformed", "the region 'a' is wrong"), "the bucket is in another region; "),
        (503, xml("SlowDown", "Reduce your request rate."), "a quota is used up"),
    ],
}


def test_refusals_are_told_with_what_to_do(bucket, call):
    for status, body, advice in REFUSALS[bucket.scheme]:
        bucket.fail(1, status, body=body)
        asks = [("exists", "run/a"), ("names", "run"), ("read", "run/a"), ("write", "run/a", "text")]
        for name, path, *more in asks if status < 429 else asks[-1:]:
            with pytest.raises(Failed) as failed:
                call(name, bucket.url(path), *more, patience=0.5)
            assert failed.value.name.startswith("Store"), (status, body, failed.value)
            assert f"{bucket.url(path)}: {advice}" in str(failed.value)
            assert "\n" not in str(failed.value) and len(str(failed.value)) < 700


def test_missing_bucket_is_told(bucket, call):
    for name, *more in (("write", "text"), ("names",)):
        with pytest.raises(Failed, match="there is no such bucket; create it or correct the path") as failed:
            call(name, f"{bucket.scheme}://no-such-bucket/run/a", *more)
        assert failed.value.name == "StoreError"


def test_local_files(tmp_path):
    file_io.write(f"{tmp_path}/a/b", b"text")
    assert file_io.read(f"{tmp_path}/a/b") == b"text"
    assert file_io.names(f"{tmp_path}/a") == ["b"] and file_io.names(f"{tmp_path}/c") == []
    assert file_io.exists(f"{tmp_path}/a/b") and not file_io.exists(f"{tmp_path}/a/c")
    file_io.remove_folder(f"{tmp_path}/a")
    assert file_io.names(str(tmp_path)) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=f"{tmp_path}/file/a"):
        file_io.write(f"{tmp_path}/file/a", b"")


def test_folders_in_a_store_do_not_share_a_local_one():
    folders = [
        "gs://b/runs/a",
        "gs://b/runs_a",
        "s3://b/runs/a",
        "gs://b/lr=1e-3",
        "gs://b/lr_1e-3",
        "gs://b/" + 300 * "x",
    ]
    assert len({urls.scratch_folder(folder) for folder in folders}) == len(folders)
    assert urls.scratch_folder("gs://b/runs/a/") == urls.scratch_folder("gs://b/runs/a")


def test_unknown_kind_of_path():
    with pytest.raises(StoreError, match="nfs://host/a: TensorFlow knows no such kind of path"):
        file_io.write("nfs://host/a", b"")


def test_tensorflow_io_is_imported_for_its_paths_only(monkeypatch):
    code = (
        "import sys; from solo_dist.storage import urls; urls.prepare(['a', 'gs://b/c', 's3://b/c', 'grpc://host:1']); "
    )
    done = subprocess.run([sys.executable, "-c", code + "sys.exit('tensorflow_io' in sys.modules)"], timeout=120)
    assert done.returncode == 0
    monkeypatch.setattr(tf.io.gfile, "get_registered_schemes", lambda: ["", "gs"])
    monkeypatch.setattr(stack, "has_tensorflow_io", lambda: False)
    with pytest.raises(
        StoreError, match="az:// paths need tensorflow-io, which fits TensorFlow 2.17 only: pip install"
    ):
        urls.prepare(["az://bucket/run"])
    assert [urls.is_read_in_graph(path) for path in ("a", "gs://b/a", "s3://b/a")] == [True, True, False]
    monkeypatch.setattr(urls.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoreError, match="s3:// paths need boto3, which is not installed: pip install"):
        urls.prepare(["s3://bucket/run"])


def test_brackets_are_letters_of_names_and_sets_of_patterns(tmp_path):
    for name in ("a[1]/x.jpg", "a[1]/y.jpg", "a1/x.jpg", "b/1.jpg", "b/2.jpg", "b/[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    def found(pattern):
        return [path.removeprefix(f"{tmp_path}/") for path in file_io.matches(f"{tmp_path}/{pattern}")]

    assert found("a[1]/x.jpg") == ["a[1]/x.jpg"]
    assert found("b/[12].jpg") == ["b/1.jpg", "b/2.jpg"]
    assert found("b/[1].jpg") == ["b/[1].jpg"]
    assert found("a[1]/y*.jpg") == ["a[1]/y.jpg"] and found("c[1]/*") == []


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path):
    (tmp_path / "old").write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(f"{tmp_path}/old") as written:
        with open(written, "w") as file:
            file.write("half")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and (tmp_path / "old").read_text() == "before"


def test_odd_names_and_links_of_a_disk(tmp_path, caplog):
    """A name that is not UTF-8 is left out with a warning; a link to a folder that it is in is not followed."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/1").touch()
    (tmp_path / "a/b/back").symlink_to("../../a")
    (tmp_path / "a/gone").symlink_to("/nowhere/1")
    (tmp_path / "other").symlink_to("a/b")
    with open(bytes(tmp_path / "a") + b"/caf\xe9", "wb"):
        pass
    assert sorted(file_io.files_below(str(tmp_path))) == [
        f"{tmp_path}/{name}" for name in ("a/b/1", "a/gone", "other/1", "other/back/gone")
    ]
    assert file_io.names(f"{tmp_path}/a") == ["b", "gone"]
    assert "1 files are left out, as their names are not UTF-8, such as b'caf\\xe9'" in caplog.text
    with pytest.raises(StoreError, match="a name there is not UTF-8"):
        file_io.matches(f"{tmp_path}/a/*")
    assert file_io.files_below(f"{tmp_path}/none") == file_io.names(f"{tmp_path}/a/b/1") == []
