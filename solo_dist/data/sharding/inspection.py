"""The contents of a folder of shards for people: statistics as text, and drawn masks and grid targets."""

import io
from collections.abc import Iterator

import numpy as np
import PIL.Image
import PIL.ImageDraw
import tensorflow as tf

from solo_dist.coco_values import alike
from solo_dist.config import MASK_STRIDE, DataConfig
from solo_dist.data import geometry, image_io
from solo_dist.data.input.in_order import read_records
from solo_dist.data.schema import NOTICES, REJECTED, Manifest, Record, precomputed_targets
from solo_dist.data.sharding.counts import Counts
from solo_dist.data.sharding.reasons import counted, remedy
from solo_dist.masks.bits import unpack_bits
from solo_dist.solo.targets import Targets, count_collisions
from solo_dist.storage import file_io
from solo_dist.viz.overlay import colour_of, overlay

_MOST_CATEGORIES = 20
_BAR = 40
_COLUMNS = 3
_GAP = 4
_MANY_CROWDS = 0.2
_SHOWN_NAMES = 5


def statistics(manifest: Manifest, num_records: int) -> str:
    """Statistics of the first `num_records` records, several lines."""
    counts = _Counts(manifest)
    for record, _ in zip(read_records(manifest), range(num_records), strict=False):
        counts.add(record, manifest)
    return "\n".join([*_header(manifest), *counts.lines(manifest)])


def draw_images(manifest: Manifest, count: int, folder: str, flipped: bool) -> Iterator[str]:
    """Draws `count` records, spread evenly over the folder of shards; yields the paths of the PNG files."""
    chosen = set(np.linspace(0, manifest.num_records - 1, min(count, manifest.num_records)).astype(int).tolist())
    for number, record in enumerate(read_records(manifest)):
        if number in chosen:
            path = f"{folder}/record_{number:06d}.png"
            buffer = io.BytesIO()
            draw_record(record, manifest, flipped).save(buffer, "PNG")
            file_io.write(path, buffer.getvalue())
            yield path


def draw_record(record: Record, manifest: Manifest, flipped: bool) -> PIL.Image.Image:
    """The image with its masks, then each level's grid with the cells that are positive, in their mask's colour."""
    targets = precomputed_targets(record, flipped, manifest.canvas, manifest.grid.num_cells)
    image = _on_canvas(record, manifest, flipped)
    masks = unpack_bits(targets.masks).numpy().repeat(MASK_STRIDE, axis=1).repeat(MASK_STRIDE, axis=2)
    names = [manifest.categories[int(category)]["name"] for category in record.categories]
    first = overlay(image, masks, names)
    panels = [first]
    background = PIL.Image.fromarray(image).resize(first.size, PIL.Image.Resampling.BILINEAR)
    for level in range(len(manifest.grid.sizes)):
        panels.append(_draw_level(background.copy(), targets, manifest, level))
    return _tile(panels)


