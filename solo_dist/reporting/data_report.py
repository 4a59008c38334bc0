"""The report of a data set: what is in its shards, what may be wrong with it, and which images leak between splits.

path = write_data_report(["mine/shards/train", "mine/shards/validation"], "mine/data_report")
"""

from collections.abc import Mapping, Sequence
from typing import Any

import PIL.Image

from solo_dist.data.input.in_order import read_images
from solo_dist.data.sharding.reasons import remedy
from solo_dist.reporting import data_sections, drawing
from solo_dist.reporting.data_counts import count_categories, count_split
from solo_dist.reporting.data_files import FILES, write_files
from solo_dist.reporting.galleries import COLOURS, CaptionedImage
from solo_dist.reporting.grid_facts import compare_grids
from solo_dist.reporting.near_copies import ImageOf, NearCopies, find_near_copies
from solo_dist.reporting.page import write_page
from solo_dist.reporting.splits import Split, read_splits
from solo_dist.reporting.suspicious import Found, Suspicion, explanation, find_suspicious

_DENSITIES = (1.0, 1.5, 2.0)
_SHOWN_OF_A_KIND = 12
_SHOWN_COPIES = 12
_SIDE = 300


def write_data_report(folders: Sequence[str], output: str) -> str:
    """Writes the page and its files into a folder; returns the path of the page.

    Args:
      folders: of shards, the one that is trained on first; paths or URLs.
      output: folder of the page, a path or URL.
    Raises:
      ConfigError, ShardError, AnnotationsError: a folder cannot be read.
    """
    splits, names = read_splits(folders)
    output = output.rstrip("/")
    counts, categories = [count_split(split) for split in splits], count_categories(splits, names)
    copies, found = find_near_copies(splits), find_suspicious(splits)
    grids = [compare_grids(s.annotations, s.manifest.canvas, s.manifest.grid, _DENSITIES) for s in splits]
    write_files(output, splits, counts, categories, copies, found, grids)
    wanted = _wanted_images(splits, copies, found)
    pixels = [read_images(split.manifest, ids) for split, ids in zip(splits, wanted, strict=True)]
    return write_page(
        output,
        "data.html",
        title="What is in the data",
        subtitle=", ".join(folders),
        headlines=data_sections.headlines(counts, categories, copies, found, grids),
        copies=copies,
        leaks=sum(pair.leak for pair in copies.pairs),
        copy_pictures=_copy_pictures(splits, copies, pixels),
        suspicious=_suspicious_rows(splits, names, found, pixels),
        rejected=[
            (split.name, reason, number, remedy(reason))
            for split in splits
            for reason, number in split.manifest.rejected.items()
        ],
        files=FILES,
        **data_sections.of_counts(splits, counts, categories),
        **data_sections.of_grids(splits, grids),
    )


def _wanted_images(splits: Sequence[Split], copies: NearCopies, found: Found) -> list[set[int]]:
    """Ids of the images that the page shows, for each split."""
    wanted: list[set[int]] = [set() for _ in splits]
    for pair in copies.pairs[:_SHOWN_COPIES]:
        for image in (pair.one, pair.other):
            wanted[image.split].add(image.image_id)
    for group in found.values():
        for number, one in _drawable(group):
            wanted[number].add(_image_of(splits[number], one)["id"])
    return wanted


def _drawable(group: Sequence[tuple[int, Suspicion]]) -> list[tuple[int, Suspicion]]:
    return [(number, one) for number, one in group if one.truth >= 0][:_SHOWN_OF_A_KIND]


def _image_of(split: Split, one: Suspicion) -> Mapping[str, Any]:
    return split.images[split.truths.image[one.truth]]


def _copy_pictures(
    splits: Sequence[Split], copies: NearCopies, pixels: Sequence[Mapping[int, Any]]
) -> list[tuple[bool, list[CaptionedImage]]]:
    """Pairs of images that show nearly the same; True for a leak."""
    file_names = [{image["id"]: image["file_name"] for image in split.images} for split in splits]

    def captioned(image: ImageOf, leak: bool) -> CaptionedImage:
        small = PIL.Image.fromarray(drawing.scaled(pixels[image.split][image.image_id], _SIDE))
        caption = f"{splits[image.split].name}: {file_names[image.split][image.image_id]}"
        return CaptionedImage(drawing.url(small), "missed" if leak else "crowd", caption)

    return [
        (pair.leak, [captioned(image, pair.leak) for image in (pair.one, pair.other)])
        for pair in copies.pairs[:_SHOWN_COPIES]
    ]


def _suspicious_rows(
    splits: Sequence[Split], categories: Sequence[str], found: Found, pixels: Sequence[Mapping[int, Any]]
) -> list[dict[str, Any]]:
    """A row for each kind: what it is, how many, close-ups, and images by name if nothing can be drawn."""
    rows = []
    for kind, group in found.items():
        close_ups = []
        for number, one in _drawable(group):
            split = splits[number]
            whole, mask = pixels[number][_image_of(split, one)["id"]], split.truths.masks[one.truth]
            texts = (categories[split.truths.category[one.truth]], one.detail, one.file)
            image = drawing.url(drawing.close_up(whole, mask, COLOURS["confused"]))
            close_ups.append(CaptionedImage(image, "confused", ", ".join(filter(None, texts))))
        files = dict.fromkeys(one.file for _, one in group)
        rows.append(
            {
                "kind": kind,
                "count": len(group),
                "explanation": explanation(kind),
                "close_ups": close_ups,
                "files": [] if close_ups else list(files)[:_SHOWN_OF_A_KIND],
            }
        )
    return rows
