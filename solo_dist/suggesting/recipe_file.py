"""The text of a suggested recipe: a Python file that sets each field below the reason for its value."""

import textwrap
from collections.abc import Sequence
from typing import Any

from solo_dist.suggesting.choices import Choice

_WIDTH = 100
_INDENT = "    "


def recipe_text(summary: str, command: str, base: str, choices: Sequence[Choice]) -> str:
    """A file that `--config=PATH` loads.

    Args:
      summary: for the docstring, several lines.
      command: that trains with it.
      base: name of the recipe that it starts from.
      choices: in the order of the file; the first one is the reason for the base.
    """
    body = [*_comment(choices[0].reason), f"config = recipes.get({_literal(base)})", *_assignments(choices[0])]
    for choice in choices[1:]:
        body += [*_comment(choice.reason), *_assignments(choice)]
    lines = [
        '"""' + _escaped(summary),
        "",
        _INDENT + _escaped(command),
        '"""',
        "",
        "from solo_dist import recipes",
        "from solo_dist.config import Config",
        "",
        "",
        "def get_config() -> Config:",
        f'{_INDENT}"""The recipe."""',
        *(_INDENT + line for line in body),
        f"{_INDENT}return config",
    ]
    return "\n".join(lines) + "\n"


def _comment(reason: str) -> list[str]:
    text = f"{reason[0].upper()}{reason[1:]}."
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _assignments(choice: Choice) -> list[str]:
    return [f"config.{name} = {_literal(value)}" for name, value in choice.fields.items()]


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    return f'"{_escaped(value)}"' if isinstance(value, str) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
