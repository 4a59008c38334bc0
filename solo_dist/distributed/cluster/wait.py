"""Waiting until all workers of a cluster are running."""

import contextlib
import logging
import math
import socket
import time

from solo_dist.distributed.cluster.cluster import Cluster

_CONNECT_SECONDS, _WAIT_SECONDS, _TELL_SECONDS = 5.0, 0.2, 30.0

log = logging.getLogger(__name__)


def wait_for_workers(cluster: Cluster) -> None:
    """Returns when the ports of all other workers accept connections; meanwhile this worker listens on its own port.

    TensorFlow would wait for the workers too, but holds the interpreter's lock while it does: no signal would be
    handled, and no other thread, such as the watchdog's, would run.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # if it is in use, TensorFlow will say so
            stack.enter_context(_listen(int(cluster.workers[cluster.index].rpartition(":")[2])))
        for address in cluster.workers[: cluster.index] + cluster.workers[cluster.index + 1 :]:
            tell = time.monotonic() + _TELL_SECONDS
            while not _is_there(address):
                if time.monotonic() > tell:
                    log.warning("still waiting for worker %s", address)
                    tell = math.inf
                time.sleep(_WAIT_SECONDS)


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _is_there(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as connection:
            # A connection to a free port of this host can get that same port as its own end, and so reach itself.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False
