"""How a program ends: what it prints and its exit code, by the kind of error, in real processes."""

import os
import signal
import subprocess
import sys

import pytest

from solo_dist import cli
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
        ([], "--code must be given; see --help."),
        (
            ["--code=0", "--cod=1"],
            "Unknown command line flag 'cod'. Did you mean: code ? (--help lists the flags)",
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


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_the_terminal_cannot_show(encoding):
    """Names of categories can be in any script, and names of files can have half a character."""
    code = "print('\u82f9 caf\u00e9', chr(0xD83C))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"--code={code}"], capture_output=True, timeout=300, env=environment
    )
    assert (process.returncode, process.stderr) == (0, b"")
    wanted = "\u82f9 caf\u00e9 \ud83c\n".encode(encoding, "backslashreplace")
    assert process.stdout == wanted and b"\\ud83c" in wanted


def test_output_that_nobody_reads_on_is_no_fault():
    """As in `solo-dist inspect ... | head -1`."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--code=[print('x' * 1000, flush=True) for _ in range(1000)]"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr and process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 128 + signal.SIGPIPE
    process.stderr.close()


@pytest.mark.parametrize(
    ("argument", "wanted"),
    [
        ("--images=~/a b/*.jpg", "--images=/home/x/a b/*.jpg"),
        ("--config.data.train=~/shards", "--config.data.train=/home/x/shards"),
        ("~/shards", "/home/x/shards"),
        ("-w=~", "-w=/home/x"),
        ("--rename=a~/b:c", "--rename=a~/b:c"),
        ("--output=out~", "--output=out~"),
        ("--text=one\ntwo", "--text=one\ntwo"),
    ],
)
def test_the_home_folder_in_flags(monkeypatch, argument, wanted):
    monkeypatch.setenv("HOME", "/home/x")
    assert cli.with_home(argument) == wanted


def test_what_comes_next_is_said_unless_another_program_goes_on(monkeypatch, capsys):
    cli.print_next("solo-dist split")
    cli.print_next("solo-dist shard", "solo-dist train", remark=", perhaps")
    assert capsys.readouterr().out == "Next: solo-dist split\nNext, perhaps:\n  solo-dist shard\n  solo-dist train\n"
    monkeypatch.setenv(cli.WITHOUT_NEXT, "1")
    cli.print_next("solo-dist split")
    assert capsys.readouterr().out == ""
