"""A local HTTP server of weight files whose faults a test chooses."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


class FileServer(http.server.ThreadingHTTPServer):
    """Serves the files of a folder, with ranges.

    Attributes:
      requests: path and Range header of every request.
      cuts: number of the following answers that end after half of what they announced.
      failures: number of the following answers that are 503.
      ranges: whether the server knows ranges; one that does not sends the whole file.
    """

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.requests = folder, []
        self.cuts, self.failures, self.ranges = 0, 0, True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        path = self.server.folder / self.path.lstrip("/")
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
        elif not path.is_file():
            self.send_error(404)
        else:
            self.send(path.read_bytes(), wanted if self.server.ranges else None)

    def send(self, content: bytes, wanted: str | None):
        if wanted:
            self.send_response(206)
            content = content[int(wanted.removeprefix("bytes=").removesuffix("-")) :]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def file_server(tmp_path) -> Iterator[FileServer]:
    """A server of the new folder tmp_path/served."""
    (tmp_path / "served").mkdir()
    with FileServer(tmp_path / "served") as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of downloads."""
    monkeypatch.setenv("SOLO_DIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
