"""The json files that a command line names, and the results of this project among them, which are no labels."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from solo_dist import json_text
from solo_dist.errors import ConfigError, DataError
from solo_dist.importing.coco_json import WRITER
from solo_dist.importing.image_files import files_under, is_inside, real_path
from solo_dist.storage import file_io

_REPORTS = (".report.json", "split_report.json")


def load_json(path: str, option: str) -> Any:
    """The content of a json file. Raises ConfigError or DataError."""
    if file_io.is_folder(path):
        raise ConfigError(f"--{option}={path} is a folder; give a json file.")
    try:
        return json_text.parse(file_io.read(path))
    except tf.errors.NotFoundError as error:
        raise ConfigError(f"--{option}={path}: there is no such file.") from error
    except json_text.NotJson as error:
        raise DataError(f"{path} is not valid json: {error}.") from error


def json_files(inputs: Sequence[str], output: str) -> tuple[list[str], set[str]]:
    """The json files that are named by `inputs`: files, patterns with * or ?, and folders including their subfolders.

    `output` and reports are left out of folders.

    Returns:
      All files, and those of them that nothing but a folder names: they need not be labels.
    Raises:
      ConfigError: an input names no json file.
    """
    named: dict[str, str] = {}
    in_folders: dict[str, str] = {}
    for given in inputs:
        if file_io.is_folder(given):
            found = [path for path in files_under(given, "input") if path.endswith(".json")]
            found = [path for path in found if not path.endswith(_REPORTS) and real_path(path) != real_path(output)]
            in_folders |= {real_path(path): path for path in found}
        else:
            found = file_io.matches(given) or ([given] if file_io.exists(given) else [])
            named |= {real_path(path): path for path in found}
        if not found:
            raise ConfigError(f"--input={given}: there is no such json file, nor a folder with one.")
    return list((named | in_folders).values()), {in_folders[path] for path in in_folders.keys() - named.keys()}


def is_written_here(content: Any) -> bool:
    """Whether `solo-dist import` wrote a COCO json, or `solo-dist split` made it from one."""
    info = content.get("info") if isinstance(content, dict) else None
    return isinstance(info, dict) and info.get("contributor") == WRITER


def check_output(output: str, inputs: Sequence[str]) -> None:
    """Raises ConfigError if `output` is a named file of labels, or one in a named folder that is not our own result."""
    if not file_io.exists(output):
        return
    for given in inputs:
        if not file_io.is_folder(given):
            replaces = real_path(output) in map(real_path, [given, *file_io.matches(given)])
        else:
            replaces = is_inside(output, given) and not _is_result(output)
        if replaces:
            raise ConfigError(
                f"--output={output} would replace a file of --input={given}; give another, or remove that."
            )


def _is_result(path: str) -> bool:
    try:
        return is_written_here(json_text.parse(file_io.read(path)))
    except json_text.NotJson:
        return False
