"""The program `solo-dist COMMAND --flag=value ...`; from a checkout also `python -m solo_dist COMMAND ...`.

A command is a module, which this program runs as `python -m MODULE` does. `COMMANDS` below gives it its name;
`solo-dist --help` prints the first line of its docstring, read without importing it. Only the module of the called
command is imported. CONTRIBUTING.md says what such a module contains.
"""

import ast
import contextlib
import difflib
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from solo_dist.distributed.exit_codes import EXIT_USER_ERROR

COMMANDS: dict[str, dict[str, str]] = {
    "Train and use a model": {
        "quickstart": "solo_dist.commands.quickstart",
        "train": "solo_dist.train",
        "evaluate": "solo_dist.evaluate",
        "predict": "solo_dist.predict",
        "export": "solo_dist.export",
        "report": "solo_dist.commands.report",
        "compare": "solo_dist.commands.compare",
        "track": "solo_dist.commands.track",
    },
    "Prepare data": {
        "import": "solo_dist.commands.import_annotations",
        "split": "solo_dist.commands.split",
        "suggest": "solo_dist.commands.suggest",
        "shard": "solo_dist.commands.shard",
        "inspect": "solo_dist.commands.inspect_shards",
        "copy-shards": "solo_dist.commands.copy_shards",
        "make-shapes": "solo_dist.commands.make_shapes",
        "prelabel": "solo_dist.commands.prelabel",
    },
    "Models and weights": {
        "models": "solo_dist.commands.models",
        "inspect-model": "solo_dist.commands.inspect_model",
        "import-weights": "solo_dist.commands.import_weights",
    },
    "Many processes and machines": {
        "launch": "solo_dist.commands.launch",
        "data-service": "solo_dist.commands.data_service",
        "cost-model": "solo_dist.commands.cost_model",
    },
    "Measure": {
        "benchmark": "solo_dist.commands.benchmark",
        "benchmark-exports": "solo_dist.commands.benchmark_exports",
        "doctor": "solo_dist.commands.doctor",
    },
}
"""Heading of the help -> name of the command -> module."""


def main() -> None:
    """Runs the command that the command line names, or prints the help."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "--helpshort", "help"):
        with contextlib.suppress(BrokenPipeError):  # `head`, for example, reads no more than it shows
            print(_help(), flush=True)
    elif arguments[0] == "--version":
        from solo_dist import __version__

        print(f"solo-dist {__version__}")
    else:
        run_command(arguments[0], arguments[1:])


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Runs a command as `python -m MODULE arguments` would. A name that is unknown ends the process with code 2."""
    modules = {name: module for group in COMMANDS.values() for name, module in group.items()}
    if name not in modules:
        close = difflib.get_close_matches(name, modules, n=1, cutoff=0.0)[0]
        print(f"error: there is no command {name!r}; the closest is {close!r}. See solo-dist --help.", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    sys.argv = [sys.argv[0], *arguments]
    runpy.run_module(modules[name], run_name="__main__", alter_sys=True)


def _help() -> str:
    lines = ["Usage: solo-dist COMMAND [--flag=value ...]"]
    for heading, modules in COMMANDS.items():
        lines += ["", f"{heading}:", *(f"  {name:<19}{_summary(module)}" for name, module in modules.items())]
    return "\n".join([*lines, "", "solo-dist COMMAND --help lists the flags of a command, with examples."])


def _summary(module: str) -> str:
    """The first line of a module's docstring, read without importing the module."""
    spec = importlib.util.find_spec(module)
    assert spec and spec.origin
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0]


if __name__ == "__main__":
    main()
