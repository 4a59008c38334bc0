"""Environment variables of schedulers, with errors that name what is missing."""

from collections.abc import Mapping

from solo_dist.distributed.cluster.cluster import ClusterError


def required(environ: Mapping[str, str], name: str, source: str) -> str:
    """The value of a variable that `source`, a scheduler, should have set. Raises ClusterError."""
    if not environ.get(name):
        raise ClusterError(f"{name} is not set; with {source} it is needed, see launch/README.md.")
    return environ[name]


def number(environ: Mapping[str, str], name: str, source: str) -> int:
    """The value of such a variable as a number of 0 or more. Raises ClusterError."""
    text = required(environ, name, source)
    if not text.isdigit():
        raise ClusterError(f"{name}={text!r} is not a number.")
    return int(text)
