"""Waiting until all workers of a cluster are running."""

import logging
import math
import socket
import time

from solo_dist.distributed import ports
from solo_dist.distributed.cluster.cluster import Cluster

_CONNECT_SECONDS, _WAIT_SECONDS, _TELL_SECONDS = 5.0, 0.2, 30.0
_PORT_SECONDS = 20.0

log = logging.getLogger(__name__)


def wait_for_workers(cluster: Cluster) -> None:
    """Returns when the ports of all other workers accept connections; meanwhile this worker listens on its own port.

    TensorFlow would wait for the workers too, but holds the interpreter's lock while it does: no signal would be
    handled, and no other thread, such as the watchdog's, would run.

    Raises:
      ConfigError: the port of this worker stays in use by another process.
    """
    with _own_port(cluster):
        for address in cluster.workers[: cluster.index] + cluster.workers[cluster.index + 1 :]:
            tell = time.monotonic() + _TELL_SECONDS
            while not _is_there(address):
                if time.monotonic() > tell:
                    log.warning("still waiting for worker %s", address)
                    tell = math.inf
                time.sleep(_WAIT_SECONDS)


def _own_port(cluster: Cluster) -> socket.socket:
    """Listens on this worker's port; a worker that was killed may hold it for some seconds."""
    address = cluster.workers[cluster.index]
    port = int(address.rpartition(":")[2])
    give_up = time.monotonic() + _PORT_SECONDS
    while True:
        try:
            return ports.listen(port)
        except OSError as error:
            if time.monotonic() > give_up:
                raise ports.unusable(port, f"worker {cluster.index} at {address}", error) from error
        time.sleep(_WAIT_SECONDS)


def _is_there(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as connection:
            # If nothing listens on a port of this host, our own end can get that port, and be connected with itself.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False
