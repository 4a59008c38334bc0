"""Steps that are skipped if their result is there and was made from the same inputs.

A step is a command that reads some files and writes others. What it read is kept in a file of the working folder: the
command itself and the checksums of its inputs. It is written before the step starts, and again, marked as done, when
the step has ended well; so a result is never taken for complete, or for one of other inputs.
"""

import dataclasses
import json
import shlex
from typing import Any

import tensorflow as tf

from solo_dist.distributed.exit_codes import EXIT_DONE, EXIT_PREEMPTED, as_exit_code, describe_exit
from solo_dist.errors import ConfigError
from solo_dist.quickstart.processes import Processes, say
from solo_dist.storage import file_io, opening
from solo_dist.storage.atomic import checksum

RECORD = "quickstart.json"


@dataclasses.dataclass(frozen=True)
class Step:
    """A command of solo-dist with what it reads and writes."""

    title: str
    """What it does, for people; also its name in the record."""
    arguments: tuple[str, ...]
    """Arguments of solo-dist, the command's name first."""
    reads: tuple[str, ...]
    """Files whose content the result depends on; a folder stands for names, sizes and times of its files."""
    writes: tuple[str, ...]
    """Files that are there if the step is done; each is written last, or complete at once."""
    remakes: str = ""
    """Folder that is removed before the step runs on other inputs than before; "": nothing has to be."""
    protects: str = ""
    """Folder that is never removed with it: if it holds anything, other inputs than before are an error."""


class Record:
    """What each step of a working folder was made from."""

    def __init__(self, workdir: str):
        self._path, self._workdir = f"{workdir}/{RECORD}", workdir
        try:
            self._steps: dict[str, Any] = json.loads(file_io.read(self._path))
        except (tf.errors.NotFoundError, ValueError):
            self._steps = {}

    def is_done(self, step: Step) -> bool:
        """Whether the step ended well with the inputs as they are now, and its result is still there."""
        known = self._steps.get(step.title)
        same = known == {"inputs": inputs_of(step), "done": True}
        return same and all(map(file_io.exists, step.writes))

    def begin(self, step: Step) -> None:
        """Makes room for the result of a step. Raises ConfigError if it must not be replaced."""
        inputs, known = inputs_of(step), self._steps.get(step.title)
        if known and known["inputs"] != inputs:
            if step.protects and file_io.names(step.protects):
                raise ConfigError(
                    f"{step.protects} was made from other images, labels or another recipe; give another --workdir "
                    f"than {self._workdir}, or remove it."
                )
            if step.remakes:
                file_io.remove_folder(step.remakes)
        self._write(step, inputs, done=False)

    def finish(self, step: Step) -> None:
        """Marks a step as done."""
        self._write(step, self._steps[step.title]["inputs"], done=True)

    def _write(self, step: Step, inputs: Any, done: bool) -> None:
        self._steps[step.title] = {"inputs": inputs, "done": done}
        file_io.write(self._path, json.dumps(self._steps, indent=1).encode())


def inputs_of(step: Step) -> dict[str, Any]:
    """The command, and for each input what tells it from another one. Raises ConfigError if one is missing."""
    return {"command": list(step.arguments), "read": {path: _state(path) for path in step.reads}}


def _state(path: str) -> Any:
    if file_io.is_folder(path):
        return {file: _size_and_time(file) for file in sorted(file_io.files_below(path))}
    if not file_io.exists(path):
        raise ConfigError(f"{path} is missing.")
    return checksum(path)


def _size_and_time(file: str) -> list[int]:
    """Empty for a link to a file that is gone."""
    try:
        return list(opening.size_and_time(file))
    except tf.errors.NotFoundError:
        return []


def run_step(step: Step, record: Record, processes: Processes, heading: str) -> int:
    """Runs a step unless it is done; returns its exit code, or EXIT_PREEMPTED if a signal stopped it."""
    if record.is_done(step):
        say(f"{heading} {step.title}: done before")
        return EXIT_DONE
    record.begin(step)
    say(f"\n{heading} {step.title}\n  {shlex.join(['solo-dist', *step.arguments])}")
    code = processes.run(step.arguments)
    if code == EXIT_DONE:
        record.finish(step)
    if processes.stopped_by is not None:
        return EXIT_PREEMPTED
    if code != EXIT_DONE:
        say(f"{heading} {step.title} failed: {describe_exit(code)}.")
    return as_exit_code(code)
