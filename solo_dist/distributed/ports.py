"""Listening on a port, or saying in time that another process does.

gRPC shares a port with another process that does the same: both would seem to serve, and each got some of the calls.
"""

import errno
import socket

from solo_dist.errors import ConfigError


def listen(port: int) -> socket.socket:
    """A socket that listens on a port of all addresses of this machine. Raises OSError."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def check_free(port: int, option: str) -> None:
    """Raises ConfigError if this process cannot listen on a port; `option` is what says which port it is."""
    try:
        listen(port).close()
    except OSError as error:
        raise unusable(port, option, error) from error


def unusable(port: int, option: str, error: OSError) -> ConfigError:
    """The error for a port on which `listen` failed."""
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"{option}: port {port} is in use by another process; end it, or choose another port.")
    return ConfigError(f"{option}: cannot listen on port {port}: {error.strerror}.")
