"""Mosaics and pasted instances: pixel for pixel those of a slow version; the same from any step and for any worker."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import AugmentConfig, Config
from solo_dist.data import augmentation, geometry, schema
from solo_dist.data.input import element, pipeline, reader
from solo_dist.data.input.sampler import Sampler
from solo_dist.errors import ConfigError
from tests.data.input.test_pipeline import GRID, Batch, assert_same, damage, make_coco, read, recipe, shard
from tests.solo.test_targets import slow_reduced, slow_targets

SQUARE, WIDE = (64, 64), (64, 96)
NUM_IMAGES = 7
LIMITS = {"max_instances": 24, "max_positives": 300}
ALL_AT_ONCE = AugmentConfig(
    turn=True, brightness=0.2, contrast=0.2, crop=0.1, scale=(0.1, 2.0), mosaic=0.6, mosaic_scale=(0.3, 1.1), paste=0.6
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Shards of small images fitted into a wide canvas, and of large whole ones for a square canvas."""
    folder = tmp_path_factory.mktemp("composed")
    make_coco(folder / "small", num_images=NUM_IMAGES)
    make_coco(folder / "large", num_images=NUM_IMAGES, zoom=5)
    return {
        "fitted": shard(folder / "small", folder / "fitted", canvas=WIDE),
        "whole": shard(folder / "large", folder / "whole", canvas=SQUARE, keep_original=True),
    }


CASES = {
    "fitted": ("fitted", WIDE, AugmentConfig(mosaic=0.5, mosaic_scale=(1.0, 1.0), paste=0.5)),
    "all at once": ("whole", SQUARE, ALL_AT_ONCE),
}


# ---- A slow version, with masks as pixels


class Part(NamedTuple):
    """An image, uint8 [h, w, 3], masks, bool [m, h, w], and of each instance its box, class and number of pixels."""

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    categories: np.ndarray
    areas: np.ndarray


