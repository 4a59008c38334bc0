"""Growing files and their copies; a second folder stands for the store, which tests/distributed has for real."""

import logging
import threading

from solo_dist.errors import StoreUnavailable
from solo_dist.run import upload
from solo_dist.run.upload import Uploader


def make(tmp_path, seconds=3600.0):
    (tmp_path / "here/events").mkdir(parents=True, exist_ok=True)
    return Uploader(f"{tmp_path}/here", f"{tmp_path}/there", "lines", ["events"], seconds)


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def append(path, text):
    with path.open("a") as file:
        file.write(text)


def test_what_grows_is_copied_and_what_is_gone_is_removed(tmp_path):
    (tmp_path / "there/events").mkdir(parents=True)
    append(tmp_path / "there/events/a", "a1")
    append(tmp_path / "there/lines", "1\n")
    copy = make(tmp_path)
    append(tmp_path / "here/events/stale", "of another run")
    copy.fetch()
    assert content(tmp_path / "here") == {"events/a": "a1", "lines": "1\n"}
    (tmp_path / "here/events/a").unlink()  # cut to nothing
    append(tmp_path / "here/events/b", "b1")
    append(tmp_path / "here/lines", "2\n")
    copy.start()
    assert content(tmp_path / "there") == {"events/b": "b1", "lines": "1\n2\n"} == content(tmp_path / "here")
    append(tmp_path / "here/events/b", "b2")
    copy.close()
    assert content(tmp_path / "there") == {"events/b": "b1b2", "lines": "1\n2\n"}


def test_only_what_has_grown_is_written_and_the_lines_come_last(tmp_path, monkeypatch):
    copy = make(tmp_path)
    for name in ("events/a", "events/b", "lines"):
        append(tmp_path / "here" / name, "1")
    copy.start()
    written = []
    write = upload.file_io.write
    monkeypatch.setattr(upload.file_io, "write", lambda path, data: (written.append(path), write(path, data)))
    append(tmp_path / "here/events/b", "2")
    append(tmp_path / "here/lines", "2")
    copy.publish()
    assert written == [f"{tmp_path}/there/events/b", f"{tmp_path}/there/lines"]


def test_a_store_that_does_not_answer_is_tried_again_later(tmp_path, monkeypatch, caplog):
    copy = make(tmp_path, seconds=0.01)
    append(tmp_path / "here/lines", "1\n")
    copy.start()
    failed, write = threading.Event(), upload.file_io.write

    def fail(path, data):
        failed.set()
        raise StoreUnavailable(f"{path}: gone.")

    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(upload.file_io, "write", fail)
        append(tmp_path / "here/lines", "2\n")
        assert failed.wait(60)
        monkeypatch.setattr(upload.file_io, "write", write)
        while content(tmp_path / "there") != {"lines": "1\n2\n"}:
            pass
    assert f"Metrics and curves are kept in {tmp_path}/here meanwhile" in caplog.text
    copy.close()
