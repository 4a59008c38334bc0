"""Augmentation: the masks must follow the picture, whatever is drawn."""

from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from solo_dist.config import AugmentConfig
from solo_dist.data import transforms
from solo_dist.masks import rle as row_runs
from solo_dist.solo import targets

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


# ---- Independent slow versions


def draw_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """float [n, 2] of x, y -> bool [height, width]."""
    rle = coco_mask.merge(coco_mask.frPyObjects([points.reshape(-1).tolist()], height, width))
    return coco_mask.decode(rle).astype(bool)


def move_points(points: np.ndarray, geometry: transforms.Geometry) -> np.ndarray:
    """float [n, 2] of x, y in the stored picture -> on the canvas, by the definition of the geometry."""
    y, x, height, width = geometry.window.numpy()
    out_height, out_width = geometry.size.numpy()
    moved = (points - [x, y]) * [out_width / width, out_height / height]
    if geometry.flip.numpy():
        moved[:, 0] = out_width - moved[:, 0]
    return moved


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    padded = np.pad(mask, radius)
    height, width = mask.shape
    offsets = range(2 * radius + 1)
    return np.any([padded[dy : dy + height, dx : dx + width] for dy in offsets for dx in offsets], axis=0)


def outline(mask: np.ndarray, radius: int) -> np.ndarray:
    return dilate(mask, radius) & dilate(~mask, radius)


def assert_equal_within_boundary(mask: np.ndarray, wanted: np.ndarray, radius: int) -> None:
    """Differences only within `radius` pixels of the outline of one of the two masks."""
    band = outline(wanted, radius) | outline(mask, radius)
    assert not ((mask != wanted) & ~band).any()


def to_dense(runs: row_runs.Runs, count: int, height: int, width: int) -> np.ndarray:
    """Runs -> bool [count, height, width]."""
    dense = np.zeros((count, height, width), bool)
    for row, start, end, instance in zip(*(part.numpy() for part in runs), strict=True):
        assert 0 <= start < end <= width
        assert not dense[instance, row, start:end].any(), "runs overlap"
        dense[instance, row, start:end] = True
    return dense


