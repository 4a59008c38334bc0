"""What an import left out or changed, each entry with its file and a reason that can be counted."""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

from solo_dist.errors import Unusable

_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Entry:
    """Something that was left out or changed."""

    file: str
    """The annotation file, or the image if there is no file of its own."""
    reason: str
    detail: str = ""


class Report:
    """Collects entries while files are read."""

    def __init__(self) -> None:
        self.left_out: list[Entry] = []
        self.changed: list[Entry] = []

    def leave_out(self, file: str, error: Unusable) -> None:
        """Counts an annotation, or a whole image, that is not in the dataset."""
        self.left_out.append(Entry(file, error.reason, error.detail))

    def change(self, file: str, reason: str, detail: str = "") -> None:
        """Counts an annotation or an image that is in the dataset, but not as it was written."""
        self.changed.append(Entry(file, reason, detail))

    def as_json(self) -> dict[str, Any]:
        """Every entry, and how many there are of each reason."""
        return {
            name: {
                "counts": dict(_counts(entries)),
                "entries": [dataclasses.asdict(entry) for entry in entries],
            }
            for name, entries in (("left_out", self.left_out), ("changed", self.changed))
        }

    def lines(self) -> list[str]:
        """A line for each reason: how often, and the first files."""
        return [
            *(f"left out: {line}" for line in _told(self.left_out)),
            *(f"changed: {line}" for line in _told(self.changed)),
        ]


def _counts(entries: Iterable[Entry]) -> list[tuple[str, int]]:
    """Reasons with their counts, the most frequent first; equal ones by name."""
    counts = collections.Counter(entry.reason for entry in entries)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _told(entries: list[Entry]) -> list[str]:
    lines = []
    for reason, count in _counts(entries):
        mine = [entry for entry in entries if entry.reason == reason]
        examples = [f"{entry.file} ({entry.detail})" if entry.detail else entry.file for entry in mine[:_EXAMPLES]]
        lines.append(f"{count} x {reason}; for example {', '.join(dict.fromkeys(examples))}")
    return lines
