"""Row runs: equal to dense masks under every transform, and COCO segmentations of all kinds, damaged ones too."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from solo_dist.masks import rle as runs


def masks_of(count, height, width, seed=0):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, height, width)) < rng.random((count, 1, 1))
    if count > 1:
        masks[0], masks[1] = False, True
    return masks


def drawn(triples, height, width):
    mask = np.zeros((height, width), bool)
    for row, start, end in triples:
        mask[row, start:end] = True
    return mask


def dense(moved, count, height, width):
    masks = np.zeros((count, height, width), bool)
    for row, start, end, instance in zip(*(part.numpy() for part in moved), strict=True):
        assert not masks[instance, row, start:end].any(), "runs overlap"
        masks[instance, row, start:end] = True
    return masks


@pytest.mark.parametrize("count", [0, 1, 255, 700])
def test_areas_of_any_number_of_masks(count):
    masks = masks_of(count, 20, 30)
    rles = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))) if count else []
    areas = runs.areas_of_rles(rles)
    assert areas.dtype == np.float64
    np.testing.assert_array_equal(areas, masks.sum(axis=(1, 2)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (17, 23)])
def test_dense_masks_survive_the_round_trip(shape):
    for mask in masks_of(4, *shape):
        triples = runs.dense_to_runs(mask)
        assert triples.dtype == np.int16
        np.testing.assert_array_equal(drawn(triples, *shape), mask)


def test_stored_runs_are_read_in_the_graph():
    masks = masks_of(5, 12, 14)
    encoded, counts = runs.encode_runs([runs.dense_to_runs(mask) for mask in masks])
    read = tf.function(runs.decode_runs)(tf.constant(encoded), tf.constant(counts))
    np.testing.assert_array_equal(dense(read, 5, 12, 14), masks)
    assert [len(part) for part in runs.decode_runs(tf.constant(runs.encode_runs([])[0]), tf.zeros([0], tf.int32))] == [
        0
    ] * 4


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_resampled_runs_are_the_resampled_masks(data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    rows = sorted(data.draw(st.lists(st.integers(0, height - 1), max_size=20)))
    columns = sorted(data.draw(st.lists(st.integers(0, width - 1), max_size=20)))
    masks = masks_of(3, height, width, data.draw(st.integers(0, 1000)))
    moved = runs.resample(
        runs.from_numpy([runs.dense_to_runs(mask) for mask in masks]),
        tf.constant(rows, tf.int32),
        tf.constant(columns, tf.int32),
        tf.constant([height, width]),
    )
    np.testing.assert_array_equal(dense(moved, 3, len(rows), len(columns)), masks[:, rows][:, :, columns])


def test_flip_areas_and_boxes_agree_with_dense_masks():
    masks = masks_of(6, 10, 15)
    masks[4] = False
    masks[4, 3, 7] = True
    mirrored = runs.flip(runs.from_numpy([runs.dense_to_runs(mask) for mask in masks]), 15)
    np.testing.assert_array_equal(dense(mirrored, 6, 10, 15), masks[:, :, ::-1])
    np.testing.assert_array_equal(runs.areas(mirrored, 6), masks.sum(axis=(1, 2)))
    for box, mask in zip(runs.tight_boxes(mirrored, 6).numpy(), masks[:, :, ::-1], strict=True):
        ys, xs = np.nonzero(mask)
        wanted = [xs.min(), ys.min(), xs.max(), ys.max()] if len(xs) else [0, 0, 0, 0]
        np.testing.assert_array_equal(box, wanted)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_transposed_runs_are_the_transposed_masks(height, width, seed):
    masks = masks_of(4, height, width, seed)
    moved = runs.transpose(runs.from_numpy([runs.dense_to_runs(mask) for mask in masks]), tf.constant([height, width]))
    np.testing.assert_array_equal(dense(moved, 4, width, height), masks.transpose(0, 2, 1))
    # As long as possible, and in order.
    wanted = runs.from_numpy([runs.dense_to_runs(mask.T) for mask in masks])
    for part, other in zip(moved, wanted, strict=True):
        np.testing.assert_array_equal(part, other)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 1000))
def test_subtracted_runs_are_the_masks_without_those_that_cover_them(height, width, seed):
    masks, cover = masks_of(3, height, width, seed), masks_of(3, height, width, seed + 1)
    cover = cover[[0, 2, 2][: seed % 3 + 1]]  # nothing, or a mask, or the same twice: runs of the cover may overlap
    below, above = (runs.from_numpy([runs.dense_to_runs(mask) for mask in part]) for part in (masks, cover))
    left = runs.subtract(below, above, tf.constant(width))
    np.testing.assert_array_equal(dense(left, 3, height, width), masks & ~cover.any(axis=0))


def test_selected_and_shifted_runs_and_pixels():
    masks = masks_of(5, 9, 7)
    all_runs = runs.from_numpy([runs.dense_to_runs(mask) for mask in masks])
    kept = np.array([True, False, True, True, False])
    np.testing.assert_array_equal(dense(runs.select(all_runs, tf.constant(kept)), 3, 9, 7), masks[kept])
    shifted = dense(runs.shift(all_runs, tf.constant([2, 3])), 5, 11, 10)
    np.testing.assert_array_equal(shifted, np.pad(masks, [(0, 0), (2, 0), (3, 0)]))
    index, column = runs.pixels(all_runs)
    found = np.zeros_like(masks)
    found[tf.gather(all_runs.instance, index), tf.gather(all_runs.row, index), column] = True
    np.testing.assert_array_equal(found, masks)
    assert len(index) == masks.sum()


def test_rows_of_runs_are_flipped():
    masks = masks_of(3, 10, 15)
    flipped = runs.flip_rows(runs.from_numpy([runs.dense_to_runs(mask) for mask in masks]), 10)
    np.testing.assert_array_equal(dense(flipped, 3, 10, 15), masks[:, ::-1])


@pytest.mark.parametrize("source", [1, 3, 37, 480, 640, 4032])
@pytest.mark.parametrize("target", [1, 4, 37, 512, 800, 1333])
def test_nearest_source_is_the_floor(source, target):
    pixels = runs.nearest_source(source, target).numpy()
    # Where x * source is a multiple of target the rounding of doubles decides, here as in OpenCV.
    exact = np.arange(target) * source // target
    sure = np.arange(target) * source % target != 0
    np.testing.assert_array_equal(pixels[sure], exact[sure])
    assert np.abs(pixels - exact).max() <= 1 and pixels.min() >= 0 and pixels.max() < source


def test_masks_are_resized_as_the_official_pipeline_does(golden):
    g = golden("pipeline_up")
    height, width = g["image_bgr"].shape[:2]
    new_height, new_width = (int(side) for side in g["img_shape"][:2])
    count, padded_height, padded_width = (int(side) for side in g["out_mask_shape"])
    source = np.unpackbits(g["gt_masks"], axis=1)[:, : height * width].reshape(count, height, width)
    wanted = np.unpackbits(g["out_masks"], axis=1)[:, : padded_height * padded_width]
    moved = runs.resample(
        runs.from_numpy([runs.dense_to_runs(mask) for mask in source]),
        runs.nearest_source(height, new_height),
        runs.nearest_source(width, new_width),
        tf.constant([height, width]),
    )
    assert g["flip"]
    moved = runs.flip(moved, new_width)
    np.testing.assert_array_equal(
        dense(moved, count, padded_height, padded_width), wanted.reshape(count, padded_height, padded_width)
    )


POLYGONS = [
    [[2, 2, 12, 2, 12, 9]],
    [[1.5, 1.5, 6, 1, 6, 6, 2, 6], [8, 8, 14, 8, 14, 10, 8, 10]],
    [[-5, 3, 9, -4, 30, 20]],
]


@pytest.mark.parametrize("polygons", POLYGONS)
def test_all_kinds_of_segmentations_give_the_same_runs(polygons):
    height, width = 12, 16
    compressed = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    wanted = coco_mask.decode(compressed)
    assert wanted.any()
    columns = wanted.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], columns, [2]]))) if columns[0] == 0 else None
    plain = {"size": [height, width], "counts": np.diff([0, *edges]).tolist() if edges is not None else [0]}
    kinds = [polygons, dict(compressed), {**compressed, "counts": compressed["counts"].decode()}]
    if edges is not None:
        kinds.append(plain)
    for kind in kinds:
        triples = runs.rle_to_runs(runs.segmentation_to_rle(kind, height, width))
        np.testing.assert_array_equal(drawn(triples, height, width), wanted)


def test_a_polygon_far_outside_is_clipped_to_its_visible_part():
    far = [[-1e9, 4, 1e9, 4, 1e9, 8, -1e9, 8]]
    mask = coco_mask.decode(runs.segmentation_to_rle(far, 12, 16))
    assert mask[4:8].all() and not mask[:4].any() and not mask[8:].any()


@pytest.mark.parametrize(
    "ring",
    [
        [256, 256, 4000, 900, 4000, 2200],
        [-3000, -1800, 3000, 1500, 3000, 4000, -3000, 4000],
        [100, -9000, 9000, 100, 100, 9000, 400, 300],
        [-9000, 256, 256, -9000, 9000, 256, 256, 9000],
    ],
)
def test_slopes_of_a_polygon_that_reaches_far_outside_stay(ring):
    mask = runs.segmentation_to_rle([ring], 512, 512)
    wanted = coco_mask.merge(coco_mask.frPyObjects([[float(value) for value in ring]], 512, 512))
    assert coco_mask.area(wanted) and coco_mask.iou([mask], [wanted], [0])[0, 0] > 0.998


def test_a_polygon_that_is_far_outside_altogether_has_no_pixel():
    for ring in ([1e9, 1e9, 2e9, 1e9, 2e9, 2e9], [-9e9, 3, -8e9, 3, -8e9, 5]):
        assert coco_mask.area(runs.segmentation_to_rle([ring], 12, 16)) == 0


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        "text",
        {},
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, float("inf")]],
        [[1, 2, 3, 4, 5, "6"]],
        [[1, 2, 3, 4, 5, None]],
        [[1, 2, 3, 4, 5, 10**400]],
        [{"x": 1}],
        {"size": [16, 12], "counts": [192]},
        {"size": [12, 16], "counts": [191]},
        {"size": [12, 16], "counts": [-1, 193]},
        {"size": [12, 16], "counts": [1.5, 190.5]},
        {"size": [12, 16], "counts": "zzzz"},
        {"size": [12, 16], "counts": "\u00e9"},
        {"size": [12, 16], "counts": ""},
        {"size": [12, 16], "counts": 5},
        {"size": [12, 16], "counts": [10**30]},
        {"size": 12, "counts": [192]},
    ],
)
def test_unusable_segmentations_have_a_reason(segmentation):
    with pytest.raises(ValueError, match="polygon|RLE|segmentation"):
        runs.segmentation_to_rle(segmentation, 12, 16)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_damaged_compressed_counts_are_refused_or_decode(seed, data):
    """The C decoder would write beyond the mask: what passes the check must be exactly as long as the image."""
    mask = masks_of(3, 9, 11, seed)[2]
    counts = bytearray(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"])
    assert runs.segmentation_to_rle({"size": [9, 11], "counts": counts.decode()}, 9, 11)
    place = data.draw(st.integers(0, len(counts) - 1))
    counts[place] = data.draw(st.integers(0, 127))
    try:
        rle = runs.segmentation_to_rle({"size": [9, 11], "counts": counts.decode()}, 9, 11)
    except ValueError:
        return
    assert coco_mask.decode(rle).shape == (9, 11)
    assert int(coco_mask.area(rle)) == int(coco_mask.decode(rle).sum())
