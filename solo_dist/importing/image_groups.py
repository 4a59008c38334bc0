"""Which images belong together, by their names or by a table.

folder                    the folder of the name
prefix:TEXT               what is before TEXT in the name
regex:PATTERN             what the pattern, or its first group, matches
table:FILE.csv:COLUMN     a column of a table that has the image names in its first column
"""

import collections
import csv
import io
import posixpath
import re
from collections.abc import Sequence

import tensorflow as tf

from solo_dist.errors import ConfigError, DataError
from solo_dist.importing.text_files import read_text


def groups_by(rule: str, names: Sequence[str]) -> list[list[str]]:
    """Lists of image names that stay together by a rule (see the head of this file); "": each on its own.

    Raises:
      ConfigError: the rule cannot be understood, or it fits no image.
      DataError: the table lacks the column, or an image, or is not UTF-8.
    """
    if not rule:
        return [[name] for name in names]
    kind, _, rest = rule.partition(":")
    if kind == "folder" and not rest:
        keys = {name: posixpath.dirname(name) for name in names}
    elif kind == "prefix" and rest:
        keys = {name: name.partition(rest)[0] for name in names if rest in posixpath.basename(name)}
    elif kind == "regex" and rest:
        keys = _by_pattern(rest, names)
    elif kind == "table" and ":" in rest:
        path, _, column = rest.rpartition(":")
        keys = _by_table(path, column, names)
    else:
        raise ConfigError(f"--group={rule} is none of folder, prefix:TEXT, regex:PATTERN and table:FILE.csv:COLUMN.")
    if not keys:
        raise ConfigError(f"--group={rule} fits none of the {len(names)} image names, such as {names[0]}.")
    groups: dict[tuple, list[str]] = collections.defaultdict(list)
    for name in names:
        groups[("key", keys[name]) if name in keys else ("alone", name)].append(name)
    return list(groups.values())


def _by_pattern(pattern: str, names: Sequence[str]) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--group=regex:{pattern} is no regular expression: {error}.") from error
    found = {name: compiled.search(name) for name in names}
    return {name: match[1 if compiled.groups else 0] or "" for name, match in found.items() if match}


def _by_table(path: str, column: str, names: Sequence[str]) -> dict[str, str]:
    try:
        text = read_text(path)
    except tf.errors.NotFoundError as error:
        raise ConfigError(f"--group: there is no file {path}.") from error
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or column not in rows[0]:
        raise DataError(f"{path} has no column {column}; its columns are {', '.join(rows[0]) if rows else 'none'}.")
    first = next(iter(rows[0]))
    values = {row[first]: row[column] for row in rows}
    keys = {name: values.get(name, values.get(posixpath.basename(name))) for name in names}
    missing = [name for name, value in keys.items() if value is None]
    if missing:
        raise DataError(f"{path} has no row for {len(missing)} images, such as {missing[0]}.")
    return {name: value for name, value in keys.items() if value is not None}