class SlowVersion:
    """Takes random numbers, windows, resized pixels and colours from the project, and composes in NumPy."""

    def __init__(self, config: Config):
        self.config, self.augment, self.canvas = config, config.data.augment, config.data.canvas
        self.manifest = schema.load_manifest(config.data.train)
        self.reduce = element.reduction(config, self.manifest, training=True)
        records = reader.RecordReader(self.manifest, 0, self.reduce)
        self.order = Sampler(config, self.manifest, training=True)
        self.stored = [records.read(tf.constant(number, tf.int64))[0] for number in range(NUM_IMAGES)]

    def scene(self, position: int) -> Part:
        draws = self.draws(position, 0)
        record = int(self.order.record(tf.constant(position, tf.int64)))
        if float(draws.mosaic) < self.augment.mosaic:
            below = self.mosaic(position, record, draws)
        else:
            below = self.part(record, draws, self.canvas, self.augment.scale)
        return self.paste(position, below) if float(draws.paste) < self.augment.paste else below

    def draws(self, position: int, part: int) -> augmentation.Draws:
        return augmentation.draw(self.config.seed, tf.constant(position, tf.int64), part)

    def other(self, position: int, part: int, slot: int, slots: int) -> int:
        """The record of a partner: one of its share of the images that follow in the order of the epoch."""
        epoch, index = divmod(position, NUM_IMAGES)
        share = (slot + float(self.draws(position, part).partner)) / slots
        place = (index + 1 + int(share * (NUM_IMAGES - 1))) % NUM_IMAGES
        return int(self.order.record(tf.constant(epoch * NUM_IMAGES + place, tf.int64)))

    def part(self, number: int, draws: augmentation.Draws, room: tuple[int, int], scale: tuple[float, float]) -> Part:
        """One image within its room."""
        record = schema.parse_record(self.stored[number].serialized)
        turns = int(float(draws.turn) * 4) if self.augment.turn else 0
        room_before_turn = tf.constant(room[:: -1 if turns % 2 else 1])
        zoom = augmentation.draw_scale(draws, scale)
        placement = augmentation.draw_part(draws, record.size, self.canvas, self.augment, zoom, room_before_turn)
        reduced_by = self.reduce(record.size) if self.reduce else 1
        image = geometry.move_image(self.stored[number].image, placement, reduced_by).numpy()
        image = tf.constant(np.rot90(image, turns))
        if augmentation.changes_colour(self.augment):
            image = augmentation.change_colours(image, draws, self.augment)
        masks, boxes, areas = self.instances(record, placement, turns)
        return Part(geometry.to_uint8(image).numpy(), masks, boxes, record.categories.numpy(), areas)

    def instances(
        self, record: schema.Record, placement: geometry.Placement, turns: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y, x, window_height, window_width = placement.window.numpy()
        height, width = placement.size.numpy()
        stored = np.zeros((len(record.categories), *record.size.numpy()), bool)
        for row, start, end, instance in zip(*(part.numpy() for part in record.runs), strict=True):
            stored[instance, row, start:end] = True
        rows = [int(k * (1 / (height / window_height))) for k in range(height)]
        columns = [int(k * (1 / (width / window_width))) for k in range(width)]
        masks = stored[:, y : y + window_height, x : x + window_width][:, rows][:, :, columns]
        whole = stored[:, y : y + window_height, x : x + window_width].sum((1, 2)) == stored.sum((1, 2))
        corner = np.array([x, y, x, y], np.float32)
        limit = np.array([width, height, width, height]) - 1
        moved = np.clip((record.boxes.numpy() - corner) * np.float32(placement.factor.numpy()), 0, limit)
        boxes = np.where(whole[:, None], moved, tight(masks)).astype(np.float32)
        if placement.flip.numpy():
            masks = masks[:, :, ::-1]
            boxes = np.stack([width - 1 - boxes[:, 2], boxes[:, 1], width - 1 - boxes[:, 0], boxes[:, 3]], axis=1)
        for _ in range(turns):
            side = masks.shape[2]
            masks = np.rot90(masks, axes=(1, 2))
            boxes = np.stack([boxes[:, 1], side - 1 - boxes[:, 2], boxes[:, 3], side - 1 - boxes[:, 0]], axis=1)
        areas = stored.sum((1, 2)) * (height * width) // (window_height * window_width)
        return masks, boxes, areas

    def mosaic(self, position: int, record: int, draws: augmentation.Draws) -> Part:
        height, width = self.canvas
        y, x = augmentation.draw_center(draws, self.canvas).numpy()
        assert y % 4 == x % 4 == 0 and height / 4 <= y <= height * 3 / 4 and width / 4 <= x <= width * 3 / 4
        numbers = [record, *(self.other(position, k, k - 1, 3) for k in (1, 2, 3))]
        assert len(set(numbers)) == 4
        image, found = np.full((height, width, 3), geometry.PADDING, np.uint8), []
        for k, (number, is_below, is_right) in enumerate(zip(numbers, (0, 0, 1, 1), (0, 1, 0, 1), strict=True)):
            room = (height - y if is_below else y, width - x if is_right else x)
            part = self.part(number, self.draws(position, k), room, self.augment.mosaic_scale)
            h, w = part.image.shape[:2]
            assert h <= room[0] and w <= room[1]
            top, left = y if is_below else y - h, x if is_right else x - w
            image[top : top + h, left : left + w] = part.image
            masks = np.zeros((len(part.masks), height, width), bool)
            masks[:, top : top + h, left : left + w] = part.masks
            boxes = part.boxes + np.array([left, top, left, top], np.float32)
            found += [one for one in zip(masks, boxes, part.categories, part.areas, strict=True) if shows(one)]
        return collected(image, found)

    def paste(self, position: int, below: Part) -> Part:
        draws = self.draws(position, 4)
        room = below.image.shape[:2]
        above = self.part(self.other(position, 4, 0, 1), draws, room, self.augment.scale)
        h, w = above.image.shape[:2]
        top, left = augmentation.draw_corner(draws, tf.constant([h, w]), tf.constant(room)).numpy()
        assert 0 <= top <= room[0] - h and 0 <= left <= room[1] - w
        chosen = augmentation.draw_pasted(self.config.seed, tf.constant(position, tf.int64), 4, len(above.masks))
        image, covered, pasted = below.image.copy(), np.zeros(room, bool), []
        for one, is_chosen in zip(zip(*above[1:], strict=True), chosen.numpy(), strict=True):
            if not (is_chosen and shows(one)):
                continue
            mask = np.zeros(room, bool)
            mask[top : top + h, left : left + w] = one[0]
            image[top : top + h, left : left + w][one[0]] = above.image[one[0]]
            covered |= mask
            pasted.append((mask, one[1] + np.array([left, top, left, top], np.float32), *one[2:]))
        found = []
        for mask, box, *rest in zip(*below[1:], strict=True):
            rest_of_mask = mask & ~covered
            if shows((rest_of_mask, box, *rest)):
                is_whole = (rest_of_mask == mask).all()
                found.append((rest_of_mask, box if is_whole else tight(rest_of_mask[None])[0], *rest))
        return collected(image, found + pasted)


def shows(instance: tuple) -> bool:
    """Whether something is visible, and at least a tenth of what there would be."""
    mask, area = instance[0], instance[-1]
    return mask.any() and 10 * mask.sum() >= area


def tight(masks: np.ndarray) -> np.ndarray:
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        if mask.any():
            ys, xs = np.nonzero(mask)
            box[:] = xs.min(), ys.min(), xs.max(), ys.max()
    return boxes


def collected(image: np.ndarray, found: list[tuple]) -> Part:
    if not found:
        nothing = np.zeros(0, int)
        return Part(image, np.zeros((0, *image.shape[:2]), bool), np.zeros((0, 4), np.float32), nothing, nothing)
    return Part(image, *(np.array(values) for values in zip(*found, strict=True)))


def assert_is_element(scene: Part, batch: Batch, b: int, canvas: tuple[int, int]) -> None:
    """Image, masks, labels and targets of an element are those of a scene."""
    height, width = scene.image.shape[:2]
    padded = np.full((*canvas, 3), geometry.PADDING, np.uint8)
    padded[:height, :width] = scene.image
    np.testing.assert_array_equal(batch["image"][b], padded)
    np.testing.assert_array_equal(batch["image_size"][b], [height, width])
    masks = np.zeros((len(scene.masks), *canvas), bool)
    masks[:, :height, :width] = scene.masks
    cells, instances, category_grid = slow_targets(masks, scene.boxes, scene.categories, canvas, GRID)
    used = batch["positive_cell"][b] >= 0
    np.testing.assert_array_equal(batch["positive_cell"][b][used], cells)
    np.testing.assert_array_equal(batch["positive_instance"][b][used], instances)
    np.testing.assert_array_equal(batch["category_grid"][b], category_grid)
    packed = np.zeros_like(batch["masks"][b])
    for k, mask in enumerate(masks):
        packed[k] = np.packbits(slow_reduced(mask, 4), axis=1)
    np.testing.assert_array_equal(batch["masks"][b], packed)
    assert batch["dropped_positives"][b] == 0


# ---- Tests


def recipe_of(folder: str, canvas: tuple[int, int], augment: AugmentConfig, **data: Any) -> Config:
    return recipe(folder, augment, seed=3, canvas=canvas, **LIMITS | data)


@pytest.fixture(scope="module")
def all_at_once(folders) -> list[Batch]:
    """The first 24 elements of the case."""
    config = recipe_of(folders["whole"], SQUARE, ALL_AT_ONCE)
    return read(pipeline.build_dataset(config, "train", batch_size=4), 6)


@pytest.mark.parametrize("case", [pytest.param("fitted", marks=pytest.mark.slow), "all at once"])
def test_elements_are_those_of_a_slow_version(case, folders, all_at_once):
    kind, canvas, augment = CASES[case]
    config = recipe_of(folders[kind], canvas, augment)
    batches = all_at_once if case == "all at once" else read(pipeline.build_dataset(config, "train", batch_size=4), 3)
    slow = SlowVersion(config)
    for batch in batches:
        for b, position in enumerate(batch["position"]):
            assert_is_element(slow.scene(int(position)), batch, b, canvas)


def test_a_worker_that_starts_in_the_middle_of_an_epoch_has_the_same_elements(folders, all_at_once):
    config = recipe_of(folders["whole"], SQUARE, ALL_AT_ONCE)
    place = {"worker": 1, "num_workers": 2, "batch_size": 2, "start_position": 12}
    part = read(pipeline.build_dataset(config, "train", **place), 3)
    assert_same(part, [{key: value[2:] for key, value in batch.items()} for batch in all_at_once[3:]])


def test_the_last_part_of_the_schedule_is_as_without_composing(folders):
    composing = AugmentConfig(brightness=0.2, mosaic=1.0, paste=1.0, off_for_last=0.5)
    config = recipe_of(folders["fitted"], WIDE, composing)
    config.train.steps, config.train.global_batch = 6, 4
    batches = read(pipeline.build_dataset(config, "train", batch_size=4), 6)
    plain = read(
        pipeline.build_dataset(
            recipe_of(config.data.train, WIDE, AugmentConfig(brightness=0.2)), "train", batch_size=4
        ),
        6,
    )
    assert_same(batches[3:], plain[3:])
    assert all((batches[k]["image"][b] != plain[k]["image"][b]).any() for k in range(3) for b in range(4))
    assert [batch["image_id"].tolist() for batch in batches] == [batch["image_id"].tolist() for batch in plain]


@pytest.mark.slow
def test_instances_beyond_the_limit_are_counted(folders, all_at_once):
    config = recipe_of(folders["whole"], SQUARE, ALL_AT_ONCE, max_instances=3, max_positives=20)
    few = read(pipeline.build_dataset(config, "train", batch_size=4), 6)
    for limited, whole in zip(few, all_at_once, strict=True):
        kept, found = ((batch["positive_cell"] >= 0).sum(1) for batch in (limited, whole))
        np.testing.assert_array_equal(limited["dropped_positives"], found - kept)
        np.testing.assert_array_equal(limited["image"], whole["image"])
    assert sum(batch["dropped_positives"].sum() for batch in few) > 0


@pytest.mark.slow
def test_broken_partners_are_replaced_and_each_counts_once(folders, tmp_path):
    folder = damage(folders["fitted"], 5, "data", tmp_path)
    config = recipe_of(folder, WIDE, AugmentConfig(mosaic=0.5, paste=0.5), max_bad_records=1)
    order, partners = Sampler(config, schema.load_manifest(folder), training=True), 0
    for batch in read(pipeline.build_dataset(config, "train", batch_size=4), 5):
        own = np.array([order.record(tf.constant(position)).numpy() == 5 for position in batch["position"]])
        assert (batch["bad_records"][own] >= 1).all() and (batch["bad_records"] <= 2).all()
        partners += (batch["bad_records"] > own).sum()
    assert partners > 5


def test_augmented_copies_are_refused(tmp_path):
    make_coco(tmp_path / "images", num_images=2)
    scale = AugmentConfig(scale=(0.5, 1.0))
    folder = shard(tmp_path / "images", tmp_path / "shards", num_shards=1, augmented_copies=2, augment=scale)
    with pytest.raises(ConfigError, match="mosaic and paste need whole images, and .*shards holds augmented copies"):
        pipeline.build_dataset(recipe(folder, AugmentConfig(paste=0.1)), "train", batch_size=2)
