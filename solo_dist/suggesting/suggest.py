"""From a data set to a recipe: every choice in its order, what it was chosen from, and the text of the file."""

import dataclasses
import shlex
import textwrap
from collections.abc import Sequence

from solo_dist import recipes
from solo_dist.config import Config
from solo_dist.suggesting import choices, grids, machine
from solo_dist.suggesting.canvas import CanvasFacts, compare_canvases
from solo_dist.suggesting.choices import Choice
from solo_dist.suggesting.facts import Facts
from solo_dist.suggesting.grids import GridFacts
from solo_dist.suggesting.machine import Machine
from solo_dist.suggesting.recipe_file import recipe_text

_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A recipe and what it was chosen from."""

    facts: Facts
    machine: Machine
    minutes: float
    base: str
    config: Config
    choices: tuple[Choice, ...]
    canvases: tuple[CanvasFacts, ...]
    grids: tuple[GridFacts, ...]
    """On the chosen canvas."""
    grid: GridFacts
    """The chosen one."""

    @property
    def keeps_originals(self) -> bool:
        """Whether the shards for it have to hold whole images."""
        return self.config.data.augment.changes_geometry

    def table(self) -> str:
        """Data, canvases and grids for people; `*` marks what was chosen."""
        network = f"network of {self.base}: {self.choices[0].reason}"
        lines = [*_data_lines(self), *textwrap.wrap(network, _WIDTH), "", *_canvas_lines(self), "", *_grid_lines(self)]
        return "\n".join(lines)

    def text(self, command: str) -> str:
        """The recipe as a Python file; `command` trains with it."""
        title = f"Suggested by solo-dist suggest for train.minutes={self.minutes:g} on {self.machine.device}."
        return recipe_text(f"{title}\n\n{self.table()}", command, self.base, self.choices)


def suggest(facts: Facts, device: Machine, minutes: float, name: str, train: str, validation: str = "") -> Suggestion:
    """Makes every choice.

    Args:
      facts: of the data.
      device: the machine that will train.
      minutes: that the training may take.
      name: of the recipe.
      train: folder of the shards to train on.
      validation: folder of those to measure on; "": there are none.
    """
    base = choices.choose_base(facts, device, minutes)
    config = recipes.get(base.recipe)
    made = [base.choice, choices.name_folders(config, name, train, validation)]
    choices.apply(config, made)
    base_canvas, categories = config.data.canvas, len(facts.categories)
    model = machine.build(config, categories)
    per_pixel = machine.multiply_adds(model, base_canvas) / (base_canvas[0] * base_canvas[1])
    most_pixels = max(device.images_in(minutes, per_pixel) / base.needed_images, base_canvas[0] * base_canvas[1])
    canvases = tuple(compare_canvases(facts, most_pixels, config.loss.mask_target))
    canvas = choices.choose_canvas(canvases)
    compared = tuple(grids.compare_grids(canvas.placed, config.model.grid, base_canvas))
    grid = grids.best_grid(compared)
    made += [
        choices.explain_canvas(canvas, canvases, base.needed_images),
        choices.explain_grid(grid),
        choices.choose_limits(facts, grid, config.data.augment),
        choices.choose_augmentation(facts, canvas, config.data.augment),
    ]
    choices.apply(config, made)
    config.train.global_batch = choices.choose_batch(facts, config)
    images = device.images_in(minutes, per_pixel * canvas.size[0] * canvas.size[1])
    made += [
        choices.explain_batch(config, machine.fitting_images(machine.build(config, categories), config), device),
        choices.choose_length(config, images, minutes, facts.num_images),
    ]
    choices.apply(config, made)
    return Suggestion(facts, device, minutes, base.recipe, config, tuple(made), canvases, compared, grid)


def shard_command(annotations: str, images: str, output: str, recipe: str, keep_original: bool) -> str:
    """The command that makes the shards for a recipe."""
    command = ["solo-dist", "shard", f"--annotations={annotations}", f"--images={images}", f"--output={output}"]
    return shlex.join([*command, f"--config={recipe}", *(["--keep_original"] if keep_original else [])])


def _data_lines(made: Suggestion) -> list[str]:
    facts = made.facts
    sample = f", of which {len(facts.images)} were looked at" if len(facts.images) < facts.num_images else ""
    heights, widths = facts.sizes.T
    lines = [
        f"data: {facts.num_images} images{sample}, {facts.num_objects} objects of {len(facts.categories)} categories, "
        f"at most {facts.most_objects} in an image",
        f"images: {heights.min()} to {heights.max()} pixels high, {widths.min()} to {widths.max()} wide",
    ]
    if facts.left_out:
        lines.append(f"{facts.left_out} annotations are not trained on, such as crowds; solo-dist shard says why")
    if facts.without_size:
        lines.append(f"{facts.without_size} images have no size in the json, and were not looked at")
    return lines


def _canvas_lines(made: Suggestion) -> list[str]:
    rows = [
        (
            _mark(one.size == made.config.data.canvas),
            f"{one.size[0]} x {one.size[1]}",
            f"{one.small_side:.0f}",
            f"{one.median_side:.0f}",
            f"{one.ceiling:.3f}",
            f"{one.ceiling_small:.3f}" if one.ceiling_small >= 0 else "none",
            "" if one.is_fast else "too slow",
        )
        for one in made.canvases
    ]
    header = ("", "canvas", "a tenth below", "half below", "AP possible", "of small ones", "")
    return ["canvases, with the sizes of objects in pixels:", *_table(header, rows)]


def _grid_lines(made: Suggestion) -> list[str]:
    rows = []
    for one in made.grids:
        counts, grid = one.counts, one.grid
        uncovered = f"{len(counts.uncovered)}"
        if counts.uncovered:
            uncovered += f" ({counts.uncovered[0]:.0f} to {counts.uncovered[-1]:.0f} px)"
        rows.append(
            (
                _mark(one is made.grid),
                one.name,
                "/".join(map(str, grid.sizes)),
                " ".join(f"{low}-{high}" for low, high in grid.scale_ranges),
                str(grid.num_cells),
                str(counts.colliding),
                str(counts.lost),
                str(counts.without_positives),
                uncovered,
            )
        )
    header = ("", "grids", "sizes", "ranges", "cells", "colliding", "lost", "no cell", "of no range")
    canvas = made.config.data.canvas
    return [f"grids on {canvas[0]} x {canvas[1]}, with numbers of objects:", *_table(header, rows)]


def _mark(chosen: bool) -> str:
    return "*" if chosen else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return [line.rstrip() for line in lines]
