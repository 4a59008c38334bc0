"""Code that all commands share: reading flags without TensorFlow, and error messages for users.

A program defines its flags, imports TensorFlow inside its `main` only (so that --helpshort is quick), and ends with
`cli.run(main)`. An error of the kinds in errors.py ends the program with one or two lines on stderr, or with the
traceback if --traceback is given; any other exception is a fault in the code, and its traceback is always shown.
"""

import argparse
import contextlib
import dataclasses
import difflib
import functools
import io
import os
import posixpath
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from solo_dist import recipes
from solo_dist.config import Config
from solo_dist.distributed import exit_codes
from solo_dist.errors import ConfigError, StoreUnavailable, UserError

_CONFIG_OF_RUN = Path(__file__).parent / "run" / "config_of_run.py"
_ENVIRONMENT = {
    # TensorFlow's own log has warnings about the build and the CPU on every start; errors reach Python as exceptions.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Read-ahead of gs://, by default 64 MB: more than nearly all records, which are read one by one in random order.
    "GCS_READAHEAD_BUFFER_SIZE_BYTES": "524288",
    # A failed request to gs:// is repeated after 1, 2, 4, ... 32 s, for two minutes; a failed write for six minutes.
    # With TensorFlow's default of 10 repetitions, that would come near the watchdog's limit.
    "GCS_RETRY_CONFIG_MAX_RETRIES": "8",
}
"""Variables that TensorFlow reads when it is loaded; values that the user has set stay."""

WITHOUT_NEXT = "SOLO_DIST_WITHOUT_NEXT"
"""Variable that is set if another program runs this one and goes on by itself: it is not said what comes next."""

_EXIT_FAULT = 1
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show the traceback of every error, also of a mistake in the flags.")


def run(main: Callable[[list[str]], int | None], positional: bool = False) -> None:
    """Parses the flags, calls `main(remaining_arguments)` and leaves the process with what it returns as exit code.

    Args:
      main: gets the name of the program, then the arguments that are no flags.
      positional: whether there may be such arguments.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):  # names of files and categories may have letters that a terminal lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[_TRACEBACK.name])  # --helpshort lists it
    try:
        app.run(main, flags_parser=functools.partial(_parse_flags, positional=positional))
    except SystemExit as end:
        exit_codes.exit_now(_code_of_exit(end))
    except KeyboardInterrupt:
        exit_codes.exit_now(128 + signal.SIGINT)
    except Exception as error:
        # `head`, for example, reads no more than it shows.
        if isinstance(error, BrokenPipeError) and _nobody_reads_stdout():
            exit_codes.exit_now(128 + signal.SIGPIPE)
        # Exit inside this block: after it, freeing the exception would free objects of its frames, such as a strategy,
        # which can wait for workers that have ended.
        with contextlib.suppress(OSError):  # if nothing reads stderr any more; launchers only need the exit code
            if not isinstance(error, UserError) or _traceback_wanted():
                traceback.print_exc()
            else:
                print(f"error: {error}", file=sys.stderr)
        exit_codes.exit_now(exit_code_of(error))


def exit_code_of(error: Exception) -> int:
    """The exit code of a program that ends with this error."""
    if isinstance(error, StoreUnavailable):
        return exit_codes.EXIT_STORE_LOST
    return exit_codes.EXIT_USER_ERROR if isinstance(error, UserError) else _EXIT_FAULT


def _nobody_reads_stdout() -> bool:
    """Whether stdout is a pipe that was closed at its other end."""
    poll = select.poll()
    with contextlib.suppress(OSError, ValueError):  # stdout has no file descriptor
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _traceback_wanted() -> bool:
    """Whether --traceback is given, even if parsing the flags has failed."""
    return bool({"--traceback", "-traceback", "--traceback=true", "--traceback=True"} & set(sys.argv))


def print_next(*commands: str, remark: str = "") -> None:
    """Prints the commands that come next, unless WITHOUT_NEXT is set; a remark goes behind the word "Next"."""
    if os.environ.get(WITHOUT_NEXT):
        return
    separator = " " if len(commands) == 1 else "\n  "
    print(f"Next{remark}:", *commands, sep=separator)


def take_flags(arguments: Sequence[str], *names: str) -> tuple[dict[str, str], list[str]]:
    """Separates some flags from the rest of a command line, whatever other flags are in it.

    Args:
      arguments: without the name of the program.
      names: of the flags, which all take a value: --name=value, --name value, and the same with one dash.

    Returns:
      The values of those that are given, by name (the last value if one is given twice), and all other arguments.
    """
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    for name in names:
        parser.add_argument(f"--{name}", f"-{name}")
    given, rest = parser.parse_known_args(list(arguments))
    return vars(given), rest


def with_home(argument: str) -> str:
    """An argument with the home folder in place of a ~ at the beginning of its value: shells leave --flag=~/x alone."""
    flag, value = re.fullmatch(r"(--?[\w.]+=)?(.*)", argument, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{flag or ''}{posixpath.expanduser(value)}"


def check_overrides(arguments: Sequence[str]) -> None:
    """Raises ConfigError for an argument --config.a.b=... that names no field of the config."""
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
                raise ConfigError(f"--{name}: the config has no such field; {hint}")
            kind = known[part]  # type: ignore[assignment]


def _parse_flags(arguments: Sequence[str], positional: bool = False) -> list[str]:
    """Like absl's parser, but a mistake in flags or in fields of the config is a ConfigError."""
    arguments = [*arguments[:1], *map(with_home, arguments[1:])]
    check_overrides(arguments[1:])
    try:
        rest = flags.FLAGS([*arguments[:1], *_with_recipe(arguments[1:])])
        _check_config()
    except (flags.Error, OSError) as error:
        raise _flag_error(error) from error
    if len(rest) > 1 and not positional:
        raise ConfigError(
            f"unexpected arguments {' '.join(rest[1:4])}: a value goes with its flag, as in --steps=10, and a pattern "
            "such as 'photos/*.jpg' in quotes."
        )
    _prepare_urls([*(flags.FLAGS[name].value for name in flags.FLAGS), *rest[1:]])
    return rest


