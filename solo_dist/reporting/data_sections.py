"""The contents of the data report's template, made from numbers: headlines, rows of tables and plots."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from solo_dist.config import MASK_STRIDE
from solo_dist.reporting import data_counts, plots
from solo_dist.reporting.analysis import CROWDING, RARE, SIZES
from solo_dist.reporting.data_counts import CategoryCounts, SplitCounts
from solo_dist.reporting.grid_facts import GridCounts
from solo_dist.reporting.headlines import Headline
from solo_dist.reporting.near_copies import NearCopies
from solo_dist.reporting.splits import Split
from solo_dist.reporting.suspicious import KINDS, Found

_NAMED = 5
_MANY = 0.05
"""Share from which something deserves a headline."""


def of_counts(
    splits: Sequence[Split], counts: Sequence[SplitCounts], categories: Sequence[CategoryCounts]
) -> dict[str, Any]:
    """Tables of the splits and their categories, and plots."""
    names = [split.name for split in splits]
    rows = sorted(categories, key=lambda row: -sum(row.instances))
    return {
        "names": names,
        "splits": counts,
        "categories": rows,
        "most_instances": max(sum(row.instances) for row in rows),
        "rare_limit": RARE,
        "size_names": [name for name, _, _ in SIZES],
        "crowding_names": ["0", *(name for name, _, _ in CROWDING)],
        "canvases": sorted({" x ".join(map(str, split.manifest.canvas)) for split in splits}),
        "small_side": data_counts.SMALL_SIDE,
        "size_plots": [Markup(svg) for svg in _plots(splits)],
    }


def of_grids(splits: Sequence[Split], grids: Sequence[Sequence[GridCounts]]) -> dict[str, Any]:
    """Collisions on the grids of the shards and on denser ones, and how many cells each level has."""
    levels = [
        (split.name, list(zip(split.manifest.grid.levels, split.manifest.grid.sizes, positives, strict=False)))
        for split in splits
        if (positives := split.manifest.statistics.get("positives_per_level"))
    ]
    return {"grids": list(zip([s.name for s in splits], grids, strict=True)), "levels": levels}


def headlines(
    counts: Sequence[SplitCounts],
    categories: Sequence[CategoryCounts],
    copies: NearCopies,
    suspicious: Found,
    grids: Sequence[Sequence[GridCounts]],
) -> list[Headline]:
    """The findings, the most important first."""
    found = [_size_of_data(counts, categories), _leaks(counts, copies)]
    found += [_balance(categories)] if len(categories) > 1 else []
    found += [*_mistakes(suspicious), *_small(counts), *_collisions(grids)]
    return found


def _size_of_data(counts: Sequence[SplitCounts], categories: Sequence[CategoryCounts]) -> Headline:
    images, instances = sum(one.images for one in counts), sum(one.instances for one in counts)
    parts = [f"{one.name}: {one.images} images, {one.empty} of them without an instance" for one in counts]
    title = f"{images:,} images, {instances:,} instances, {len(categories):,} categories"
    return Headline(title, f"{'; '.join(parts)}. {instances / max(images, 1):.1f} instances an image.")


def _leaks(counts: Sequence[SplitCounts], copies: NearCopies) -> Headline:
    leaks = [pair for pair in copies.pairs if pair.leak]
    within = len(copies.pairs) - len(leaks)
    more = f" Within the splits, {within} pairs of images are nearly equal." if within else ""
    if len(counts) < 2:
        title = f"{within} pairs of images are nearly equal" if within else "No two images are nearly equal"
        return Headline(
            title, "Give the other splits too, with more --shards, to see whether images are in two of them."
        )
    if not leaks:
        return Headline("No image is in two splits", f"No image has a near copy in another split.{more}")
    images = len({pair.other for pair in leaks})
    return Headline(
        f"{images} images leak into another split",
        "They have a near copy in another split, so a model is measured on what it was trained on, and AP is too high. "
        f"solo-dist split with --images keeps near copies together.{more}",
    )


def _balance(categories: Sequence[CategoryCounts]) -> Headline:
    ordered = sorted(categories, key=lambda row: row.instances[0])
    rare = [row for row in ordered if row.rare]
    most, least = ordered[-1], ordered[0]
    text = (
        f"The most frequent one, {most.name}, has {most.instances[0]}, the rarest, {least.name}, {least.instances[0]}."
    )
    if not rare:
        return Headline(f"Every category has {RARE} or more examples to learn from", text)
    names = ", ".join(row.name for row in rare[:_NAMED]) + (", ..." if len(rare) > _NAMED else "")
    return Headline(
        f"{len(rare)} of {len(categories)} categories have fewer than {RARE} examples",
        f"{names}: their AP will be mostly luck. {text}",
    )


def _mistakes(suspicious: Found) -> list[Headline]:
    total = sum(map(len, suspicious.values()))
    if not total:
        return [Headline("No annotation looks wrong", f"None is of these kinds: {', '.join(KINDS)}.")]
    parts = ", ".join(f"{len(group)} {kind}" for kind, group in suspicious.items())
    return [Headline(f"{total:,} annotations to look at", f"{parts}. Pictures of them are below.")]


def _small(counts: Sequence[SplitCounts]) -> list[Headline]:
    instances, small = sum(one.instances for one in counts), sum(one.small for one in counts)
    if small < _MANY * instances or not small:
        return []
    return [
        Headline(
            f"{small / instances:.0%} of the instances are very small",
            f"On the canvas they are below {data_counts.SMALL_SIDE} x {data_counts.SMALL_SIDE} pixels, and the model "
            f"predicts one mask pixel for {MASK_STRIDE} x {MASK_STRIDE}: their outlines will be coarse. A larger "
            "canvas (data.canvas) helps.",
        )
    ]


def _collisions(grids: Sequence[Sequence[GridCounts]]) -> list[Headline]:
    instances = sum(rows[0].instances for rows in grids)
    now, denser = (sum(rows[place].without_cells for rows in grids) for place in (0, -1))
    if now < 0.01 * max(instances, 1):
        return [Headline("The grids are dense enough", "Nearly every instance has a cell of its own.")]
    return [
        Headline(
            f"{now} of {instances} instances have no cell of their own",
            f"They cannot be learned. With twice as many cells on each side (model.grid.sizes) it would be {denser}.",
        )
    ]


def _plots(splits: Sequence[Split]) -> list[str]:
    sizes = {split.name: data_counts.size_histogram(split) for split in splits}
    aspects = {split.name: data_counts.aspect_histogram(split) for split in splits}
    return [
        plots.histogram("Sizes on the canvas", data_counts.SIDES, sizes, "square root of the area, in pixels"),
        plots.histogram("Shapes", data_counts.ASPECTS, aspects, "width / height"),
        plots.heat("Positions", data_counts.position_map(splits), "middles of the instances in the image"),
    ]
