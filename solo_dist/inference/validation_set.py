"""Whether validation shards fit a model: their categories, and how images of more than 8 bits became 8 bits."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from solo_dist.data.pixel_range import PixelRange
from solo_dist.data.schema import Manifest
from solo_dist.errors import ConfigError

log = logging.getLogger(__name__)


def categories_of_classes(
    manifest: Manifest, trained: Sequence[Mapping[str, Any]], pixel_range: PixelRange | None, source: str
) -> list[dict[str, Any]]:
    """The model's categories with the ids that they have in the validation shards.

    Validation shards may lack categories, which then have no metric. Categories are the same if their names are.

    Args:
      manifest: of the validation shards.
      trained: {"id", "name"} of each class of the model.
      pixel_range: of the images that the model was trained on.
      source: what the model was trained on, for messages.
    Returns:
      {"id", "name"} of each class; the id is None if the shards do not have the category.
    Raises:
      ConfigError: they have a category that the model does not know, or another pixel range.
    """
    if manifest.pixel_range != pixel_range and manifest.pixel_range is not None:
        wanted = "--pixel_range={:g}:{:g}".format(*pixel_range) if pixel_range else "images of 8 bits"
        raise ConfigError(
            f"{manifest.folder} has images of more than 8 bits, of which {manifest.pixel_range} became black and "
            f"white; shard it as {source} was, with {wanted}."
        )
    if manifest.categories == list(trained):
        return manifest.categories
    # Names that occur twice say nothing; then ids have to agree as well.
    key = "name" if _unique(trained, "name") and _unique(manifest.categories, "name") else "id"
    ids = {category[key]: category["id"] for category in manifest.categories}
    names = {category[key]: category["name"] for category in trained}
    unknown = [c["name"] for c in manifest.categories if names.get(c[key]) != c["name"]]
    if unknown:
        raise ConfigError(
            f"The categories of {manifest.folder} are not those of {source}, which has no {', '.join(unknown[:5])}; "
            "shard both from jsons with the same categories."
        )
    lacking = [category["name"] for category in trained if category[key] not in ids]
    if lacking:
        log.warning("no metric for %s: %s has no such category", ", ".join(lacking), manifest.folder)
    return [{**category, "id": ids.get(category[key])} for category in trained]


def _unique(categories: Sequence[Mapping[str, Any]], key: str) -> bool:
    return len({category[key] for category in categories}) == len(categories)
