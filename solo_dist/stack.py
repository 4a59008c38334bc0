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


def ease_imports() -> None:
    """Makes later imports of TensorFlow quiet, and those of TensorFlow and Keras faster.

    TensorFlow 2.20 and later print lines on import, whatever TF_CPP_MIN_LOG_LEVEL says. They are dropped if that
    variable asks for errors only. Keras imports matplotlib, a fifth of the start of a command, for plots that nothing
    here draws; it does without if there is none.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow and Keras, and has their loaders run without noise and matplotlib."""

    def __init__(self) -> None:
        self._names = {"tensorflow", "keras"} - set(sys.modules)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._names:
            return None
        self._names.remove(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            load = spec.loader.exec_module
            is_quiet = name == "tensorflow" and os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3"

            def exec_module(module: ModuleType) -> None:
                with _without_noise() if is_quiet else contextlib.nullcontext(), _without_matplotlib():
                    load(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _without_matplotlib() -> Iterator[None]:
    """An import of matplotlib raises ImportError, unless it has been imported already."""
    if "matplotlib" in sys.modules:
        yield
        return
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop("matplotlib", None)


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Leads the descriptor of stderr through grep, a process that also shows the last words of one that crashes."""
    import subprocess

    sys.stderr.flush()
    patterns = [argument for noise in _NOISE for argument in ("-e", noise)]
    try:
        grep = subprocess.Popen(["grep", "-avF", *patterns], stdin=subprocess.PIPE, stdout=2)
    except OSError:  # if grep is missing, the noise is shown
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
