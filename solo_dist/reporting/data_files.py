"""The numbers of the data report as files: data.json, and tables as csv."""

import dataclasses
from collections.abc import Sequence

from solo_dist.reporting.data_counts import CategoryCounts, SplitCounts
from solo_dist.reporting.grid_facts import GridCounts
from solo_dist.reporting.near_copies import ImageOf, NearCopies
from solo_dist.reporting.result_files import write_csv, write_json
from solo_dist.reporting.splits import Split
from solo_dist.reporting.suspicious import Found

FILES = ("data.json", "categories.csv", "images.csv", "suspicious.csv", "near_copies.csv")


def write_files(
    folder: str,
    splits: Sequence[Split],
    counts: Sequence[SplitCounts],
    categories: Sequence[CategoryCounts],
    copies: NearCopies,
    found: Found,
    grids: Sequence[Sequence[GridCounts]],
) -> None:
    """Writes FILES into a folder; counts and grids are those of each split."""
    parts = [
        {
            **one._asdict(),
            "folder": split.manifest.folder,
            "rejected": split.manifest.rejected,
            "grids": [dataclasses.asdict(row) for row in rows],
        }
        for split, one, rows in zip(splits, counts, grids, strict=True)
    ]
    content = {
        "splits": parts,
        "categories": [dataclasses.asdict(row) for row in categories],
        "leaks": sum(pair.leak for pair in copies.pairs),
        "near_copies": len(copies.pairs),
        "suspicious": {kind: len(group) for kind, group in found.items()},
    }
    write_json(f"{folder}/data.json", content)
    _write_categories(folder, splits, categories)
    _write_images(folder, splits)
    _write_suspicious(folder, splits, found)
    _write_near_copies(folder, splits, copies)


def _write_categories(folder: str, splits: Sequence[Split], categories: Sequence[CategoryCounts]) -> None:
    names = [split.name for split in splits]
    columns = [f"{what} {name}" for what in ("instances", "images") for name in names]
    rows = ([row.name, *row.instances, *row.images, row.crowds, row.side] for row in categories)
    write_csv(f"{folder}/categories.csv", ["category", *columns, "crowds", "median_side"], rows)


def _write_images(folder: str, splits: Sequence[Split]) -> None:
    rows = (
        [split.name, image["id"], image["file_name"], image["height"], image["width"], number]
        for split in splits
        for image, number in zip(split.images, split.instances_of_image, strict=True)
    )
    write_csv(f"{folder}/images.csv", ("split", "image_id", "file_name", "height", "width", "instances"), rows)


def _write_suspicious(folder: str, splits: Sequence[Split], found: Found) -> None:
    rows = (
        [kind, splits[number].name, one.file, splits[number].entry[one.truth] if one.truth >= 0 else None, one.detail]
        for kind, group in found.items()
        for number, one in group
    )
    write_csv(f"{folder}/suspicious.csv", ("kind", "split", "file_name", "annotation", "detail"), rows)


def _write_near_copies(folder: str, splits: Sequence[Split], copies: NearCopies) -> None:
    names = [{image["id"]: image["file_name"] for image in split.images} for split in splits]

    def cells(image: ImageOf) -> list[str]:
        return [splits[image.split].name, names[image.split][image.image_id]]

    rows = ([pair.leak, *cells(pair.one), *cells(pair.other), pair.likeness] for pair in copies.pairs)
    head = ("leak", "split", "file_name", "other_split", "other_file_name", "likeness")
    write_csv(f"{folder}/near_copies.csv", head, rows)
