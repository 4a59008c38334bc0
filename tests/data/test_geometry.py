"""Geometry: masks and boxes must follow the image, whatever the placement."""

from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from solo_dist.data import geometry
from solo_dist.masks import rle
from solo_dist.solo import targets

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


# ---- Independent slow versions


def draw_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """float [n, 2] of x, y -> bool [height, width]."""
    rle = coco_mask.merge(coco_mask.frPyObjects([points.reshape(-1).tolist()], height, width))
    return coco_mask.decode(rle).astype(bool)


def move_points(points: np.ndarray, placement: geometry.Placement) -> np.ndarray:
    """float [n, 2] of x, y in the stored image -> on the canvas, by the definition of the geometry."""
    y, x, height, width = placement.window.numpy()
    out_height, out_width = placement.size.numpy()
    moved = (points - [x, y]) * [out_width / width, out_height / height]
    if placement.flip.numpy():
        moved[:, 0] = out_width - moved[:, 0]
    return moved


def placed(window: Sequence[int], size: Sequence[int], factor: float = 1.0, flip: bool = False) -> geometry.Placement:
    return geometry.Placement(
        tf.constant(window), tf.constant(size, tf.int32), tf.constant(factor, tf.float64), tf.constant(flip)
    )


def mean_of_areas(values: np.ndarray, count: int) -> np.ndarray:
    """[n, ...] -> [count, ...]: means over `count` equal intervals of the first axis, each cut into `count` parts."""
    fine = values.repeat(count, axis=0)
    return fine.reshape(count, len(values), *values.shape[1:]).mean(1)


def interpolate(values: np.ndarray, count: int) -> np.ndarray:
    """[n, ...] -> [count, ...]: linear between the centres of the values, constant beyond the first and last."""
    position = np.clip((np.arange(count) + 0.5) * len(values) / count - 0.5, 0, len(values) - 1)
    below = position.astype(int)
    share = (position - below).reshape(-1, *[1] * (values.ndim - 1))
    return values[below] * (1 - share) + values[np.minimum(below + 1, len(values) - 1)] * share


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


def to_dense(runs: rle.Runs, count: int, height: int, width: int) -> np.ndarray:
    """Runs -> bool [count, height, width]."""
    dense = np.zeros((count, height, width), bool)
    for row, start, end, instance in zip(*(part.numpy() for part in runs), strict=True):
        assert 0 <= start < end <= width
        assert not dense[instance, row, start:end].any(), "runs overlap"
        dense[instance, row, start:end] = True
    return dense


