"""The part that all test servers share: requests are counted, and can be failed, delayed or cut off."""

import contextlib
import http.server
import json
import os
import random
import socket
import sys
import threading
import time
from typing import Any

CONTROL = "/_control/"
_PIECE = 1 << 16


class Cut(Exception):
    """The connection is to break here."""


class FaultyServer(http.server.ThreadingHTTPServer):
    """Answers each connection in a thread, badly if it is told to."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type["FaultyHandler"]):
        super().__init__(("127.0.0.1", 0), handler)
        self.lock = threading.Lock()
        self.requests: list[tuple[str, str]] = []
        self.at_a_time = self.most_at_a_time = 0
        self.random = random.Random(0)
        self.heal()

    def heal(self) -> None:
        """Ends all faults."""
        self.fraction, self.status, self.only, self.body = 0.0, 503, "", ""
        self.seconds_late, self.cut_until = 0.0, 0.0

    def is_cut(self) -> bool:
        return time.monotonic() < self.cut_until

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], (Cut, OSError)):
            super().handle_error(request, client_address)

    def serve(self, **facts: str) -> None:
        """Prints the port and `facts` as one line of json, then serves until the standard input ends."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        print(json.dumps({"port": self.server_port} | facts), flush=True)
        sys.stdin.read()
        os._exit(0)


class FaultyHandler(http.server.BaseHTTPRequestHandler):
    """One connection. Subclasses implement `kind_and_object` and `answer`."""

    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def kind_and_object(self) -> tuple[str, str]:
        """What the request is counted as: ("read", "write", "stat", "list", "delete", ...; "bucket/name")."""
        raise NotImplementedError

    def answer(self, body: bytes) -> None:
        """Carries out the request and replies."""
        raise NotImplementedError

    def control(self, action: str, values: dict[str, Any]) -> Any:
        """Requests of the tests themselves, which have no faults and are not counted."""
        server = self.server
        if action == "requests":
            with server.lock:
                return list(server.requests)
        if action == "most_at_a_time":
            return server.most_at_a_time
        if action == "forget":
            server.requests.clear()
            server.most_at_a_time = 0
        elif action == "heal":
            server.heal()
        elif action == "fail":
            server.fraction, server.status = values["fraction"], values["status"]
            server.only, server.body = values["only"], values["body"]
        elif action == "delay":
            server.seconds_late = values["seconds"]
        elif action == "cut":
            server.cut_until = time.monotonic() + values["seconds"]
        else:
            raise ValueError(action)
        return None

    def handle_any(self) -> None:
        if self.path.startswith(CONTROL):
            values = json.loads(self._body() or b"{}")
            result = self.control(self.path.removeprefix(CONTROL), values)
            if not isinstance(result, bytes):
                result = json.dumps(result).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(result)))
            self.end_headers()
            self.wfile.write(result)
            return
        self._break_if_cut()
        body = self._body()
        kind, name = self.kind_and_object()
        with self.server.lock:
            self.server.requests.append((kind, name))
            fails = self.server.random.random() < self.server.fraction and self.server.only in ("", kind)
            self.server.at_a_time += 1
            self.server.most_at_a_time = max(self.server.most_at_a_time, self.server.at_a_time)
        if self.server.seconds_late:
            time.sleep(self.server.seconds_late)
        with self.server.lock:
            self.server.at_a_time -= 1
        if fails:
            self.reply(self.server.status, self.server.body.encode() or b"the test asked for this answer", "text/plain")
        else:
            self.answer(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def reply(self, status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> None:
        """Header names have "_" for "-"."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, len(body), _PIECE):
            self._break_if_cut()
            self.wfile.write(body[start : start + _PIECE])

    def _body(self) -> bytes:
        # TensorFlow's uploads have a Content-Length and are chunked; then only the chunks count.
        if self.headers.get("Transfer-Encoding", "identity").lower() != "chunked":
            return self._take(int(self.headers.get("Content-Length", 0)))
        parts = []
        while length := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self._take(length))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _take(self, length: int) -> bytes:
        parts = []
        while length:
            if not self.path.startswith(CONTROL):
                self._break_if_cut()
            part = self.rfile.read(min(length, _PIECE))
            if not part:
                raise Cut
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _break_if_cut(self) -> None:
        if self.server.is_cut():
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            raise Cut

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: failed tests show what the programs under test have to say."""
