"""The categories of a data set. Those of several sources are one if they have the same name, as when importing.

Classes are in the order of ids. An id is that of the first source which has it; a category of a later source whose id
is taken by another one gets a new id, above all others.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from solo_dist.coco_values import identifier, name_of
from solo_dist.data.sharding.coco_json import CocoError
from solo_dist.errors import Unusable

_FREQUENCIES = ("r", "c", "f")


@dataclasses.dataclass(frozen=True)
class Categories:
    """Categories of all sources together."""

    entries: list[dict[str, Any]]
    """{"id", "name"}, by ascending id: the position is the class, whatever the order in files."""
    ids: list[dict[int, int]]
    """For each source, the id in `entries` by the id in the source."""
    frequencies: dict[int, str]
    """LVIS: r, c or f, for rare, common and frequent, by id; empty if a category has none."""


def merged_categories(
    of_sources: Sequence[list[Any]], paths: Sequence[str], named: Sequence[set[int]] | None = None
) -> Categories:
    """The categories of sources.

    Args:
      of_sources: entries of `categories` of each.
      paths: of their annotations.
      named: ids that annotations of each source name, to leave out the others; None: all are kept.
    Raises:
      CocoError: an entry is not usable, sources contradict each other, or no category is left.
    """
    names = [_names(entries, path) for entries, path in zip(of_sources, paths, strict=True)]
    if len(paths) > 1:
        _check_names(names, paths)
    found, ids = _merged(names)
    if named is not None:
        kept = {
            of_source[number]
            for of_source, some in zip(ids, named, strict=True)
            for number in some
            if number in of_source
        }
        if not kept:
            raise CocoError(f"{paths[0]}: no annotation is of one of its categories.")
        found = {number: name for number, name in found.items() if number in kept}
        ids = [{number: new for number, new in of_source.items() if new in kept} for of_source in ids]
    entries = [{"id": number, "name": name} for number, name in sorted(found.items())]
    return Categories(entries, ids, _frequencies(of_sources, ids, found, paths))


def _merged(names: Sequence[dict[int, str]]) -> tuple[dict[int, str], list[dict[int, int]]]:
    """Names by id, and the ids of each source's ids. In a single source, names may repeat."""
    unused = max(max(of_source) for of_source in names) + 1
    found: dict[int, str] = {}
    id_of: dict[Any, int] = {}
    ids: list[dict[int, int]] = []
    for of_source in names:
        ids.append({})
        for number, name in sorted(of_source.items()):
            key = name if len(names) > 1 else number
            if key not in id_of:
                id_of[key], unused = (number, unused) if number not in found else (unused, unused + 1)
                found[id_of[key]] = name
            ids[-1][number] = id_of[key]
    return found, ids


def _names(entries: list[Any], path: str) -> dict[int, str]:
    """Names of the categories of a source by id."""
    names: dict[int, str] = {}
    for entry in entries:
        try:
            category, name = identifier(entry["id"], "id"), name_of(entry)
        except (Unusable, TypeError, KeyError) as error:
            raise CocoError(
                f"{path}: the category {json.dumps(entry)[:100]} needs an integer id and a name."
            ) from error
        if category in names:
            raise CocoError(f"{path}: two categories have the id {category}.")
        names[category] = name
    if not names:
        raise CocoError(f"{path} has no categories; add at least one with an id and a name.")
    return names


def _check_names(names: Sequence[dict[int, str]], paths: Sequence[str]) -> None:
    """Raises CocoError if a name does not say which category is meant."""
    spelled: dict[str, tuple[str, str]] = {}
    for of_source, path in zip(names, paths, strict=True):
        for name in of_source.values():
            if list(of_source.values()).count(name) > 1:
                raise CocoError(
                    f"{path}: two categories have the name {name!r}, and several files are merged by names; rename one."
                )
            other, where = spelled.setdefault(" ".join(name.lower().split()), (name, path))
            if other != name:
                raise CocoError(
                    f"{where} has the category {other!r}, and {path} has {name!r}: give both the same name if they are "
                    "one, or names that differ in more than case and spaces."
                )


def _frequencies(
    of_sources: Sequence[list[Any]], ids: Sequence[dict[int, int]], found: dict[int, str], paths: Sequence[str]
) -> dict[int, str]:
    known: dict[int, tuple[str, str]] = {}
    for entries, of_source, path in zip(of_sources, ids, paths, strict=True):
        for entry in entries:
            number, kind = of_source.get(identifier(entry["id"], "id")), entry.get("frequency")
            if number is None or kind not in _FREQUENCIES:
                continue
            other, where = known.setdefault(number, (kind, path))
            if other != kind:
                raise CocoError(
                    f"The category {found[number]!r} has the frequency {other} in {where} and {kind} in {path}; make "
                    "them equal."
                )
    return {number: kind for number, (kind, _) in known.items()} if set(known) == set(found) else {}