def inclusive_boxes(masks: np.ndarray) -> np.ndarray:
    """bool [m, h, w] -> float32 [m, 4] of first and last pixels; zeros for an empty mask."""
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
    """A star-shaped polygon, partly outside the image at times; its inside is one piece without thin parts."""
    center = np.array([draw(st.floats(0, width)), draw(st.floats(0, height))])
    radii = np.array(draw(st.lists(st.floats(6, 30), min_size=6, max_size=9)))
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    return center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@st.composite
def geometries(draw: st.DrawFn, height: int, width: int) -> geometry.Placement:
    y, x = draw(st.integers(0, height // 2)), draw(st.integers(0, width // 2))
    # At 24 pixels and more, the polygons are larger than what two ways to draw an outline may differ by.
    window = [y, x, draw(st.integers(24, height - y)), draw(st.integers(24, width - x))]
    scale = draw(st.floats(0.4, 2.0))
    size = [max(4, round(side * scale / 4) * 4) for side in window[2:]]
    return placed(window, size, scale, draw(st.booleans()))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[int, int], list[np.ndarray], geometry.Placement]:
    height, width = draw(sides), draw(sides)
    shapes = [draw(polygons(height, width)) for _ in range(draw(st.integers(1, 3)))]
    return (height, width), shapes, draw(geometries(height, width))


def masks_of(shapes: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    return np.stack([draw_polygon(shape, height, width) for shape in shapes])


def move(masks: np.ndarray, boxes: np.ndarray, placement: geometry.Placement) -> tuple[rle.Runs, tf.Tensor]:
    runs = rle.from_numpy([rle.dense_to_runs(mask) for mask in masks])
    return geometry.move_instances(runs, tf.constant(boxes), tf.constant(masks.shape[1:]), placement)


# ---- Geometry


@PROPERTY
@given(scenes())
def test_masks_are_those_of_the_moved_polygons(scene):
    (height, width), shapes, placement = scene
    masks = masks_of(shapes, height, width)
    out_height, out_width = placement.size.numpy()
    runs, _ = move(masks, inclusive_boxes(masks), placement)
    moved = to_dense(runs, len(masks), out_height, out_width)
    zoom = max(out_height / placement.window.numpy()[2], out_width / placement.window.numpy()[3])
    for mask, shape in zip(moved, shapes, strict=True):
        wanted = draw_polygon(move_points(shape, placement), out_height, out_width)
        # A pixel of the outline, in the coarser of the two images.
        assert_equal_within_boundary(mask, wanted, radius=max(1, int(np.ceil(zoom))))


@PROPERTY
@given(scenes())
def test_masks_are_those_of_the_moved_image(scene):
    (height, width), shapes, placement = scene
    masks = masks_of(shapes, height, width)
    runs, _ = move(masks, inclusive_boxes(masks), placement)
    moved = to_dense(runs, len(masks), *placement.size.numpy())
    for before, after in zip(masks, moved, strict=True):
        image = np.repeat(before[:, :, None], 3, axis=2).astype(np.uint8) * 255
        painted = geometry.move_image(tf.constant(image), placement).numpy()[:, :, 0] > 127
        assert_equal_within_boundary(after, painted, radius=1)


@PROPERTY
@given(scenes())
def test_boxes_and_centres_agree_with_the_moved_masks(scene):
    (height, width), shapes, placement = scene
    masks = masks_of(shapes, height, width)
    boxes = inclusive_boxes(masks)
    runs, moved_boxes = move(masks, boxes, placement)
    moved = to_dense(runs, len(masks), *placement.size.numpy())
    centers, areas = (value.numpy() for value in targets.mass_centers(runs, len(masks)))
    np.testing.assert_array_equal(areas, moved.sum((1, 2)))
    y, x, window_height, window_width = placement.window.numpy()
    for before, after, box, center in zip(masks, moved, moved_boxes.numpy(), centers, strict=True):
        if not after.any():
            continue
        ys, xs = np.nonzero(after)
        np.testing.assert_allclose(center, [xs.mean(), ys.mean()], rtol=1e-6)
        window = before[y : y + window_height, x : x + window_width]
        if window.sum() < before.sum():
            np.testing.assert_array_equal(box, inclusive_boxes(after[None])[0])
        else:
            # Sides were rounded to multiples of 4, boxes were not: up to 2 pixels at the far end of the image.
            zoom = max(placement.size.numpy() / [window_height, window_width])
            assert np.abs(box - inclusive_boxes(after[None])[0]).max() <= 2 + max(1, zoom)


def test_an_instance_outside_the_window_leaves_nothing():
    masks = np.zeros((2, 32, 32), bool)
    masks[0, 2:6, 2:6] = masks[1, 20:28, 18:30] = True
    placement = placed([16, 16, 16, 8], [16, 8])
    runs, boxes = move(masks, inclusive_boxes(masks), placement)
    moved = to_dense(runs, 2, 16, 8)
    assert not moved[0].any()
    np.testing.assert_array_equal(moved[1], masks[1, 16:32, 16:24])
    np.testing.assert_array_equal(boxes[1], [2, 4, 7, 11])


def test_a_whole_instance_keeps_its_annotated_box():
    masks = np.zeros((1, 40, 40), bool)
    masks[0, 10:20, 10:20] = True
    annotated = np.array([[9.5, 8.25, 21.0, 20.5]], np.float32)
    placement = placed([4, 2, 36, 38], [36, 38], flip=True)
    _, boxes = move(masks, annotated, placement)
    np.testing.assert_array_equal(boxes, [[37 - 19.0, 4.25, 37 - 7.5, 16.5]])


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
    assert geometry.reduction(tf.constant(size), (64, 96), scale[1]) == wanted


def test_a_shrunk_picture_moves_as_the_whole_one():
    ramp = np.add.outer(np.arange(80), np.arange(120)).astype(np.float32)
    small = ramp.reshape(20, 4, 30, 4).mean((1, 3))
    image, shrunk = (tf.constant(np.repeat(values[:, :, None], 3, 2)) for values in (ramp, small))
    placement = placed([8, 20, 56, 100], [12, 20], 0.2)
    np.testing.assert_allclose(
        geometry.move_image(shrunk, placement, 4)[1:-1, 1:-1],
        geometry.move_image(image, placement)[1:-1, 1:-1],
        atol=0.6,
    )


def test_window_is_cut_before_it_is_resized():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    placement = placed([5, 7, 30, 20], [44, 36], 1.5, flip=True)
    wanted = tf.image.resize(image[5:35, 7:27], (44, 36)).numpy()[:, ::-1]
    np.testing.assert_allclose(geometry.move_image(tf.constant(image), placement), wanted, atol=1e-3)


def test_resizing_and_flipping_are_those_of_the_official_pipeline(golden):
    """Pixels within a level of OpenCV's fixed-point resize, masks exact (quirk 16).

    Boxes scale by one factor, whatever the sides are rounded to.
    """
    g = golden("pipeline_up")
    height, width = g["image_bgr"].shape[:2]
    size = g["img_shape"][:2].astype(np.int32)
    whole, factor = [0, 0, height, width], float(g["scale_factor"])
    plain = placed(whole, size, factor)
    resized = geometry.to_uint8(geometry.move_image(tf.constant(g["image_bgr"]), plain)).numpy()
    assert np.abs(resized.astype(int) - g["resized_bgr_u8"]).max() <= 1

    flipped = placed(whole, size, factor, bool(g["flip"]))
    masks = np.unpackbits(g["gt_masks"], axis=1)[:, : height * width].reshape(-1, height, width).astype(bool)
    runs, boxes = move(masks, g["gt_boxes"], flipped)
    count, out_height, out_width = g["out_mask_shape"]
    wanted = np.unpackbits(g["out_masks"], axis=1)[:, : out_height * out_width].reshape(g["out_mask_shape"])
    np.testing.assert_array_equal(to_dense(runs, count, out_height, out_width), wanted.astype(bool))
    np.testing.assert_allclose(boxes, g["out_boxes"], atol=1e-3)


@pytest.mark.parametrize(
    ("size", "steps"), [((40, 60), 1), ((100, 77), 1), ((131, 180), 2), ((257, 199), 4), ((515, 1023), 8)]
)
def test_a_letterboxed_image_is_means_of_squares_then_linear_interpolation(size, steps):
    image = np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)
    canvas, fitted = (part.numpy() for part in geometry.letterbox(tf.constant(image), (64, 96)))
    factor = min(64 / size[0], 96 / size[1])
    assert np.abs(fitted - np.multiply(size, factor)).max() <= 2 and (fitted % 4 == 0).all()
    wanted = image.astype(float)
    for axis in (0, 1):
        wanted = np.moveaxis(wanted, axis, 0)
        wanted = interpolate(mean_of_areas(wanted, -(-size[axis] // steps)), fitted[axis])
        wanted = np.moveaxis(wanted, 0, axis)
    height, width = fitted
    np.testing.assert_allclose(canvas[:height, :width], wanted, atol=0.51)
    assert (canvas[height:] == geometry.PADDING).all() and (canvas[:, width:] == geometry.PADDING).all()


@pytest.mark.parametrize("turns", range(4))
def test_image_masks_and_boxes_turn_together(turns):
    random = np.random.default_rng(turns)
    masks = random.random((3, 20, 32)) < 0.2
    masks[2] = False
    runs = rle.from_numpy([rle.dense_to_runs(mask) for mask in masks])
    boxes = inclusive_boxes(masks)
    number = tf.constant(turns)
    moved, moved_boxes, size = geometry.turn_instances(runs, tf.constant(boxes), tf.constant([20, 32]), number)
    wanted = np.rot90(masks, turns, axes=(1, 2))
    np.testing.assert_array_equal(size, wanted.shape[1:])
    np.testing.assert_array_equal(to_dense(moved, 3, *wanted.shape[1:]), wanted)
    np.testing.assert_array_equal(moved_boxes[:2], inclusive_boxes(wanted)[:2])
    image = random.integers(0, 256, (20, 32, 3), np.uint8)
    np.testing.assert_array_equal(geometry.turn_image(tf.constant(image), number), np.rot90(image, turns))


def test_scaling_and_mirroring_boxes():
    boxes = tf.constant([[10.0, 4.0, 29.0, 30.0], [-3.0, 5.0, 200.0, 7.0]])
    scaled = geometry.scale_boxes(boxes, tf.constant(0.5, tf.float64), tf.constant([14, 80]))
    np.testing.assert_allclose(scaled, [[5.0, 2.0, 14.5, 13.0], [0.0, 2.5, 79.0, 3.5]])
    np.testing.assert_allclose(geometry.flip_boxes(scaled, 80)[0], [64.5, 2.0, 74.0, 13.0])
    np.testing.assert_array_equal(geometry.flip_boxes(geometry.flip_boxes(boxes, 160), 160), boxes)


def test_canvas_is_padded_right_and_below():
    image = tf.fill([8, 12, 3], tf.constant(7, tf.uint8))
    padded = geometry.pad_to_canvas(image, (32, 32)).numpy()
    assert (padded[:8, :12] == 7).all()
    assert (padded[8:] == geometry.PADDING).all() and (padded[:, 12:] == geometry.PADDING).all()
