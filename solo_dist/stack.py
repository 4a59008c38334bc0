"""What depends on the version of TensorFlow: 2.17 with tensorflow-io, or the newest. CONTRIBUTING.md has both stacks.

This module imports only the standard library.
"""

import contextlib
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

_NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "Could not find cuda drivers on your machine, GPU will not be used.",
)


def constraints() -> str:
    """The file of exact versions of the stack that is installed."""
    import importlib.metadata

    is_old = importlib.metadata.version("tensorflow").startswith("2.17.")
    return "constraints-2.17.txt" if is_old else "constraints.txt"


def has_tensorflow_io() -> bool:
    """Whether tensorflow-io is installed with a TensorFlow that its compiled code fits."""
    import importlib.metadata

    try:
        version = importlib.metadata.version("tensorflow-io")
    except importlib.metadata.PackageNotFoundError:
        return False
    return version.startswith("0.37.") and importlib.metadata.version("tensorflow").startswith(("2.16.", "2.17."))


def quiet_tensorflow() -> None:
    """Drops what TensorFlow 2.20 and later print on import, whatever TF_CPP_MIN_LOG_LEVEL says.

    Nothing is dropped unless that variable asks for errors only, when TensorFlow is imported.
    """
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow, and has its loader run without the noise."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and spec.loader and os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3":
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with _without_noise():
                    load(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Leads the descriptor of stderr through grep, a process that also shows the last words of one that crashes."""
    import subprocess

    sys.stderr.flush()
    patterns = [argument for noise in _NOISE for argument in ("-e", noise)]
    try:
        grep = subprocess.Popen(["grep", "-avF", *patterns], stdin=subprocess.PIPE, stdout=2)
    except OSError:  # there is none: then the noise is shown
        yield
        return
    assert grep.stdin
    stderr = os.dup(2)
    os.dup2(grep.stdin.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        grep.stdin.close()
        grep.wait()