def _tile(panels: list[PIL.Image.Image]) -> PIL.Image.Image:
    """Images of one size in rows of three."""
    step_x, step_y = panels[0].width + _GAP, panels[0].height + _GAP
    rows = -(-len(panels) // _COLUMNS)
    sheet = PIL.Image.new("RGB", (_COLUMNS * step_x - _GAP, rows * step_y - _GAP), "white")
    for i, part in enumerate(panels):
        sheet.paste(part, (i % _COLUMNS * step_x, i // _COLUMNS * step_y))
    return sheet


def _on_canvas(record: Record, manifest: Manifest, flipped: bool) -> np.ndarray:
    placement = geometry.stored_image(record.size, manifest.canvas, manifest.keep_original, flipped)
    image = geometry.move_image(tf.io.decode_jpeg(record.image, channels=3, dct_method=image_io.DCT_METHOD), placement)
    return geometry.pad_to_canvas(geometry.to_uint8(image), manifest.canvas).numpy()


def _draw_level(image: PIL.Image.Image, targets: Targets, manifest: Manifest, level: int) -> PIL.Image.Image:
    grid, size = manifest.grid, manifest.grid.sizes[level]
    cells, instances = targets.positives.cell.numpy() - grid.first_cells[level], targets.positives.instance.numpy()
    on_level = (cells >= 0) & (cells < size * size)
    draw = PIL.ImageDraw.Draw(image, "RGBA")
    step_x, step_y = image.width / size, image.height / size
    for cell, instance in zip(cells[on_level], instances[on_level], strict=True):
        x, y = cell % size * step_x, cell // size * step_y
        draw.rectangle([x, y, x + step_x, y + step_y], fill=(*colour_of(int(instance)), 170))
    for i in range(1, size):
        draw.line([i * step_x, 0, i * step_x, image.height], fill=(255, 255, 255, 110))
        draw.line([0, i * step_y, image.width, i * step_y], fill=(255, 255, 255, 110))
    low, high = grid.scale_ranges[level]
    text = f"{grid.levels[level]}  {size}x{size}  sizes {low} to {high}  {int(on_level.sum())} positives"
    draw.rectangle([0, 0, draw.textlength(text) + 8, 16], fill=(0, 0, 0, 200))
    draw.text((4, 2), text, fill="white")
    return image


def _header(manifest: Manifest) -> list[str]:
    grid = manifest.grid
    levels = ", ".join(
        f"{level} {size}x{size} for {low} to {high} px"
        for level, size, (low, high) in zip(grid.levels, grid.sizes, grid.scale_ranges, strict=True)
    )
    stored = "whole" if manifest.keep_original else f"fitted into {manifest.canvas[0]}x{manifest.canvas[1]}"
    rejected = ", ".join(f"{count} {reason}" for reason, count in manifest.rejected.items()) or "none"
    return [
        f"{manifest.folder}: {manifest.num_images} {_what(manifest)} x {manifest.augmented_copies} augmented copies in "
        f"{len(manifest.files)} files, {stored}",
        f"grids: {levels}",
        f"rejected: {rejected}",
    ]


def _what(manifest: Manifest) -> str:
    return f"tiles ({manifest.tiling})" if manifest.tiling else "images"


def summary(manifest: Manifest, data: DataConfig) -> str:
    """Facts about a folder of shards to check before training on it; several lines."""
    counts = Counts(**manifest.statistics)
    rejected = dict(manifest.rejected)
    crowds = rejected.pop("crowd", 0)
    dropped = ", ".join(f"{count} {reason}" for reason, count in rejected.items()) or "none"
    levels = ", ".join(
        f"{level} {count}" for level, count in zip(manifest.grid.levels, counts.positives_per_level, strict=False)
    )
    size = sum(file.bytes for file in manifest.files)
    lines = [
        f"{manifest.folder}: {manifest.num_images} {_what(manifest)} in {len(manifest.files)} shards, "
        f"{size / 1e6:.1f} MB, of images {counts.image_bytes / 1e6:.1f} MB; {len(manifest.categories)} categories",
        f"instances: {manifest.num_instances} kept, {crowds} crowd (kept for evaluation only)",
        f"rejected: {dropped}",
        f"positives by level: {levels or 'none'}",
        f"collisions: {counts.colliding} instances lose cells to a later one, {counts.lost} of them all their cells; "
        f"{counts.without_positives} instances have no positive cell",
        f"most in one image: {counts.max_instances} instances (data.max_instances={data.max_instances}), "
        f"{counts.max_positives} positives (data.max_positives={data.max_positives})",
    ]
    if counts.max_instances > data.max_instances or counts.max_positives > data.max_positives:
        lines.append("Images beyond these limits will train on a random subset; raise the limits to take all.")
    lines += _notices(manifest, counts, crowds)
    if rejected:
        lines.append(f"Every rejection with its reason: {manifest.folder}/{REJECTED}")
    if manifest.notices:
        lines.append(f"Every notice with its image: {manifest.folder}/{NOTICES}")
    return "\n".join(lines)


def _notices(manifest: Manifest, counts: Counts, crowds: int) -> list[str]:
    """What may be wrong with the data, and the flags that change what was made of them."""
    lines = [f"{reason}: {remedy(reason)}" for reason in manifest.rejected if reason != "crowd" and remedy(reason)]
    lines += [f"notice: {line}" for line in counted(manifest.notices)]
    if crowds > _MANY_CROWDS * (crowds + manifest.num_instances):
        lines.append(
            f"notice: {crowds} of {crowds + manifest.num_instances} masks are crowds, which are not trained on "
            f"({remedy('crowd')})"
        )
    empty = [c["name"] for c, n in zip(manifest.categories, counts.instances_of_category, strict=False) if not n]
    if empty:
        names = ", ".join(empty[:_SHOWN_NAMES]) + (", ..." if len(empty) > _SHOWN_NAMES else "")
        lines.append(
            f"notice: {len(empty)} of {len(manifest.categories)} categories have no instance: {names} "
            "(--drop_empty_categories leaves those out that no annotation names)"
        )
    for same in alike(category["name"] for category in manifest.categories):
        lines.append(
            f"notice: categories of one name, or that differ in case and spaces only, are different classes: "
            f"{', '.join(map(repr, same))} (solo-dist import --format=coco merges and renames them)"
        )
    if manifest.pixel_range:
        low, high = manifest.pixel_range
        lines.append(
            f"images of more than 8 bits: {low:g} is black and {high:g} is white (--pixel_range={low:g}:{high:g} for "
            "other parts of the data)"
        )
    return lines


class _Counts:
    """Adds up records."""

    def __init__(self, manifest: Manifest):
        self._edges = [*manifest.grid.first_cells, manifest.grid.num_cells]
        self._categories = np.zeros(len(manifest.categories), int)
        self._positives = np.zeros(len(manifest.grid.sizes), int)
        self._instances_on = np.zeros(len(manifest.grid.sizes), int)
        self._image_bytes = self._record_bytes = 0
        self._collisions = np.zeros(3, int)
        self._instances: list[int] = []
        self._positives_of_image: list[int] = []

    def add(self, record: Record, manifest: Manifest) -> None:
        """Adds a record."""
        self._image_bytes += len(record.image.numpy())
        self._record_bytes += sum(_stored_bytes(value) for value in record.features.values())
        categories = record.categories.numpy()
        self._categories += np.bincount(categories, minlength=len(self._categories))
        positives = precomputed_targets(record, False, manifest.canvas, manifest.grid.num_cells).positives
        cells, instances = positives.cell.numpy(), positives.instance.numpy()
        self._instances.append(len(categories))
        self._positives_of_image.append(len(cells))
        self._positives += np.histogram(cells, self._edges)[0]
        level = np.searchsorted(self._edges, cells, side="right") - 1
        pairs = np.unique(np.stack([level, instances]), axis=1)
        self._instances_on += np.bincount(pairs[0], minlength=len(self._positives))
        self._collisions += count_collisions(cells, instances, len(categories), manifest.grid.num_cells)

    def lines(self, manifest: Manifest) -> list[str]:
        """The statistics as text."""
        number = max(len(self._instances), 1)
        total = int(self._categories.sum())
        colliding, lost, without = self._collisions
        extra = self._record_bytes - self._image_bytes
        lines = [
            f"records: {len(self._instances)} counted, {self._record_bytes / number / 1000:.1f} kB each: images "
            f"{self._image_bytes / number / 1000:.1f}, masks and targets {extra / number / 1000:.1f} "
            f"({100 * extra / max(self._image_bytes, 1):.1f}% of the images)",
            f"instances: {total}, {total / number:.1f} an image, at most {max(self._instances, default=0)}; "
            f"positives: {self._positives.sum() / number:.1f} an image, at most "
            f"{max(self._positives_of_image, default=0)}",
            f"collisions: {colliding} instances lose cells to a later one, {lost} of them all their cells; "
            f"{without} instances have no positive cell",
            "positives by level:",
        ]
        rows = zip(manifest.grid.levels, self._positives, self._instances_on, strict=True)
        lines += [_bar(level, int(n), self._positives, f"of {on} instances") for level, n, on in rows]
        lines.append("instances by category:")
        order = np.argsort(-self._categories, kind="stable")
        for index in order[:_MOST_CATEGORIES]:
            category = manifest.categories[index]
            lines.append(_bar(category["name"], int(self._categories[index]), self._categories))
        hidden = len(order) - _MOST_CATEGORIES
        if hidden > 0:
            lines.append(f"  and {hidden} more")
        absent = int((self._categories == 0).sum())
        if absent:
            lines.append(f"  {absent} categories have no instance")
        return lines


def _stored_bytes(value: tf.Tensor) -> int:
    return len(value.numpy()) if value.dtype == tf.string else value.dtype.size * int(tf.size(value))


def _bar(name: str, count: int, all_counts: np.ndarray, remark: str = "") -> str:
    length = round(_BAR * count / max(int(all_counts.max()), 1))
    return f"  {name[:20]:20} {count:8d} {'#' * length} {remark}".rstrip()
