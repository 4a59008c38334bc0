"""A finding about the machine, and the page of all of them."""

import dataclasses
import textwrap
from collections.abc import Iterable
from typing import Literal

_WIDTH = 110
_INDENT = 28


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found about a subject, and what to do about it."""

    subject: str
    text: str
    level: Literal["ok", "note", "PROBLEM"] = "ok"
    """note: it works, but slower or not everywhere. PROBLEM: something will not work."""
    remedy: str = ""


def as_text(finding: Finding) -> str:
    """The lines to print, the remedy on lines of its own."""
    head = f"  {finding.level:<10}{finding.subject:<{_INDENT - 12}}"
    lines = textwrap.wrap(head + finding.text, _WIDTH, subsequent_indent=" " * _INDENT, break_long_words=False)
    if finding.remedy:
        lines += textwrap.wrap(
            "-> " + finding.remedy,
            _WIDTH,
            initial_indent=" " * _INDENT,
            subsequent_indent=" " * (_INDENT + 3),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def verdict(findings: Iterable[Finding]) -> str:
    """One line about all findings."""
    levels = [finding.level for finding in findings]
    problems, notes = levels.count("PROBLEM"), levels.count("note")
    return f"{problems or 'No'} problem{'s' * (problems != 1)}, {notes or 'no'} note{'s' * (notes != 1)}."
