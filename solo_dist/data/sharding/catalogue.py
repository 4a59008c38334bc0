"""Images and categories of annotations, of one source or several, and raw annotations one by one.

A file that is not COCO raises CocoError. An entry that cannot be used becomes a Rejection, and the others are read.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from solo_dist.coco_values import identifier
from solo_dist.data.sharding.annotation import NUMBER
from solo_dist.data.sharding.categories import Categories, merged_categories
from solo_dist.data.sharding.coco_image import CocoImage, read_image
from solo_dist.data.sharding.coco_json import CocoError, stream_arrays
from solo_dist.data.sharding.rejection import Rejection
from solo_dist.data.sharding.sources import Source
from solo_dist.data.sharding.tar_files import Place, is_tar, read_index, within_folder
from solo_dist.errors import Unusable


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Images and categories of a COCO file, without its annotations."""

    images: list[CocoImage]
    categories: list[dict[str, Any]]
    """{"id", "name"}, by ascending id: the position is the class, whatever the order in the file."""
    rejected: list[Rejection]


class CatalogueBuilder:
    """Collects the images and categories of sources, entry by entry, in the order of sources and files.

    Ids are valid within one source. Images keep theirs, except those whose id an image of an earlier source has.
    """

    def __init__(self, sources: Sequence[Source]):
        self.rejected: list[Rejection] = []
        self._sources = sources
        self._images: list[dict[int, CocoImage]] = [{} for _ in sources]
        self._categories: list[list[Any]] = [[] for _ in sources]
        self._tar: tuple[int, str, dict[str, Place]] = (-1, "", {})
        """The source whose tar file of images was read last, the folder that all files are in, and those by name."""

    def add(self, source: int, name: str, entry: Any) -> None:
        """Takes an entry of `images` or `categories`, whichever `name` says. Raises TarError, StoreError."""
        if name == "categories":
            self._categories[source].append(entry)
            return
        try:
            image = read_image(entry)
            if image.id in self._images[source]:
                raise Unusable("duplicate image id")
            self._images[source][image.id] = self._placed(image, source)
        except Unusable as error:
            known = entry if isinstance(entry, dict) else {}
            file = str(known.get("file_name", ""))
            self.rejected.append(Rejection("image", known.get("id"), file, str(error), error.detail))

    def _placed(self, image: CocoImage, source: int) -> CocoImage:
        root = self._sources[source].images
        if not is_tar(root):
            return dataclasses.replace(image, source=source) if source else image
        if self._tar[0] != source:
            self._tar = (source, *within_folder(read_index(root)))
        _, folder, places = self._tar
        name = image.file_name.removeprefix("./").removeprefix(folder)
        return dataclasses.replace(image, source=source, place=places.get(name))

    def has_images(self) -> bool:
        """Whether there is an image yet that can be used."""
        return any(self._images)

    def images(self) -> list[CocoImage]:
        """All images that can be used; all have been added.

        Raises:
          CocoError: there is none, or two sources have an image of one name.
        """
        if not self.has_images():
            why = self.rejected[0].reason if self.rejected else "its images list is empty"
            raise CocoError(f"{self._sources[0].annotations} has no usable image; {why}.")
        if len(self._sources) > 1:
            self._check_names()
            self._renumber()
        return [image for of_source in self._images for image in of_source.values()]

    def images_of(self, source: int) -> Mapping[int, CocoImage]:
        """The images of a source, by their ids in it."""
        return self._images[source]

    def categories(self, named: Sequence[set[int]] | None) -> Categories:
        """As `merged_categories`; all have been added."""
        return merged_categories(self._categories, [source.annotations for source in self._sources], named)

    def _check_names(self) -> None:
        first: dict[str, int] = {}
        for number, images in enumerate(self._images):
            for image in images.values():
                other = first.setdefault(image.file_name, number)
                if other != number:
                    raise _same_name(image.file_name, self._sources[other], self._sources[number])

    def _renumber(self) -> None:
        unused = max(image.id for images in self._images for image in images.values()) + 1
        taken: set[int] = set()
        for images in self._images:
            for number, image in images.items():
                if image.id in taken:
                    images[number] = dataclasses.replace(image, id=unused)
                    unused += 1
                taken.add(images[number].id)


def _same_name(name: str, one: Source, other: Source) -> CocoError:
    if one.images == other.images:
        return CocoError(
            f"{one.annotations} and {other.annotations} both have the image {name} of {one.images}; solo-dist import "
            "--format=coco merges them."
        )
    return CocoError(
        f"{one.images} and {other.images} both have an image {name}, and names have to differ. Rename one, or give a "
        "folder above both as --images, with file_name relative to it."
    )


def read_catalogue(path: str, drop_empty_categories: bool = False) -> Catalogue:
    """Reads images and categories; entries of images that cannot be used are in `rejected`.

    Args:
      path: of the json.
      drop_empty_categories: leave out the categories that no annotation names.
    Raises:
      CocoError: the file does not exist, is not json, or is not COCO instances.
    """
    builder = CatalogueBuilder([Source(path, "")])
    named: set[int] = set()
    for name, entry in stream_arrays(path):
        if name != "annotations":
            builder.add(0, name, entry)
        elif drop_empty_categories:
            named |= named_category(entry)
    images, categories = builder.images(), builder.categories([named] if drop_empty_categories else None)
    return Catalogue(images, categories.entries, builder.rejected)


def read_images(sources: Sequence[Source]) -> CatalogueBuilder:
    """The images and categories of sources. Raises CocoError, TarError, StoreError."""
    builder = CatalogueBuilder(sources)
    for number, source in enumerate(sources):
        for name, entry in source.stream():
            if name != "annotations":
                builder.add(number, name, entry)
    return builder


def named_category(annotation: Any) -> set[int]:
    """The id of the category of a raw annotation; nothing if it has none that can be one."""
    known = annotation if isinstance(annotation, dict) else {}
    try:
        return {identifier(known.get("category_id"), "category_id")}
    except Unusable:
        return set()


def read_annotations(path: str, images: Mapping[int, CocoImage]) -> Iterator[dict[str, Any] | Rejection]:
    """Annotations in the order of the file, raw but with NUMBER and a usable image_id, or a Rejection for each."""
    entries = (entry for name, entry in stream_arrays(path) if name == "annotations")
    for count, entry in enumerate(entries, 1):
        yield numbered(entry, count, images)


def numbered(entry: Any, number: int, images: Mapping[int, CocoImage]) -> dict[str, Any] | Rejection:
    """A raw annotation with its NUMBER and the id of its image, or why it belongs to none of the images.

    Args:
      entry: of the file.
      number: for NUMBER.
      images: by their ids in the file.
    """
    if not isinstance(entry, dict):
        return Rejection("annotation", None, "", "annotation is not an object")
    try:
        image = identifier(entry.get("image_id"), "image_id")
    except Unusable as error:
        return Rejection("annotation", entry.get("id"), "", str(error), error.detail)
    if image not in images:
        return Rejection("annotation", entry.get("id"), "", "no such image", f"image_id {image}")
    return {**entry, "image_id": images[image].id, NUMBER: number}