def _check_config() -> None:
    """Validates the value of --config, if the program has this flag and it is given.

    Raises:
      ConfigError: a field is wrong, or the file makes something else than a config.
      OSError: the file could not be loaded.
    """
    config = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
    getattr(config, "name", None)  # raises the OSError of a recipe that did not load
    if isinstance(config, Config):
        config.validate()
    elif config is not None:
        raise ConfigError(f"--config: get_config() must return a solo_dist.config.Config, it is {type(config)}.")


def _flag_error(error: Exception) -> ConfigError:
    """What absl's parser, or the loading of a recipe, raised, in the words of a ConfigError."""
    text = str(error).strip()
    if isinstance(error, flags.UnrecognizedFlagError):
        if error.flagname.startswith("config."):
            return ConfigError(
                f"--{error.flagname} changes a field of the config, so --config=RECIPE has to be given too."
            )
        return ConfigError(f"{error} (--help lists the flags)")
    if missing := re.findall(r"Flag (--\w+) must have a value other than None", text):
        return ConfigError(f"{' and '.join(missing)} must be given; see --help.")
    # If a recipe did not load, its own error is the last line.
    return ConfigError(text.splitlines()[-1].strip())


def _prepare_urls(values: Sequence[Any]) -> None:
    """Makes the stores of URLs in the values of flags usable. Raises StoreError if a package for one is missing."""
    given = [url for value in values for url in _urls(value)]
    if given:
        from solo_dist.storage import urls  # imports TensorFlow

        urls.prepare(given)


def _urls(value: Any) -> Iterator[str]:
    """URLs in the value of a flag, in a list of them, or in the fields of a config."""
    if isinstance(value, str):
        yield from [value] if "://" in value else []
    elif isinstance(value, list):
        for one in value:
            yield from _urls(one)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _urls(getattr(value, field.name))


def _with_recipe(arguments: Sequence[str]) -> list[str]:
    """The arguments with the path of a recipe's file in --config, which can hold the name of a recipe.

    If --config is not given, a program without a default recipe gets the config of the run in --workdir.
    """
    defined = flags.FLAGS
    if "config" not in defined:
        return list(arguments)
    given, rest = take_flags(arguments, "config")
    if given:
        return [f"--config={recipes.find(given['config'])}", *rest]
    run = take_flags(arguments, "workdir")[0].get("workdir")
    if defined["config"].default is not None or "workdir" not in defined or run is None:
        return list(arguments)
    return [f"--config={_CONFIG_OF_RUN}:{run}", *arguments]


def _code_of_exit(end: SystemExit) -> int:
    """The exit code of a SystemExit, as the interpreter sets it: None is 0, and text is printed and means 1."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1
