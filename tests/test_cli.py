"""How a program ends: what it prints and its exit code, by the kind of error, in real processes."""

import subprocess
import sys

import pytest

from solo_dist.distributed import exit_codes

PROGRAM = """
import sys

from absl import flags

from solo_dist import cli, errors

flags.DEFINE_string("code", None, "Statement to run.", required=True)


class Derived(errors.DataError):
    pass


def main(arguments):
    exec(flags.FLAGS.code)


cli.run(main)
"""


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("errors.ConfigError", exit_codes.EXIT_USER_ERROR),
        ("errors.RunFailed", exit_codes.EXIT_USER_ERROR),
        ("errors.StoreError", exit_codes.EXIT_USER_ERROR),
        ("errors.StoreUnavailable", exit_codes.EXIT_STORE_LOST),
        ("Derived", exit_codes.EXIT_USER_ERROR),
    ],
)
def test_a_users_mistake_is_one_line_unless_the_traceback_is_asked_for(error, code):
    short = run(f"--code=raise {error}('mend it')")
    assert (short.returncode, short.stderr) == (code, "error: mend it\n")
    long = run(f"--code=raise {error}('mend it')", "--traceback")
    assert long.returncode == code
    assert "Traceback" in long.stderr and long.stderr.endswith(": mend it\n")


@pytest.mark.parametrize("statement", ["int('a')", "{}['a']", "raise ValueError('a')", "assert False"])
def test_a_fault_keeps_its_traceback(statement):
    process = run(f"--code={statement}")
    assert process.returncode == 1
    assert "Traceback" in process.stderr and "error: " not in process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--code must be given; see --helpshort."),
        (
            ["--code=0", "--cod=1"],
            "Unknown command line flag 'cod'. Did you mean: code ? (--helpshort lists the flags)",
        ),
        (["--code=0", "more"], "unexpected arguments more: a value goes with its flag"),
        (["--code=0", "--config.train.steps=1"], "--config=RECIPE has to be given too."),
        (["--code=0", "--config.train.stops=1"], "the config has no such field; did you mean steps?"),
    ],
)
def test_mistakes_in_flags(arguments, message):
    process = run(*arguments)
    assert process.returncode == exit_codes.EXIT_USER_ERROR
    assert process.stderr.startswith("error: ") and message in process.stderr and process.stderr.count("\n") == 1
    assert "Traceback" in run(*arguments, "--traceback").stderr


@pytest.mark.parametrize(("statement", "code", "text"), [("sys.exit(7)", 7, ""), ("sys.exit('gone')", 1, "gone\n")])
def test_an_exit_of_its_own(statement, code, text):
    process = run(f"--code={statement}")
    assert (process.returncode, process.stderr) == (code, text)
