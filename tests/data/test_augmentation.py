"""Augmentation: what is drawn keeps its bounds and never changes; colour changes are what they are called."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import AugmentConfig
from solo_dist.data import augmentation, geometry

# ---- Geometry

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
        draws = augmentation.draw(3, tf.constant(position, tf.int64))
        placement = augmentation.draw_placement(draws, tf.constant(size), canvas, augment)
        y, x, height, width = placement.window.numpy()
        firsts.append((y, x))
        assert y >= 0 and x >= 0 and height >= 1 and width >= 1
        assert y + height <= size[0] and x + width <= size[1]
        out = placement.size.numpy()
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
    draws = augmentation.draw(0, tf.constant(5, tf.int64))
    placement = augmentation.draw_placement(draws, tf.constant([480, 640]), (512, 512), AugmentConfig(flip=False))
    np.testing.assert_array_equal(placement.window, [0, 0, 480, 640])
    np.testing.assert_array_equal(placement.size, [384, 512])
    assert not placement.flip


def test_windows_of_shrunk_pictures_begin_and_end_at_their_pixels():
    for position in range(60):
        size = [(701, 902), (517, 3001), (9, 4000), (5, 1000)][position % 4]
        augment = AugmentConfig(crop=0.45, scale=(0.5, 1.0))
        step = int(geometry.reduction(tf.constant(size), (64, 96), augment.scale[1]))
        draws = augmentation.draw(2, tf.constant(position, tf.int64))
        window = augmentation.draw_placement(draws, tf.constant(size), (64, 96), augment).window.numpy()
        assert step > 1
        for begin, side, whole in zip(window[:2], window[2:], size, strict=True):
            assert begin % step == 0 and begin >= 0 and side > 0
            assert begin + side == whole or (begin + side) % step == 0 and begin + side < whole


# ---- Random numbers

GOLDEN_DRAWS = [0.4852798, 0.09881318, 0.30029237, 0.7799463, 0.98571563, 0.81875873, 0.24832976] + [
    0.8999468,
    0.5354089,
    0.71473157,
    0.08655262,
    0.8431921,
    0.45863986,
    0.33896542,
]


def test_draws_never_change():
    # Stored numbers: a change of the generator or of the order of the draws would silently change every run.
    draws = [float(value) for value in augmentation.draw(7, tf.constant(123456789012, tf.int64))]
    np.testing.assert_allclose(draws[: len(GOLDEN_DRAWS)], GOLDEN_DRAWS, rtol=1e-6)
    assert len(set(draws)) == len(draws)


def test_draws_depend_on_seed_and_position_only():
    def drawn(seed: int, position: int) -> list[float]:
        return [float(value) for value in augmentation.draw(seed, tf.constant(position, tf.int64))]

    compiled = tf.function(lambda position: augmentation.draw(1, position))
    assert drawn(1, 2) == [float(value) for value in compiled(tf.constant(2, tf.int64))]
    assert drawn(1, 2) != drawn(1, 3) and drawn(1, 2) != drawn(2, 2)


# ---- Colour


def colours(**changes: float) -> tuple[augmentation.Draws, AugmentConfig]:
    """Draws that realise the given changes exactly: the largest of what the configuration allows."""
    ones = augmentation.Draws(*[tf.constant(1.0)] * len(augmentation.Draws._fields))
    return ones, AugmentConfig(**changes)


PICTURE = np.random.default_rng(1).integers(40, 200, (9, 11, 3), np.uint8)


def test_brightness_shifts_by_a_share_of_the_range():
    changed = augmentation.change_colours(tf.constant(PICTURE), *colours(brightness=0.1)).numpy()
    np.testing.assert_array_equal(changed, np.floor(PICTURE + 25.5 + 0.5))
    bright = augmentation.change_colours(tf.constant(PICTURE), *colours(brightness=1.0)).numpy()
    assert (bright == 255).all()


def test_contrast_stretches_about_the_mean_grey():
    changed = augmentation.change_colours(tf.constant(PICTURE), *colours(contrast=0.25)).numpy()
    grey = (PICTURE @ augmentation.LUMA.astype(np.float64)).mean()
    np.testing.assert_allclose(changed, np.clip(grey + 1.25 * (PICTURE - grey), 0, 255), atol=0.51)


def test_saturation_stretches_about_each_pixels_grey():
    changed = augmentation.change_colours(tf.constant(PICTURE), *colours(saturation=0.5)).numpy()
    grey = (PICTURE @ augmentation.LUMA.astype(np.float64))[..., None]
    np.testing.assert_allclose(changed, np.clip(grey + 1.5 * (PICTURE - grey), 0, 255), atol=0.8)


def test_hue_keeps_grey_and_brightness_and_turns_colours():
    changed = augmentation.change_colours(tf.constant(PICTURE), *colours(hue=0.03)).numpy().astype(float)
    luma = augmentation.LUMA.astype(np.float64)
    inside = ((changed > 0) & (changed < 255)).all(-1)
    np.testing.assert_allclose((changed @ luma)[inside], (PICTURE @ luma)[inside], atol=1.0)
    assert np.abs(changed - PICTURE).max() > 5
    grey = np.full((2, 2, 3), 90, np.uint8)
    np.testing.assert_array_equal(augmentation.change_colours(tf.constant(grey), *colours(hue=0.5)), grey)


def test_colour_changes_compose_as_applied_one_after_another():
    draws, together = colours(brightness=0.05, contrast=0.1, saturation=0.2, hue=0.02)
    pixels = tf.constant(np.clip(PICTURE, 80, 160))
    wanted = pixels
    for change in ({"brightness": 0.05}, {"contrast": 0.1}, {"saturation": 0.2}, {"hue": 0.02}):
        wanted = augmentation.change_colours(wanted, draws, AugmentConfig(**change))
    changed = augmentation.change_colours(pixels, draws, together)
    np.testing.assert_allclose(tf.cast(changed, tf.float32), tf.cast(wanted, tf.float32), atol=4)


def test_no_change_is_no_change():
    half = augmentation.Draws(*[tf.constant(0.5)] * len(augmentation.Draws._fields))
    augment = AugmentConfig(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4)
    np.testing.assert_array_equal(augmentation.change_colours(tf.constant(PICTURE), half, augment), PICTURE)
