r"""Runs one server of a tf.data service, which makes batches for trainings on other machines.

    solo-dist data-service --role=dispatcher --port=5050
    solo-dist data-service --role=worker --dispatcher=HOST:5050          # on as many machines as needed
    solo-dist train --config=... --config.data.service=grpc://HOST:5050

Use it if the machine of a training cannot decode images as fast as it learns from them. One dispatcher serves any
number of trainings. Workers need solo_dist, and the shards under the same path or URL as the training. They may be
started and ended while trainings run. Ctrl-C or SIGTERM ends a server.
"""

import os
import signal
import socket
from typing import Any

from absl import flags

from solo_dist import cli
from solo_dist.distributed.ports import check_free
from solo_dist.errors import ConfigError

_ROLE = flags.DEFINE_enum("role", None, ["dispatcher", "worker"], "What to start.", required=True)
_PORT = flags.DEFINE_integer("port", 0, "Port to listen on; 0: 5050 for a dispatcher, any free one for a worker.")
_DISPATCHER = flags.DEFINE_string("dispatcher", "", "HOST:PORT of the dispatcher; for a worker.")
_HOST = flags.DEFINE_string("host", "", "Name under which trainers reach this worker; empty: that of this machine.")

_DISPATCHER_PORT = 5050
WORKER_TIMEOUT_MS = 10_000
"""The dispatcher gives no more work to a worker that was silent for this long."""


def main(arguments: list[str]) -> None:
    """Serves until SIGINT or SIGTERM."""
    del arguments
    if _ROLE.value == "worker" and ":" not in _DISPATCHER.value:
        raise ConfigError(f"--dispatcher={_DISPATCHER.value!r} must be HOST:PORT of the dispatcher.")
    port = _PORT.value or (_DISPATCHER_PORT if _ROLE.value == "dispatcher" else 0)
    if port:
        check_free(port, f"--port={port}")
    # A pipe, because a handler that sets a threading.Event waits for ever if the signal comes while this thread, in
    # wait(), holds the event's lock.
    signalled, write_end = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.write(write_end, b"."))
    server = _dispatcher(port) if _ROLE.value == "dispatcher" else _worker(port)
    os.read(signalled, 1)
    print("ends", flush=True)
    server._stop()


def _dispatcher(port: int) -> Any:
    import tensorflow as tf

    service = tf.data.experimental.service
    server = service.DispatchServer(service.DispatcherConfig(port=port, worker_timeout_ms=WORKER_TIMEOUT_MS))
    print(f"dispatcher at {server.target}", flush=True)
    return server


def _worker(port: int) -> Any:
    import tensorflow as tf

    service = tf.data.experimental.service
    address = _DISPATCHER.value.removeprefix("grpc://")
    host = _HOST.value or socket.gethostname()
    server = service.WorkerServer(
        service.WorkerConfig(dispatcher_address=address, worker_address=f"{host}:%port%", port=port)
    )
    print(f"worker of {address} at {server._address}", flush=True)
    return server


if __name__ == "__main__":
    cli.run(main)
