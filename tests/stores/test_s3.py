"""The S3 test server: tensorflow-io finds there what it has written, also when it fails."""

import pytest

from tests.stores.test_gcs import DATA, python

TENSORFLOW = """
    import os, sys
    import tensorflow as tf
    from solo_dist.storage import urls
    url, data = sys.argv[1], bytes(range(256)) * 5000 + b"\\r\\n--\\n"
    urls.prepare([url])
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


@pytest.mark.parametrize("fraction", [0.2])
def test_tensorflow_reads_and_writes(s3, fraction):
    s3.fail(fraction)
    assert "done" in python(s3, TENSORFLOW)
    assert s3.names() == ["a/b c/dr%ei+ü", "a/three"]
    assert s3.get("a/three") == DATA
    assert s3.requests()["read", "a/one"] and s3.requests()["copy", "a/three"]
