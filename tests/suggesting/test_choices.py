"""Each choice by the facts that decide it; the file that is written gives the recipe that was chosen."""

import dataclasses

import numpy as np

from solo_dist import recipes
from solo_dist.config import AugmentConfig, Config, GridConfig
from solo_dist.data.cells import CellCounts, Placed
from solo_dist.data.sharding.annotation import Annotation
from solo_dist.suggesting import choices
from solo_dist.suggesting.canvas import CanvasFacts, candidates
from solo_dist.suggesting.choices import Choice
from solo_dist.suggesting.facts import Facts, LabelledImage, read_facts
from solo_dist.suggesting.grids import GridFacts, best_grid, ranges_of
from solo_dist.suggesting.machine import Machine
from solo_dist.suggesting.recipe_file import recipe_text
from solo_dist.suggesting.suggest import suggest

CPU = Machine("2 CPU cores", "CPU", False, 2e10)
GPU = Machine("Some GPU", "GPU", True, 1e13)
OBJECT = Annotation(1, 0, (0, 0, 10, 10), 100.0, {}, "")


def facts_of(height=480, width=640, images=20, categories=("cat", "dog")):
    return Facts(("a.json",), (LabelledImage(height, width, (OBJECT,)),) * images, images, categories, 0, 0)


def canvas_of(size, ceiling, boxes=((0, 0, 50, 50),), is_fast=True):
    boxes = np.array(boxes, np.float32)
    count = len(boxes)
    placed = Placed(size, np.zeros(count, int), boxes, boxes[:, :2], np.ones(count, bool))
    return CanvasFacts(size, placed, ceiling, -1, is_fast)


def test_device_time_and_image_size_choose_the_base():
    assert choices.choose_base(facts_of(), GPU, 30).recipe == "finetune_r18"
    assert choices.choose_base(facts_of(), GPU, 60).recipe == "finetune_r50"
    assert choices.choose_base(facts_of(128, 128, 2000), CPU, 30).recipe == "shapes_tiny"
    assert choices.choose_base(facts_of(128, 128, 200), CPU, 30).recipe == "finetune_lite0_256"


def test_canvases_have_the_shape_of_the_images():
    assert candidates(facts_of(480, 640))[0] == (96, 128) and candidates(facts_of(480, 640))[-1] == (672, 896)
    assert candidates(facts_of(60, 40)) == [(128, 96)]
    mixed = Facts((), facts_of(480, 640).images + facts_of(640, 480).images, 40, ("cat",), 0, 0)
    assert all(height == width for height, width in candidates(mixed))


def test_the_smallest_canvas_is_chosen_after_which_the_ceiling_rises_little():
    canvases = [canvas_of((side, side), ceiling) for side, ceiling in ((128, 0.7), (192, 0.88), (256, 0.9))]
    assert choices.choose_canvas(canvases).size == (192, 192)
    slow = canvas_of((320, 320), 0.99, is_fast=False)
    assert choices.choose_canvas([*canvases, slow]).size == (192, 192)
    assert "320 x 320 would allow 0.990, but the time" in choices.explain_canvas(canvases[1], [slow], 2000).reason
    assert choices.explain_canvas(canvases[1], canvases, 2000).fields == {"data.canvas": (192, 192)}


def test_ranges_leave_no_object_out_and_share_them_equally():
    sizes = np.random.default_rng(0).lognormal(3, 1, 3000)
    ranges = ranges_of(sizes, 3)
    assert ranges[0][0] == 0 and ranges[-1][1] == 2048
    assert all(low < high and following[0] < high for (low, high), following in zip(ranges, ranges[1:], strict=False))
    counts = [((sizes >= low) & (sizes <= high)).mean() for low, high in ranges]
    assert all(0.33 < share < 0.6 for share in counts)
    alike = ranges_of(np.full(50, 30.0), 4)
    assert len(set(alike)) == 4 and any(low <= 30 <= high for low, high in alike)