def inclusive_boxes(masks: np.ndarray) -> np.ndarray:
    """bool [m, h, w] -> float32 [m, 4] of first and last pixels; zeros where empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        if mask.any():
            ys, xs = np.nonzero(mask)
            box[:] = xs.min(), ys.min(), xs.max(), ys.max()
    return boxes


# ---- Cases

sides = st.integers(48, 90)


@st.composite
def polygons(draw: st.DrawFn, height: int, width: int) -> np.ndarray:
    """A star-shaped polygon, partly outside the picture at times; its inside is one piece without thin parts."""
    center = np.array([draw(st.floats(0, width)), draw(st.floats(0, height))])
    radii = np.array(draw(st.lists(st.floats(6, 30), min_size=6, max_size=9)))
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    return center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@st.composite
def geometries(draw: st.DrawFn, height: int, width: int) -> transforms.Geometry:
    y, x = draw(st.integers(0, height // 2)), draw(st.integers(0, width // 2))
    # At 24 pixels and more, the polygons are larger than what two ways to draw an outline may differ by.
    window = [y, x, draw(st.integers(24, height - y)), draw(st.integers(24, width - x))]
    scale = draw(st.floats(0.4, 2.0))
    size = [max(4, round(side * scale / 4) * 4) for side in window[2:]]
    return transforms.Geometry(tf.constant(window), tf.constant(size), tf.constant(draw(st.booleans())))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[int, int], list[np.ndarray], transforms.Geometry]:
    height, width = draw(sides), draw(sides)
    shapes = [draw(polygons(height, width)) for _ in range(draw(st.integers(1, 3)))]
    return (height, width), shapes, draw(geometries(height, width))


def masks_of(shapes: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    return np.stack([draw_polygon(shape, height, width) for shape in shapes])


def move(masks: np.ndarray, boxes: np.ndarray, geometry: transforms.Geometry) -> tuple[row_runs.Runs, tf.Tensor]:
    runs = row_runs.from_numpy([row_runs.dense_to_runs(mask) for mask in masks])
    return transforms.move_instances(runs, tf.constant(boxes), tf.constant(masks.shape[1:]), geometry)


# ---- Geometry


@PROPERTY
@given(scenes())
def test_masks_are_those_of_the_moved_polygons(scene):
    (height, width), shapes, geometry = scene
    masks = masks_of(shapes, height, width)
    out_height, out_width = geometry.size.numpy()
    runs, _ = move(masks, inclusive_boxes(masks), geometry)
    moved = to_dense(runs, len(masks), out_height, out_width)
    zoom = max(out_height / geometry.window.numpy()[2], out_width / geometry.window.numpy()[3])
    for mask, shape in zip(moved, shapes, strict=True):
        wanted = draw_polygon(move_points(shape, geometry), out_height, out_width)
        # A pixel of the outline, in the coarser of the two pictures.
        assert_equal_within_boundary(mask, wanted, radius=max(1, int(np.ceil(zoom))))


@PROPERTY
@given(scenes())
def test_masks_are_those_of_the_moved_picture(scene):
    (height, width), shapes, geometry = scene
    masks = masks_of(shapes, height, width)
    runs, _ = move(masks, inclusive_boxes(masks), geometry)
    moved = to_dense(runs, len(masks), *geometry.size.numpy())
    for before, after in zip(masks, moved, strict=True):
        picture = np.repeat(before[:, :, None], 3, axis=2).astype(np.uint8) * 255
        painted = transforms.move_image(tf.constant(picture), geometry).numpy()[:, :, 0] > 127
        assert_equal_within_boundary(after, painted, radius=1)


@PROPERTY
@given(scenes())
def test_boxes_and_centres_agree_with_the_moved_masks(scene):
    (height, width), shapes, geometry = scene
    masks = masks_of(shapes, height, width)
    boxes = inclusive_boxes(masks)
    runs, moved_boxes = move(masks, boxes, geometry)
    moved = to_dense(runs, len(masks), *geometry.size.numpy())
    centers, areas = (value.numpy() for value in targets.mass_centers(runs, len(masks)))
    np.testing.assert_array_equal(areas, moved.sum((1, 2)))
    y, x, window_height, window_width = geometry.window.numpy()
    for before, after, box, center in zip(masks, moved, moved_boxes.numpy(), centers, strict=True):
        if not after.any():
            continue
        ys, xs = np.nonzero(after)
        np.testing.assert_allclose(center, [xs.mean(), ys.mean()], rtol=1e-6)
        window = before[y : y + window_height, x : x + window_width]
        if window.sum() < before.sum():
            np.testing.assert_array_equal(box, inclusive_boxes(after[None])[0])
        else:
            zoom = max(geometry.size.numpy() / [window_height, window_width])
            assert np.abs(box - inclusive_boxes(after[None])[0]).max() <= max(1, zoom)


def test_an_instance_outside_the_window_leaves_nothing():
    masks = np.zeros((2, 32, 32), bool)
    masks[0, 2:6, 2:6] = masks[1, 20:28, 18:30] = True
    geometry = transforms.Geometry(tf.constant([16, 16, 16, 8]), tf.constant([16, 8]), tf.constant(False))
    runs, boxes = move(masks, inclusive_boxes(masks), geometry)
    moved = to_dense(runs, 2, 16, 8)
    assert not moved[0].any()
    np.testing.assert_array_equal(moved[1], masks[1, 16:32, 16:24])
    np.testing.assert_array_equal(boxes[1], [2, 4, 7, 11])


def test_a_whole_instance_keeps_its_annotated_box():
    masks = np.zeros((1, 40, 40), bool)
    masks[0, 10:20, 10:20] = True
    annotated = np.array([[9.5, 8.25, 21.0, 20.5]], np.float32)
    geometry = transforms.Geometry(tf.constant([4, 2, 36, 38]), tf.constant([36, 38]), tf.constant(True))
    _, boxes = move(masks, annotated, geometry)
    np.testing.assert_array_equal(boxes, [[37 - 19.0, 4.25, 37 - 7.5, 16.5]])


AUGMENTS = {
    "jitter": AugmentConfig(scale=(0.8, 1.2)),
    "large jitter": AugmentConfig(scale=(0.1, 2.0)),
    "crop": AugmentConfig(crop=0.2),
    "short sides": AugmentConfig(short_sides=(32, 48, 64)),
    "everything": AugmentConfig(scale=(0.5, 1.5), crop=0.2, short_sides=(40, 56)),
}


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
@pytest.mark.parametrize("size", [(64, 96), (97, 41), (300, 200)])
def test_drawn_geometry_keeps_its_bounds(augment, size):
    canvas = (64, 96)
    fit = min(canvas[0] / size[0], canvas[1] / size[1])
    zooms, firsts = [], []
    for position in range(40):
        draws = transforms.draw(3, tf.constant(position, tf.int64))
        geometry = transforms.draw_geometry(draws, tf.constant(size), canvas, augment)
        y, x, height, width = geometry.window.numpy()
        firsts.append((y, x))
        assert y >= 0 and x >= 0 and height >= 1 and width >= 1
        assert y + height <= size[0] and x + width <= size[1]
        out = geometry.size.numpy()
        assert (out % 4 == 0).all() and (out >= 4).all() and (out <= canvas).all()
        zoom = out / [height, width] / fit
        zooms.append(zoom[np.argmax(out)])
        low, high = augment.scale
        if augment.short_sides:
            shorts = [min(1, side / min(size) / fit) for side in augment.short_sides]
            low, high = low * min(shorts), high * max(shorts)
        # The rounding to multiples of 4 moves a side by up to 2 pixels.
        slack = 1 + 2.5 / out
        assert (zoom >= low / slack).all() and (zoom <= high * slack).all()
        if augment.crop and augment.scale == (1.0, 1.0):
            assert height >= size[0] * (1 - 2 * augment.crop) - 1 and y <= size[0] * augment.crop
    if augment.scale != (1.0, 1.0):
        assert max(zooms) / min(zooms) > 1.2, "the scale does not vary"
    if augment.crop:
        assert len(set(firsts)) > 10, "the crop does not vary"


def test_without_geometric_changes_the_picture_fills_the_canvas():
    draws = transforms.draw(0, tf.constant(5, tf.int64))
    geometry = transforms.draw_geometry(draws, tf.constant([480, 640]), (512, 512), AugmentConfig(flip=False))
    np.testing.assert_array_equal(geometry.window, [0, 0, 480, 640])
    np.testing.assert_array_equal(geometry.size, [384, 512])
    assert not geometry.flip


@pytest.mark.parametrize(
    ("size", "scale", "wanted"),
    [
        ((64, 96), (1.0, 1.0), 1),
        ((127, 96), (1.0, 1.0), 1),
        ((128, 96), (1.0, 1.0), 2),
        ((64, 192), (0.1, 0.5), 2),
        ((300, 400), (1.0, 1.0), 4),
        ((300, 400), (0.1, 2.0), 2),
        ((3000, 4000), (1.0, 1.0), 8),
        ((20, 30), (1.0, 1.0), 1),
    ],
)
def test_pictures_are_shrunk_on_decoding_as_far_as_no_pixel_is_missed(size, scale, wanted):
    assert transforms.reduction(tf.constant(size), (64, 96), AugmentConfig(scale=scale)) == wanted


def test_windows_of_shrunk_pictures_begin_and_end_at_their_pixels():
    for position in range(60):
        size = [(701, 902), (517, 3001), (9, 4000), (5, 1000)][position % 4]
        augment = AugmentConfig(crop=0.45, scale=(0.5, 1.0))
        step = int(transforms.reduction(tf.constant(size), (64, 96), augment))
        draws = transforms.draw(2, tf.constant(position, tf.int64))
        window = transforms.draw_geometry(draws, tf.constant(size), (64, 96), augment).window.numpy()
        assert step > 1
        for begin, side, whole in zip(window[:2], window[2:], size, strict=True):
            assert begin % step == 0 and begin >= 0 and side > 0
            assert begin + side == whole or (begin + side) % step == 0 and begin + side < whole


def test_a_shrunk_picture_moves_as_the_whole_one():
    ramp = np.add.outer(np.arange(80), np.arange(120)).astype(np.float32)
    small = ramp.reshape(20, 4, 30, 4).mean((1, 3))
    picture, shrunk = (tf.constant(np.repeat(values[:, :, None], 3, 2)) for values in (ramp, small))
    geometry = transforms.Geometry(tf.constant([8, 20, 56, 100]), tf.constant([12, 20]), tf.constant(False))
    np.testing.assert_allclose(
        transforms.move_image(shrunk, geometry, 4)[1:-1, 1:-1],
        transforms.move_image(picture, geometry)[1:-1, 1:-1],
        atol=0.6,
    )


def test_window_is_cut_before_it_is_resized():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    geometry = transforms.Geometry(tf.constant([5, 7, 30, 20]), tf.constant([44, 36]), tf.constant(True))
    wanted = tf.image.resize(image[5:35, 7:27], (44, 36)).numpy()[:, ::-1]
    np.testing.assert_allclose(transforms.move_image(tf.constant(image), geometry), wanted, atol=1e-3)


def test_resizing_and_flipping_are_those_of_the_official_pipeline(golden):
    """Pixels within a level of OpenCV's fixed-point resize, masks exact (quirk 16).

    Boxes are within a tenth of a pixel: ours scale by the rounded sides, the official ones by one factor.
    """
    g = golden("pipeline_up")
    height, width = g["image_bgr"].shape[:2]
    size = g["img_shape"][:2].astype(np.int32)
    whole = tf.constant([0, 0, height, width])
    plain = transforms.Geometry(whole, tf.constant(size), tf.constant(False))
    resized = transforms.to_uint8(transforms.move_image(tf.constant(g["image_bgr"]), plain)).numpy()
    assert np.abs(resized.astype(int) - g["resized_bgr_u8"]).max() <= 1

    flipped = transforms.Geometry(whole, tf.constant(size), tf.constant(bool(g["flip"])))
    masks = np.unpackbits(g["gt_masks"], axis=1)[:, : height * width].reshape(-1, height, width).astype(bool)
    runs, boxes = move(masks, g["gt_boxes"], flipped)
    count, out_height, out_width = g["out_mask_shape"]
    wanted = np.unpackbits(g["out_masks"], axis=1)[:, : out_height * out_width].reshape(g["out_mask_shape"])
    np.testing.assert_array_equal(to_dense(runs, count, out_height, out_width), wanted.astype(bool))
    np.testing.assert_allclose(boxes, g["out_boxes"], atol=0.1)


def test_canvas_is_padded_right_and_below():
    image = tf.fill([8, 12, 3], tf.constant(7, tf.uint8))
    padded = transforms.pad_to_canvas(image, (32, 32)).numpy()
    assert (padded[:8, :12] == 7).all()
    assert (padded[8:] == transforms.PADDING).all() and (padded[:, 12:] == transforms.PADDING).all()


# ---- Random numbers

GOLDEN_DRAWS = [0.4852798, 0.09881318, 0.30029237, 0.7799463]


def test_draws_never_change():
    # Stored numbers: a change of the generator or of the order of the draws would silently change every run.
    draws = [float(value) for value in transforms.draw(7, tf.constant(123456789012, tf.int64))]
    np.testing.assert_allclose(draws[:4], GOLDEN_DRAWS, rtol=1e-6)
    assert len(set(draws)) == len(draws)


def test_draws_depend_on_seed_and_position_only():
    def drawn(seed: int, position: int) -> list[float]:
        return [float(value) for value in transforms.draw(seed, tf.constant(position, tf.int64))]

    compiled = tf.function(lambda position: transforms.draw(1, position))
    assert drawn(1, 2) == [float(value) for value in compiled(tf.constant(2, tf.int64))]
    assert drawn(1, 2) != drawn(1, 3) and drawn(1, 2) != drawn(2, 2)


# ---- Colour


def colours(**changes: float) -> tuple[transforms.Draws, AugmentConfig]:
    """Draws that realise the given changes exactly: the largest of what the configuration allows."""
    ones = transforms.Draws(*[tf.constant(1.0)] * len(transforms.Draws._fields))
    return ones, AugmentConfig(**changes)


PICTURE = np.random.default_rng(1).integers(40, 200, (9, 11, 3), np.uint8)


def test_brightness_shifts_by_a_share_of_the_range():
    changed = transforms.change_colours(tf.constant(PICTURE), *colours(brightness=0.1)).numpy()
    np.testing.assert_array_equal(changed, np.floor(PICTURE + 25.5 + 0.5))
    bright = transforms.change_colours(tf.constant(PICTURE), *colours(brightness=1.0)).numpy()
    assert (bright == 255).all()


def test_contrast_stretches_about_the_mean_grey():
    changed = transforms.change_colours(tf.constant(PICTURE), *colours(contrast=0.25)).numpy()
    grey = (PICTURE @ transforms.LUMA.astype(np.float64)).mean()
    np.testing.assert_allclose(changed, np.clip(grey + 1.25 * (PICTURE - grey), 0, 255), atol=0.51)


def test_saturation_stretches_about_each_pixels_grey():
    changed = transforms.change_colours(tf.constant(PICTURE), *colours(saturation=0.5)).numpy()
    grey = (PICTURE @ transforms.LUMA.astype(np.float64))[..., None]
    np.testing.assert_allclose(changed, np.clip(grey + 1.5 * (PICTURE - grey), 0, 255), atol=0.8)


def test_hue_keeps_grey_and_brightness_and_turns_colours():
    changed = transforms.change_colours(tf.constant(PICTURE), *colours(hue=0.03)).numpy().astype(float)
    luma = transforms.LUMA.astype(np.float64)
    inside = ((changed > 0) & (changed < 255)).all(-1)
    np.testing.assert_allclose((changed @ luma)[inside], (PICTURE @ luma)[inside], atol=1.0)
    assert np.abs(changed - PICTURE).max() > 5
    grey = np.full((2, 2, 3), 90, np.uint8)
    np.testing.assert_array_equal(transforms.change_colours(tf.constant(grey), *colours(hue=0.5)), grey)


def test_colour_changes_compose_as_applied_one_after_another():
    draws, together = colours(brightness=0.05, contrast=0.1, saturation=0.2, hue=0.02)
    pixels = tf.constant(np.clip(PICTURE, 80, 160))
    wanted = pixels
    for change in ({"brightness": 0.05}, {"contrast": 0.1}, {"saturation": 0.2}, {"hue": 0.02}):
        wanted = transforms.change_colours(wanted, draws, AugmentConfig(**change))
    changed = transforms.change_colours(pixels, draws, together)
    np.testing.assert_allclose(tf.cast(changed, tf.float32), tf.cast(wanted, tf.float32), atol=4)


def test_no_change_is_no_change():
    half = transforms.Draws(*[tf.constant(0.5)] * len(transforms.Draws._fields))
    augment = AugmentConfig(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4)
    np.testing.assert_array_equal(transforms.change_colours(tf.constant(PICTURE), half, augment), PICTURE)
