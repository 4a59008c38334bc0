"""What the command-line programs share: reading flags without TensorFlow, and errors a person can act on.

A program defines its flags, imports TensorFlow inside its `main` only (so that --helpshort is quick), and ends with
`cli.run(main)`. Users' mistakes leave as one or two lines on stderr and exit code 2; anything else keeps its traceback.
"""

import contextlib
import dataclasses
import difflib
import itertools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags

from solo_dist.config import Config, ConfigError
from solo_dist.distributed import exit_codes

_OWN_PACKAGES = ("solo_dist", "tools", "configs", "launch")
_STORED_RECIPE = Path(__file__).parent / "run" / "config_of_run.py"
_ENVIRONMENT = {
    # TensorFlow's own log has warnings about the build and the CPU on every start; errors reach Python as exceptions.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Read-ahead of gs://, by default 64 MB: more than nearly all records, which are read one by one in random order.
    "GCS_READAHEAD_BUFFER_SIZE_BYTES": "524288",
    # A failed request to gs:// is repeated after 1, 2, 4, ... 32 s, for two minutes; a failed write takes three times
    # as long, which with TensorFlow's own 10 would come near the watchdog's limit.
    "GCS_RETRY_CONFIG_MAX_RETRIES": "8",
}
"""What TensorFlow reads when it is loaded; the user's own values stay."""


def run(main: Callable[[list[str]], int | None]) -> None:
    """Parses the flags, calls `main(remaining_arguments)` and leaves the process with what it returns as exit code."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        app.run(main, flags_parser=_parse_flags)
    except SystemExit as end:
        exit_codes.exit_now(_exit_code(end))
    except KeyboardInterrupt:
        exit_codes.exit_now(128 + signal.SIGINT)
    except Exception as error:
        # Leaving from here and not after it: with the exception would go what its frames hold, such as a strategy.
        if _is_users_mistake(error):
            with contextlib.suppress(OSError):  # nobody may read any more; launchers go by the code
                print(f"error: {error}", file=sys.stderr)
            exit_codes.exit_now(getattr(error, "exit_code", exit_codes.EXIT_USER_ERROR))
        with contextlib.suppress(OSError):
            traceback.print_exc()
        exit_codes.exit_now(1)


def check_overrides(arguments: Sequence[str]) -> None:
    """Raises ConfigError for an argument --config.a.b=... that names no field of a recipe."""
    for argument in arguments:
        name = argument.lstrip("-").split("=")[0]
        if not argument.startswith("-") or not name.startswith("config."):
            continue
        kind: type = Config
        for part in name.split(".")[1:]:
            fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
            known = {field.name: field.type for field in fields}
            if part not in known:
                close = difflib.get_close_matches(part, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known there: {', '.join(known) or 'nothing'}."
                raise ConfigError(f"--{name}: a recipe has no such field; {hint}")
            kind = known[part]  # type: ignore[assignment]


def _parse_flags(arguments: Sequence[str]) -> list[str]:
    """As absl's parser, but mistakes in flags and fields of the recipe leave with one line."""
    check_overrides(arguments[1:])
    try:
        rest = flags.FLAGS([*arguments[:1], *_recipe_of_run(arguments[1:]), *arguments[1:]])
        recipe = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
        getattr(recipe, "validate", None)  # a recipe that failed to load is reported at its first use
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config."):
            _leave(f"--{error.flagname} changes a field of a recipe, so --config=configs/NAME.py has to be given too.")
        _leave(f"{error}. --helpshort lists the flags.")
    except (flags.Error, OSError) as error:
        text = str(error).strip()
        missing = re.findall(r"Flag (--\w+) must have a value other than None", text)
        if missing:
            _leave(f"{' and '.join(missing)} must be given; see --helpshort.")
        # Of a recipe that did not load, the last line is its own error, after the name of its class.
        _leave(re.sub(r"^solo_dist[\w.]*Error: ", "", text.splitlines()[-1].strip()))
    if len(rest) > 1:
        _leave(
            f"unexpected arguments {' '.join(rest[1:4])}: a value goes with its flag, as in --steps=10, and a pattern "
            "such as 'photos/*.jpg' in quotes."
        )
    urls = [url for name in flags.FLAGS for url in _urls(flags.FLAGS[name].value)]
    if urls:
        from solo_dist.storage import file_io  # imports TensorFlow

        file_io.prepare(urls)
    return rest


def _urls(value: Any) -> Iterator[str]:
    """URLs in the value of a flag, or in the fields of a recipe."""
    if isinstance(value, str):
        yield from [value] if "://" in value else []
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _urls(getattr(value, field.name))


def _recipe_of_run(arguments: Sequence[str]) -> list[str]:
    """Without --config, a program that has no recipe of its own takes that of the run in --workdir."""
    defined = flags.FLAGS
    if "config" not in defined or defined["config"].default is not None or "workdir" not in defined:
        return []
    if any(re.match(r"--?config(=|$)", argument) for argument in arguments):
        return []
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        given = re.fullmatch(r"--?workdir(?:=(.*))?", argument)
        if given:
            return [f"--config={_STORED_RECIPE}:{following if given[1] is None else given[1]}"]
    return []


def _is_users_mistake(error: Exception) -> bool:
    return isinstance(error, ValueError) and type(error).__module__.split(".")[0] in _OWN_PACKAGES


def _exit_code(end: SystemExit) -> int:
    """What the interpreter would make of a SystemExit: None is 0, and text is printed and means 1."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _leave(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(exit_codes.EXIT_USER_ERROR)