def test_the_good_grids_with_the_fewest_cells_are_chosen_else_those_with_the_least_trouble():
    def grids(cells, colliding, lost, without=0):
        counts = CellCounts(1000, colliding, lost, without, (), (0,), 9)
        return GridFacts(str(cells), GridConfig(("p3",), (cells,), ((1, 2048),)), counts)

    assert best_grid([grids(8, 200, 0), grids(12, 140, 4), grids(16, 30, 0)]).name == "12"
    assert best_grid([grids(8, 90, 40), grids(12, 90, 9), grids(16, 90, 9)]).name == "12"


def test_images_are_not_mirrored_if_a_mirror_image_is_of_another_category():
    canvas, base = canvas_of((256, 256), 0.9), AugmentConfig(scale=(0.6, 1.5))
    for name, flip in (("left hand", False), ("L", False), ("7", False), ("leftover", True), ("bright", True)):
        chosen = choices.choose_augmentation(facts_of(categories=("cat", name)), canvas, base)
        assert chosen.fields == {"data.augment.flip": flip, "data.augment.turn": False}, name
    small = canvas_of((256, 256), 0.9, [(0, 0, 5, 5), (0, 0, 60, 60)])
    assert choices.choose_augmentation(facts_of(), small, base).fields["data.augment.scale"] == (0.9, 1.5)


def test_a_handful_of_images_has_small_batches():
    config = recipes.get("shapes_tiny")
    batches = [choices.choose_batch(facts_of(images=count), config) for count in (100, 16, 9, 4, 2)]
    assert batches == [8, 8, 4, 2, 2]


def test_the_file_gives_the_recipe_that_was_chosen(tmp_path):
    made = [Choice("it is fast", {}), Choice('paths with "quotes"', {"name": "mine", "data.train": 'a "b"\\c'})]
    made.append(Choice("long " * 60, {"data.canvas": (96, 96), "data.augment.flip": False, "train.steps": 7}))
    path = tmp_path / "mine.py"
    path.write_text(recipe_text('Of "data"\nand \\ more', "solo-dist train --config='a \\b'", "shapes_tiny", made))
    assert recipes.get(str(path)) == choices.apply(recipes.get("shapes_tiny"), made)
    assert max(map(len, path.read_text().splitlines())) <= 110 and "    # It is fast.\n" in path.read_text()


def test_a_mosaic_has_room_for_the_objects_of_four_images():
    facts = dataclasses.replace(facts_of(), images=(LabelledImage(480, 640, (OBJECT,) * 13),))
    grid = GridFacts("any", GridConfig(("p3",), (8,), ((1, 2048),)), CellCounts(13, 0, 0, 0, (), (0,), 100))
    for augment, objects, positives in (
        (AugmentConfig(), 16, 128),
        (AugmentConfig(paste=0.5), 32, 256),
        (AugmentConfig(mosaic=0.3, paste=0.5), 56, 256),
    ):
        fields = choices.choose_limits(facts, grid, augment).fields
        assert (fields["data.max_instances"], fields["data.max_positives"]) == (objects, positives)


def test_a_whole_suggestion_is_a_recipe_with_a_reason_for_each_choice(crowded, tmp_path):
    facts = dataclasses.replace(read_facts([str(crowded / "instances.json")], 0), num_images=2000)
    made = suggest(facts, CPU, 5, "mine", "shards/train")
    path = tmp_path / "mine.py"
    path.write_text(made.text("solo-dist train --config=mine.py"))
    loaded = recipes.get(str(path)).validate()
    assert isinstance(loaded, Config) and loaded == made.config and loaded.name == "mine"
    assert loaded.data.train == "shards/train" and loaded.data.shapes_folder == ""
    assert "network of shapes_tiny: many small images: a small network learns" in made.table()
    assert len(made.grids) == 4 and sum(line.startswith("*") for line in made.table().splitlines()) == 2
    assert not made.grid.counts.uncovered and loaded.data.max_instances >= facts.most_objects
    assert made.base == "shapes_tiny" and 0.2 < made.canvases[-1].ceiling < 1
