"""The S3 test server: tensorflow-io and boto3 find there what they have written, also when it fails."""

import pytest

from solo_dist import stack
from tests.stores.fixtures import ROOT
from tests.stores.test_gcs import DATA, python

TENSORFLOW = """
    import os, sys
    import tensorflow as tf
    from solo_dist.storage import urls
    url, data = sys.argv[1], bytes(range(256)) * 5000 + b"\\r\\n--\\n"
    assert urls.is_read_in_graph(url)
    for name in ("a/one", "a/b/two", "a/b c/dr%ei+ü"):
        with tf.io.gfile.GFile(f"{url}/{name}", "wb") as file:
            file.write(data)
        with tf.io.gfile.GFile(f"{url}/{name}", "rb") as file:
            assert file.read() == data, name
    assert sorted(tf.io.gfile.listdir(f"{url}/a")) == ["b", "b c", "one"]
    assert tf.io.gfile.glob(f"{url}/a/*/t*") == [f"{url}/a/b/two"]
    tf.io.gfile.rename(f"{url}/a/one", f"{url}/a/three")
    tf.io.gfile.rmtree(f"{url}/a/b")
    print("done", flush=True)
    os._exit(0)
"""


BOTO3 = """
    import os, sys
    from solo_dist.storage import s3
    url, data = sys.argv[1], bytes(range(256)) * 50000
    s3.PART = 5 << 20
    for name, content in (("small", b"small"), ("empty", b""), ("a/b c/dr%ei+ü", data)):
        with open("object", "wb") as file:
            file.write(content)
        s3.upload("object", f"{url}/{name}")
        with s3.opened(f"{url}/{name}") as file:
            assert file.read() == content
        assert s3.size_and_time(f"{url}/{name}")[0] == len(content)
        head = s3._client().head_object(Bucket=url[5:], Key=name, ChecksumMode="ENABLED")
        assert head["ChecksumCRC32"], head
    assert head["ETag"].strip('"').endswith("-3"), "in three parts"
    assert sorted(s3.names(url)) == ["a", "empty", "small"] and s3.names(f"{url}/a") == ["b c"]
    assert s3.matches(f"{url}/a/*/d*") == [f"{url}/a/b c/dr%ei+ü"] and s3.matches(f"{url}/[ab]") == [f"{url}/a"]
    assert s3.matches(f"{url}/*/b c/dr%ei+ü") and not s3.matches(f"{url}/*/b c/none")
    assert sorted(s3.files_below(url)) == [f"{url}/a/b c/dr%ei+ü", f"{url}/empty", f"{url}/small"]
    print("done")
"""


def test_boto3_reads_and_writes_in_parts_with_checksums(s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "done" in python(s3, BOTO3, PYTHONPATH=str(ROOT))
    assert s3.get("a/b c/dr%ei+ü") == bytes(range(256)) * 50000


@pytest.mark.skipif(not stack.has_tensorflow_io(), reason="tensorflow-io has no compiled code for this TensorFlow")
@pytest.mark.parametrize("fraction", [0.2])
def test_tensorflow_reads_and_writes(s3, fraction):
    s3.fail(fraction)
    assert "done" in python(s3, TENSORFLOW)
    assert s3.names() == ["a/b c/dr%ei+ü", "a/three"]
    assert s3.get("a/three") == DATA
    assert s3.requests()["read", "a/one"] and s3.requests()["copy", "a/three"]
