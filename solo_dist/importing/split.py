"""Splits a COCO json into train, validation and test with similar shares of each category, by a seed.

Images of one group (a folder, a prefix, a value of a table) and near duplicates go to the same subset. Groups are
assigned one by one, those of the rarest category first, each to the subset that still lacks most of that category
(iterative stratification: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD
2011; here for groups of images). The result depends on seed, names and annotations only, never on the order in a file.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from solo_dist.coco_values import boolean, identifier_or_name, name_of
from solo_dist.errors import Unusable

SUBSETS = ("train", "validation", "test")
_WITHOUT_OBJECTS = "(no object)"
"""Stands for a category that images without annotations have, so that they are spread too."""


@dataclasses.dataclass(frozen=True)
class Item:
    """An image as the splitter sees it."""

    name: str
    """Its file name, different from all others."""
    categories: Mapping[str, int]
    """Objects of each category."""


def split(
    items: Sequence[Item], together: Iterable[Sequence[str]], shares: Sequence[float], seed: int
) -> dict[str, int]:
    """Index of the subset, 0 to len(shares) - 1, for each name.

    Args:
      items: the images.
      together: names that must be in one subset; the lists may overlap, and are joined if they do.
      shares: the part of the images for each subset; they add up to 1.
      seed: a different seed gives a different split.
    """
    groups = _Groups(items, joined([item.name for item in items], together), seed)
    wanted = np.outer(shares, groups.totals)
    wanted_images = np.array(shares) * len(items)
    subset_of: dict[int, int] = {}
    remaining = set(range(len(groups.names)))
    while remaining:
        column = groups.rarest(remaining)
        with_it = [group for group in remaining if groups.counts[group, column]]
        for group in sorted(with_it, key=lambda one: (-groups.counts[one, column], groups.order[one])):
            chosen = _neediest(wanted[:, column], wanted_images, shares)
            subset_of[group] = chosen
            wanted[chosen] -= groups.counts[group]
            wanted_images[chosen] -= len(groups.names[group])
            remaining.discard(group)
    return {name: subset_of[group] for group, names in enumerate(groups.names) for name in names}


def _neediest(wanted: np.ndarray, wanted_images: np.ndarray, shares: Sequence[float]) -> int:
    """The subset that lacks most of a category, and if several do, most images. One with a share of 0 gets none."""
    possible = [index for index, share in enumerate(shares) if share > 0]
    return max(
        possible, key=lambda index: (round(float(wanted[index]), 9), round(float(wanted_images[index]), 9), -index)
    )


class _Groups:
    """Groups of images, and how many of their images have each category. `order` depends on seed and names only."""

    def __init__(self, items: Sequence[Item], names: Sequence[Sequence[str]], seed: int):
        self.names = sorted((sorted(group) for group in names), key=lambda group: group[0])
        categories_of = {item.name: item.categories or {_WITHOUT_OBJECTS: 1} for item in items}
        self._categories = sorted({category for one in categories_of.values() for category in one})
        columns = {category: column for column, category in enumerate(self._categories)}
        self.counts = np.zeros((len(self.names), len(columns)), np.int64)
        """Images of each group that have each category, [groups, categories]."""
        for group, members in enumerate(self.names):
            for name in members:
                for category in categories_of[name]:
                    self.counts[group, columns[category]] += 1
        self.totals = self.counts.sum(axis=0)
        self.order = [hashlib.sha256(f"{seed}/{group[0]}".encode()).hexdigest() for group in self.names]

    def rarest(self, remaining: Iterable[int]) -> int:
        """Column of the category that the fewest remaining images have, of those that any of them has."""
        left = self.counts[sorted(remaining)].sum(axis=0)
        return min(np.flatnonzero(left), key=lambda column: (left[column], self._categories[column]))


def joined(names: Sequence[str], together: Iterable[Sequence[str]]) -> list[list[str]]:
    """All names in disjoint lists. Names that share a list of `together`, directly or through others, share one."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for group in together:
        for name in group[1:]:
            parent[root(name)] = root(group[0])
    lists: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        lists[root(name)].append(name)
    return list(lists.values())


def normal_id(entry: Mapping[str, Any], field: str) -> int | str | None:
    """An id of a COCO json in one form, for 3 and "3" are the same; None: it is missing, or no id."""
    try:
        return identifier_or_name(entry.get(field), field)
    except Unusable:
        return None


def names_of(content: dict[str, Any]) -> dict[int | str | None, str]:
    """Names of the categories by id."""
    return {normal_id(entry, "id"): name_of(entry) for entry in content["categories"]}


def category_of(annotation: Mapping[str, Any], names: Mapping[int | str | None, str]) -> str | None:
    """Name of an object's category; None: it is a crowd, or its category is not listed."""
    try:
        is_object = not boolean(annotation.get("iscrowd"), "iscrowd")
    except Unusable:
        return None
    return names.get(normal_id(annotation, "category_id")) if is_object else None


def items_of(content: dict[str, Any]) -> list[Item]:
    """The images of a COCO json with the categories of their objects; crowds do not count."""
    names = names_of(content)
    counts: dict[Any, collections.Counter] = collections.defaultdict(collections.Counter)
    for annotation in content["annotations"]:
        if category := category_of(annotation, names):
            counts[normal_id(annotation, "image_id")][category] += 1
    return [Item(image["file_name"], counts[normal_id(image, "id")]) for image in content["images"]]


def parts_of(
    content: dict[str, Any], subset_of: Mapping[str, int], count: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A COCO json for each subset, with all categories and everything else of the first; annotations of no image."""
    parts: list[dict[str, Any]] = [{**content, "images": [], "annotations": []} for _ in range(count)]
    part_of = {normal_id(image, "id"): parts[subset_of[image["file_name"]]] for image in content["images"]}
    for image in content["images"]:
        part_of[normal_id(image, "id")]["images"].append(image)
    of_none: list[dict[str, Any]] = []
    for annotation in content["annotations"]:
        part = part_of.get(normal_id(annotation, "image_id"))
        (of_none if part is None else part["annotations"]).append(annotation)
    return parts, of_none
