"""Reads a COCO json, splits it, and writes a json for each subset with a report."""

import collections
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from solo_dist.coco_values import identifier_or_name, name_of, shown
from solo_dist.errors import ConfigError, DataError, Unusable
from solo_dist.importing.image_files import real_path
from solo_dist.importing.image_groups import groups_by
from solo_dist.importing.inputs import load_json
from solo_dist.importing.near_duplicates import near_duplicates
from solo_dist.importing.split import SUBSETS, category_of, items_of, joined, names_of, normal_id, parts_of, split
from solo_dist.storage import file_io

REPORT = "split_report.json"


def split_file(
    annotations: str, output: str, images: str, shares: Sequence[float], group: str, seed: int, look: bool
) -> dict[str, Any]:
    """Writes train.json, validation.json, test.json (those with a share) and the report, which is returned.

    Args:
      annotations: COCO json; its other fields are kept.
      output: folder.
      images: folder of the images, for near duplicates.
      shares: of the images for train, validation and test; in any unit, 8,1,1 for example.
      group: see image_groups.py.
      seed: a different seed gives a different split.
      look: whether to look for near duplicates.
    Raises:
      ConfigError: an option cannot work, or the json would be replaced by a part of it.
      DataError: the json is not COCO instances, or two of its images have the same name or id.
    """
    relative = _relative(shares)
    targets = {
        name: f"{output.rstrip('/')}/{name}.json" for name, share in zip(SUBSETS, relative, strict=False) if share > 0
    }
    _check_targets([*targets.values(), f"{output.rstrip('/')}/{REPORT}"], annotations)
    content = _checked(load_json(annotations, "annotations"), annotations)
    items = items_of(content)
    names = [item.name for item in items]
    together = groups_by(group, names)
    found, unreadable = near_duplicates([f"{images.rstrip('/')}/{name}" for name in names]) if look else ([], [])
    pairs = [[names[one], names[other]] for one, other in found]
    subset_of = split(items, [*together, *pairs], relative, seed)
    parts, of_none = parts_of(content, subset_of, len(relative))
    report: dict[str, Any] = {
        "annotations": annotations,
        "seed": seed,
        "group": group,
        "subsets": {},
        "near_duplicates": [sorted(one) for one in joined(names, pairs) if len(one) > 1] if look else None,
        "unreadable_images": [names[index] for index in unreadable],
        "annotations_of_no_image": len(of_none),
        "earlier_parts": _earlier_parts(output, targets),
        "largest_group": max(map(len, joined(names, [*together, *pairs]))),
    }
    for name, share, part in zip(SUBSETS, relative, parts, strict=False):
        if share > 0:
            file_io.write(targets[name], json.dumps(part).encode())
            report["subsets"][name] = {"share": share, **_numbers(part)}
    file_io.write(f"{output.rstrip('/')}/{REPORT}", json.dumps(report, indent=1).encode())
    return report


def _relative(shares: Sequence[float]) -> list[float]:
    if not 2 <= len(shares) <= len(SUBSETS) or min(shares) < 0 or sum(share > 0 for share in shares) < 2:
        given = ",".join(f"{share:g}" for share in shares)
        raise ConfigError(f"--shares={given} must be two or three numbers, for example 0.8,0.1,0.1 or 0.8,0.2.")
    return [share / sum(shares) for share in shares]


def _check_targets(targets: Sequence[str], annotations: str) -> None:
    """Raises ConfigError if the json is one of the files to write: the next run would split a part of it."""
    for target in targets:
        if real_path(target) == real_path(annotations):
            folder = posixpath.dirname(target)
            raise ConfigError(
                f"--output={folder}: {target} would replace --annotations; choose another folder, {folder}/splits "
                "for example."
            )


def _earlier_parts(output: str, targets: Mapping[str, str]) -> list[str]:
    """Parts in the folder that this split does not write: another split left them there."""
    others = [f"{output.rstrip('/')}/{name}.json" for name in SUBSETS if name not in targets]
    return [path for path in others if file_io.exists(path)]


def _checked(content: Any, path: str) -> dict[str, Any]:
    """The json if it can be split. Raises DataError."""
    for name in ("images", "annotations", "categories"):
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{path} is not COCO instances: it has no list of {name}.")
    ids = collections.Counter(normal_id(image, "id") for image in content["images"])
    if None in ids or not all(isinstance(image.get("file_name"), str) for image in content["images"]):
        raise DataError(f"{path}: an image has no id or no file_name; solo-dist import --format=coco puts files right.")
    if repeated := [number for number, count in ids.items() if count > 1]:
        raise DataError(
            f"{path}: {len(repeated)} ids are those of several images, such as {shown(repeated[0])}: their annotations "
            "cannot be told apart. Merge files with solo-dist import --format=coco --input=ONE.json --input=OTHER.json."
        )
    for category in content["categories"]:
        try:
            name_of(category), identifier_or_name(category.get("id"), "category id")
        except Unusable as error:
            raise DataError(f"{path}: the category {shown(category)} cannot be used: {error}.") from error
    names = collections.Counter(image["file_name"] for image in content["images"])
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise DataError(f"{path}: {len(twice)} images are listed twice, such as {twice[0]}.")
    if len(names) < len(SUBSETS):
        raise DataError(f"{path} has {len(names)} images, too few to split.")
    return content


def _numbers(part: dict[str, Any]) -> dict[str, Any]:
    names = names_of(part)
    counts = collections.Counter(category_of(annotation, names) for annotation in part["annotations"])
    del counts[None]  # crowds
    return {
        "images": len(part["images"]),
        "instances": sum(counts.values()),
        "categories": {name: counts[name] for name in names.values()},
    }


def split_summary(report: dict[str, Any]) -> str:
    """The contents of each subset, and warnings about the split."""
    subsets = report["subsets"]
    total = sum(one["images"] for one in subsets.values())
    lines = [
        f"{name:<10}  {one['images']:>6} images ({one['images'] / total:.1%} of {one['share']:.1%} asked for), "
        f"{one['instances']} instances"
        for name, one in subsets.items()
    ]
    for name, one in subsets.items():
        others = {category for other in subsets.values() for category, count in other["categories"].items() if count}
        missing = [category for category, count in one["categories"].items() if not count and category in others]
        if missing:
            lines.append(f"{name} has no instance of {', '.join(missing)}: too few groups of images have one")
    if report["near_duplicates"] is None:
        lines.append("near duplicates were not searched; --images=FOLDER searches them")
    elif report["near_duplicates"]:
        groups = report["near_duplicates"]
        lines.append(
            f"{sum(map(len, groups))} images are near duplicates in {len(groups)} groups, each kept together; "
            f"for example {', '.join(groups[0][:3])}"
        )
    if count := report["annotations_of_no_image"]:
        lines.append(f"{count} annotations are in no part: there is no image with their image_id")
    for path in report["earlier_parts"]:
        lines.append(f"{path} is not of this split: its images may be in other parts, too; remove it")
    if report["unreadable_images"]:
        unreadable = report["unreadable_images"]
        lines.append(f"{len(unreadable)} images cannot be read, such as {unreadable[0]}: not compared with others")
    if report["largest_group"] > 0.1 * total and report["largest_group"] > 1:
        lines.append(f"the largest group has {report['largest_group']} images: shares can only be met roughly")
    return "\n".join(lines)
