"""Choosing, renaming and merging categories of a dataset."""

import dataclasses
from collections.abc import Mapping, Sequence

from solo_dist.errors import ConfigError, Unusable
from solo_dist.importing.dataset import Dataset, Instance

BACKGROUND = ("_background_", "__background__")
"""Names that LabelMe and its converters give to what is no object."""


def parse_renames(texts: Sequence[str]) -> dict[str, str]:
    """["old:new", ...] -> {old: new}. Raises ConfigError."""
    pairs = [text.rpartition(":") for text in texts]
    for text, (old, _, new) in zip(texts, pairs, strict=True):
        if not old.strip() or not new.strip():
            raise ConfigError(f"--rename={text} must be OLD:NEW, several of them with commas between.")
    return {old.strip(): new.strip() for old, _, new in pairs}


def with_categories(dataset: Dataset, renames: Mapping[str, str], chosen: Sequence[str]) -> Dataset:
    """The dataset with other categories.

    Args:
      dataset: the instances of its images are replaced.
      renames: new names by old ones; categories that get the same name are merged.
      chosen: new names of the categories to keep, in the order of their ids; empty: all.
    Raises:
      ConfigError: a name is not in the dataset.
    """
    _check(renames, dataset.categories, "rename")
    names = list(dict.fromkeys(renames.get(name, name) for name in dataset.categories))
    _check(chosen, names, "categories")
    kept = list(chosen) or names
    for image in dataset.images:
        renamed = [
            dataclasses.replace(one, category=renames.get(one.category, one.category)) for one in image.instances
        ]
        for instance in renamed:
            if instance.category not in kept:
                dataset.report.leave_out(image.path, Unusable("category is not in --categories", instance.category))
        image.instances = _unique([instance for instance in renamed if instance.category in kept])
    return Dataset(dataset.images, kept, dataset.report)


def _unique(instances: list[Instance]) -> list[Instance]:
    """Removes duplicate crowds.

    An ignored region is stored as a crowd of every category, so merging two categories would store it twice.
    """
    seen: dict[tuple, Instance] = {}
    for index, instance in enumerate(instances):
        key = (instance.category, bytes(instance.rle["counts"])) if instance.crowd else (index,)
        seen.setdefault(key, instance)
    return list(seen.values())


def _check(wanted: Sequence[str] | Mapping[str, str], known: Sequence[str], option: str) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(f"--{option}: there is no category {', '.join(unknown)}; there are {', '.join(known)}.")
