"""Grid targets: the official ones cell by cell, and those of a slow version written from the official description."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import GridConfig
from solo_dist.masks import rle
from solo_dist.masks.bits import unpack_bits
from solo_dist.solo import targets

GOLDEN = (
    "targets_t0_512x512_n0",
    "targets_t1_512x512_n1",
    "targets_t2_480x640_n5",
    "targets_t3_800x1216_n40",
    "targets_t5_512x512_edge_n10",
)
GRID = GridConfig(levels=("p2", "p3", "p4"), sizes=(13, 8, 5), scale_ranges=((1, 24), (16, 48), (40, 512)))
CANVAS = (64, 96)


def in_graph(runs_of_picture, boxes, categories, canvas, grid):
    """`make_targets` inside a tf.function with an unknown number of instances, as in the pipeline."""

    @tf.function(input_signature=[rle.Runs(*[tf.TensorSpec([None], tf.int32)] * 4), tf.TensorSpec([None, 4]), SPEC])
    def make(runs_of_picture, boxes, categories):
        return targets.make_targets(runs_of_picture, boxes, categories, canvas, grid)

    return make(runs_of_picture, boxes, categories)


SPEC = tf.TensorSpec([None], tf.int32)


@pytest.mark.parametrize("make", [targets.make_targets, in_graph])
@pytest.mark.parametrize("name", GOLDEN)
def test_targets_are_the_official_ones(golden, name, make):
    g = golden(name)
    height, width = (int(side) for side in g["image_hw"])
    h, w = (int(side) for side in g["mask_feat_hw"])
    count = len(g["gt_labels"])
    masks = np.unpackbits(g["gt_masks"], axis=1)[:, : height * width].reshape(count, height, width)
    grid = GridConfig(
        sizes=tuple(g["num_grids"].tolist()),
        scale_ranges=tuple(map(tuple, g["scale_ranges"].tolist())),
        center_sigma=float(g["sigma"]),
    )
    made = make(
        rle.from_numpy([rle.dense_to_runs(mask) for mask in masks]),
        tf.constant(g["gt_boxes"]),
        tf.constant(g["gt_labels"] - 1, tf.int32),
        (4 * h, 4 * w),
        grid,
    )
    offsets = np.cumsum([0, *(size * size for size in grid.sizes)])
    levels = range(len(grid.sizes))
    cells = np.concatenate([g[f"legacy_grid_order_{level}"] + offsets[level] for level in levels])
    instances = np.concatenate([g[f"legacy_inst_idx_{level}"] for level in levels])
    categories = np.concatenate([g[f"legacy_cate_label_{level}"].ravel() for level in levels])
    np.testing.assert_array_equal(made.positives.cell, cells)
    np.testing.assert_array_equal(made.positives.instance, instances)
    np.testing.assert_array_equal(made.positives.category_grid, categories.astype(int) - 1)
    quarter = unpack_bits(made.masks).numpy()
    assert quarter.shape == (count, h, w)
    for level in levels:
        wanted = np.unpackbits(g[f"ins_label_{level}"], axis=1)[:, : h * w].reshape(-1, h, w)
        np.testing.assert_array_equal(quarter[g[f"inst_idx_{level}"]], wanted)


@pytest.mark.parametrize("name", GOLDEN)
def test_mass_centers_are_the_official_ones(golden, name):
    g = golden(name)
    height, width = (int(side) for side in g["image_hw"])
    masks = np.unpackbits(g["gt_masks"], axis=1)[:, : height * width].reshape(-1, height, width)
    centers, areas = targets.mass_centers(rle.from_numpy([rle.dense_to_runs(m) for m in masks]), len(masks))
    # Sums beyond 2**24 are rounded in the official code, and exact here.
    np.testing.assert_allclose(centers, np.stack([g["center_x"], g["center_y"]], axis=1), rtol=2e-6)
    np.testing.assert_array_equal(areas, masks.sum(axis=(1, 2)))


def slow_targets(masks, boxes, categories, canvas, grid):
    """Written from docs/numerics.md, one number at a time in float32."""
    f = np.float32
    cells, instances, category_grid = [], [], np.full(grid.num_cells, -1)
    offset = 0
    for size, (low, high) in zip(grid.sizes, grid.scale_ranges, strict=True):
        for index, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
            box_width, box_height = f(box[2] - box[0]), f(box[3] - box[1])
            if not low <= np.sqrt(box_width * box_height) <= high or not mask.any():
                continue
            ys, xs = np.nonzero(mask)
            x, y = f(f(xs.sum()) / f(len(xs))), f(f(ys.sum()) / f(len(ys)))
            half_x, half_y = f(f(0.5) * box_width) * f(grid.center_sigma), f(f(0.5) * box_height) * f(grid.center_sigma)

            def cell_of(value, side, size=size):
                return int(f(f(value) / f(side)) * f(size))  # towards zero

            column, row = cell_of(x, canvas[1]), cell_of(y, canvas[0])
            top = max(max(0, cell_of(y - half_y, canvas[0])), row - 1)
            bottom = min(min(size - 1, cell_of(y + half_y, canvas[0])), row + 1)
            left = max(max(0, cell_of(x - half_x, canvas[1])), column - 1)
            right = min(min(size - 1, cell_of(x + half_x, canvas[1])), column + 1)
            for i in range(top, bottom + 1):
                for j in range(left, right + 1):
                    cells.append(offset + i * size + j)
                    instances.append(index)
                    category_grid[offset + i * size + j] = categories[index]
        offset += size * size
    return cells, instances, category_grid


def slow_reduced(mask, stride):
    height, width = (side // stride for side in mask.shape)
    reduced = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            top, left = (stride * k + stride // 2 - 1 for k in (y, x))
            reduced[y, x] = mask[top : top + 2, left : left + 2].sum() >= 2
    return reduced


def random_instances(rng, count):
    masks = np.zeros((count, *CANVAS), bool)
    for mask in masks:
        y, x = rng.integers(0, CANVAS[0]), rng.integers(0, CANVAS[1])
        h, w = rng.integers(1, CANVAS[0]), rng.integers(1, CANVAS[1])
        mask[y : y + h, x : x + w] = rng.random((min(h, CANVAS[0] - y), min(w, CANVAS[1] - x))) < rng.random()
    corners = rng.uniform(-5, 60, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 90, (count, 2))], axis=1).astype(np.float32)
    return masks, boxes, rng.integers(0, 7, count)


@pytest.mark.parametrize("seed", range(40))
def test_targets_equal_the_slow_version(seed):
    rng = np.random.default_rng(seed)
    masks, boxes, categories = random_instances(rng, int(rng.integers(0, 12)))
    made = targets.make_targets(
        rle.from_numpy([rle.dense_to_runs(mask) for mask in masks]),
        tf.constant(boxes),
        tf.constant(categories, tf.int32),
        CANVAS,
        GRID,
    )
    cells, instances, category_grid = slow_targets(masks, boxes, categories, CANVAS, GRID)
    np.testing.assert_array_equal(made.positives.cell, cells)
    np.testing.assert_array_equal(made.positives.instance, instances)
    np.testing.assert_array_equal(made.positives.category_grid, category_grid)
    packed = [np.packbits(slow_reduced(mask, 4), axis=1) for mask in masks]
    np.testing.assert_array_equal(made.masks, np.reshape(packed, (len(masks), CANVAS[0] // 4, CANVAS[1] // 32)))
    assert made.coarser_masks == {}


@pytest.mark.parametrize("seed", range(10))
def test_targets_of_other_members_equal_the_slow_version(seed):
    """Masks of several strides, and one owner for each cell: the last instance (quirk 23)."""
    rng = np.random.default_rng(seed)
    masks, boxes, categories = random_instances(rng, int(rng.integers(0, 12)))
    runs = rle.from_numpy([rle.dense_to_runs(mask) for mask in masks])
    spec = targets.TargetSpec(mask_strides=(4, 8, 16), one_owner=True)
    made = targets.make_targets(runs, tf.constant(boxes), tf.constant(categories, tf.int32), CANVAS, GRID, spec)
    cells, instances, category_grid = slow_targets(masks, boxes, categories, CANVAS, GRID)
    owners = dict(sorted(zip(cells, instances, strict=True), key=lambda pair: pair[1]))
    np.testing.assert_array_equal(made.positives.cell, sorted(owners))
    np.testing.assert_array_equal(made.positives.instance, [owners[cell] for cell in sorted(owners)])
    np.testing.assert_array_equal(made.positives.category_grid, category_grid)
    for stride, found in ((4, made.masks), *made.coarser_masks.items()):
        packed = [np.packbits(slow_reduced(mask, stride), axis=1) for mask in masks]
        shape = (len(masks), CANVAS[0] // stride, -(-CANVAS[1] // stride // 8))
        np.testing.assert_array_equal(found, np.reshape(packed, shape))
    assert list(made.coarser_masks) == [8, 16]


def test_eager_and_graph_give_the_same_bits():
    # Rewriting a division as a product by the reciprocal would move a centre over the edge of a cell now and then.
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 97 * 8, (20000, 2)).astype(np.float32) / 8
    boxes = np.concatenate([centers - 20, centers + 20], axis=1).astype(np.float32)
    arguments = (tf.constant(boxes), tf.zeros([20000], tf.int32), tf.constant(centers), tf.ones([20000], tf.bool))
    eager = targets.assign_positives(*arguments, (96, 96), GRID)
    graph = tf.function(lambda *a: targets.assign_positives(*a, (96, 96), GRID))(*arguments)
    for one, other in zip(eager, graph, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_later_instance_has_the_category_and_both_keep_their_positives():
    mask = np.zeros(CANVAS, bool)
    mask[10:40, 20:50] = True
    both = rle.from_numpy([rle.dense_to_runs(mask)] * 2)
    boxes = tf.constant([[20.0, 10.0, 49.0, 39.0]] * 2)
    made = targets.make_targets(both, boxes, tf.constant([4, 2]), CANVAS, GRID).positives
    first, second = (set(made.cell.numpy()[made.instance.numpy() == i]) for i in (0, 1))
    assert first == second and first
    assert {int(made.category_grid[cell]) for cell in first} == {2}


@pytest.mark.parametrize("stride", [4, 8])
def test_coverage_counts_pixels(stride):
    random = np.random.default_rng(0)
    ones = np.ones(CANVAS, bool)
    masks = [random.random(CANVAS) < share for share in (0.5, 0.02)] + [ones, ~ones, np.roll(np.tril(ones), 7, 1)]
    runs = rle.from_numpy([rle.dense_to_runs(mask) for mask in masks])
    counted = targets.mask_coverage(runs, len(masks), CANVAS, stride)
    blocks = np.reshape(masks, [len(masks), CANVAS[0] // stride, stride, CANVAS[1] // stride, stride])
    np.testing.assert_array_equal(counted, blocks.sum(axis=(2, 4)))
