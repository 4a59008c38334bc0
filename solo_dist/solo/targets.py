"""Training targets from boxes and row runs: one implementation for the shard tool and for the input pipeline.

Source: the official solov2_head.solov2_target_single. The published numbers depend on its quirks, and comments mark
the lines that reproduce them. Pure functions; shapes as in `solo_dist.config`, m instances, r runs, P positives.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, GridConfig
from solo_dist.masks.bits import pack_lowest_bits, unpack_bits
from solo_dist.masks.rle import Runs

_NEIGHBOURS = np.arange(-1, 2)


class TargetSpec(NamedTuple):
    """The targets that a member of the family learns from; the default is what SOLOv2 needs."""

    mask_strides: tuple[int, ...] = (MASK_STRIDE,)
    """Strides of the instance masks, MASK_STRIDE first; the others are multiples of it and divide the canvas."""
    one_owner: bool = False
    """If instances collide in a cell, only the last one keeps it (quirk 23); otherwise all do (quirk 6)."""
    coverage: bool = False
    """If the masks say how much of each pixel is covered (`mask_coverage`), not one bit a pixel (`reduced_masks`)."""


STORED_TARGETS = TargetSpec()
"""What the records of shards hold; for another spec the pipeline makes the targets anew from the stored row runs."""


class Positives(NamedTuple):
    """Which cells predict which instance."""

    cell: tf.Tensor
    """int32 [P], flat index in the N cells, levels in order. A cell repeats if several instances own it."""
    instance: tf.Tensor
    """int32 [P], index of the instance."""
    category_grid: tf.Tensor
    """int32 [N], -1 background, else class."""


class Targets(NamedTuple):
    """All targets of one image on one canvas."""

    positives: Positives
    masks: tf.Tensor
    """uint8 [m, h, w / 8], masks at 1/4 resolution, eight pixels a byte, first pixel in the highest bit; or uint8
    [m, h, w], their `mask_coverage`."""
    coarser_masks: Mapping[int, tf.Tensor] = {}
    """By stride s above MASK_STRIDE: uint8 [m, H / s, ceil(W / s / 8)]; the bits beyond the last pixel are 0."""


def mask_key(stride: int) -> str:
    """The key of a batch that holds the masks of a stride."""
    return "masks" if stride == MASK_STRIDE else f"masks_{stride}"


def make_targets(
    runs: Runs,
    boxes: tf.Tensor,
    categories: tf.Tensor,
    canvas: tuple[int, int],
    grid: GridConfig,
    spec: TargetSpec = STORED_TARGETS,
) -> Targets:
    """Targets from instances in canvas pixels.

    Args:
      runs: masks of m instances on the canvas.
      boxes: float32 [m, 4] x1, y1, x2, y2.
      categories: int32 [m], class 0..C-1.
      canvas: H, W, multiples of 32.
      grid: the levels.
      spec: which targets the member of the family needs.
    """
    num_instances = tf.size(categories)
    centers, areas = mass_centers(runs, num_instances)
    positives = assign_positives(boxes, categories, centers, areas > 0, canvas, grid)
    if spec.one_owner:
        positives = keep_last_owner(positives)
    reduce = mask_coverage if spec.coverage else reduced_masks
    masks, *coarser = (reduce(runs, num_instances, canvas, stride) for stride in spec.mask_strides)
    return Targets(positives, masks, dict(zip(spec.mask_strides[1:], coarser, strict=True)))


def mass_centers(runs: Runs, num_instances: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
    """Centres of mass of the full-resolution masks (quirk 3), float32 [m, 2] as x, y, and areas, int64 [m].

    Sums are exact integers; the official code sums in float32, which is the same up to 2**24. An empty mask gets 0, 0.
    """
    row, start, end = (tf.cast(values, tf.int64) for values in (runs.row, runs.start, runs.end))
    length = end - start
    sum_x = (start + end - 1) * length // 2
    moments = tf.stack([length, sum_x, row * length], axis=1)
    moments = tf.math.unsorted_segment_sum(moments, runs.instance, num_instances)
    area = moments[:, 0]
    centers = tf.cast(moments[:, 1:], tf.float32) / tf.cast(tf.maximum(area, 1), tf.float32)[:, None]
    return centers, area


def assign_positives(
    boxes: tf.Tensor,
    categories: tf.Tensor,
    centers: tf.Tensor,
    valid: tf.Tensor,
    canvas: tuple[int, int],
    grid: GridConfig,
) -> Positives:
    """The cells around each instance's mass centre, on each level whose scale range holds its size (official order).

    The order is by level, then instance, then row-major cells.

    Args:
      boxes: float32 [m, 4] x1, y1, x2, y2 in canvas pixels.
      categories: int32 [m].
      centers: float32 [m, 2] mass centres as x, y.
      valid: bool [m]; false: the mask is empty and gets no positive (quirk 6).
      canvas: H, W. Centres are divided by it, padding included (quirk 3).
      grid: the levels.
    """
    sizes = np.asarray(grid.sizes, np.int32)
    offsets = np.asarray(grid.first_cells, np.int32)
    ranges = np.asarray(grid.scale_ranges, np.float32)
    canvas_xy = tf.constant([canvas[1], canvas[0]], tf.float32)

    def cells(points: tf.Tensor) -> tf.Tensor:
        # Quirk 1: truncation (not floor) of (point / size) * S in float32. [m, 2] -> int32 [L, m, 2].
        return tf.cast((points / canvas_xy)[None] * sizes[:, None, None].astype(np.float32), tf.int32)

    sides = boxes[:, 2:] - boxes[:, :2]
    half = 0.5 * sides * grid.center_sigma
    center = cells(centers)
    # Quirk 4: the central region, at most one cell beyond the centre's cell.
    low = tf.maximum(tf.maximum(cells(centers - half), 0), center - 1)
    high = tf.minimum(tf.minimum(cells(centers + half), sizes[:, None, None] - 1), center + 1)
    # Quirk 5: size without the +1 of inclusive pixels, bounds inclusive, so up to three levels hold an instance.
    scale = tf.sqrt(sides[:, 0] * sides[:, 1])[None]
    on_level = (scale >= ranges[:, :1]) & (scale <= ranges[:, 1:]) & valid[None]

    candidates = center[..., None] + _NEIGHBOURS.astype(np.int32)  # [L, m, xy, 3]
    inside = (candidates >= low[..., None]) & (candidates <= high[..., None])
    inside_x, inside_y = inside[:, :, 0], inside[:, :, 1]
    chosen = on_level[..., None, None] & inside_y[..., :, None] & inside_x[..., None, :]  # [L, m, 3, 3]
    flat = candidates[:, :, 1, :, None] * sizes[:, None, None, None] + candidates[:, :, 0, None, :]
    # Row-major order of `where` is the official order of appending.
    where = tf.where(chosen)
    cell = tf.gather_nd(flat + offsets[:, None, None, None], where)
    instance = tf.cast(where[:, 1], tf.int32)
    return Positives(cell, instance, category_grid(cell, instance, categories, grid.num_cells))


def category_grid(cell: tf.Tensor, instance: tf.Tensor, categories: tf.Tensor, num_cells: int) -> tf.Tensor:
    """Category of each cell, int32 [N], -1 if it has none.

    Quirk 6: if instances collide, the last one in annotation order gives the cell its category.
    """
    return tf.gather(tf.concat([[-1], categories], axis=0), _last_owner(cell, instance, num_cells) + 1)


def keep_last_owner(positives: Positives) -> Positives:
    """The same positives with each cell left to the last of its instances (quirk 23); cells in ascending order."""
    owner = _last_owner(positives.cell, positives.instance, positives.category_grid.shape[0])
    cell = tf.where(owner >= 0)[:, 0]
    return Positives(tf.cast(cell, tf.int32), tf.gather(owner, cell), positives.category_grid)


def _last_owner(cell: tf.Tensor, instance: tf.Tensor, num_cells: int) -> tf.Tensor:
    """The largest index of the instances of each cell, int32 [N], -1 if it has none."""
    return tf.tensor_scatter_nd_max(tf.fill([num_cells], -1), cell[:, None], instance)


def reduced_masks(
    runs: Runs, num_instances: tf.Tensor | int, canvas: tuple[int, int], stride: int = MASK_STRIDE
) -> tf.Tensor:
    """Masks at a lower resolution, uint8 [m, H / stride, ceil(W / stride / 8)] of bits as `masks.bits` packs them.

    Quirks 2 and 23: the official bilinear resize by 1/r, r = 4, 8 or 16, averages the 2x2 pixels in the middle of each
    block, rows and columns rk + r/2 - 1 and rk + r/2, and rounds a half up: 1 if at least two of the four are set.

    The middle columns left of x count 2 for k < x // r, x % r - (r/2 - 1) bounded to 0..2 at k = x // r, and 0 beyond.
    A run is the difference of two such step functions; their changes along k are scattered, then summed up along the
    row. Eight columns share an int64, a byte each: sums stay within 0..4, so that no byte carries into the next.
    """
    height, words = canvas[0] // stride, -(-canvas[1] // stride // 8)
    first_middle = stride // 2 - 1
    used = tf.where((runs.row % stride == first_middle) | (runs.row % stride == first_middle + 1))[:, 0]
    row, start, end, instance = (tf.gather(values, used) for values in runs)
    line = (instance * height + row // stride) * (words + 1)

    def change(x: tf.Tensor, column_shift: int, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        column = x // stride + column_shift
        return line + column // 8, tf.bitwise.left_shift(tf.cast(value, tf.int64), tf.cast(column % 8 * 8, tf.int64))

    end_part, start_part = (tf.clip_by_value(x % stride - first_middle, 0, 2) for x in (end, start))
    changes = [change(end, 0, end_part - 2), change(end, 1, -end_part)]
    changes += [change(start, 0, 2 - start_part), change(start, 1, start_part)]
    index, value = (tf.concat(parts, axis=0) for parts in zip(*changes, strict=True))
    steps = tf.math.unsorted_segment_sum(value, index, num_instances * height * (words + 1))
    steps = tf.reshape(steps, [num_instances, height, words + 1])[:, :, :words]
    return _running_sum_at_least_two(steps)


def _running_sum_at_least_two(steps: tf.Tensor) -> tf.Tensor:
    """Running sums along the bytes of int64 [m, h, w / 8], first pixel in the lowest byte -> bits sum >= 2, uint8."""
    every_byte = 0x0101010101010101
    # A product with 0x01..01 is the running sum within the eight bytes; the highest byte is their total. Totals are
    # -4..4; adding 4 to each byte keeps a negative one from borrowing out of the next.
    within = steps * every_byte
    totals = tf.bitwise.right_shift(within + 4 * every_byte, 56) - 4
    before = tf.cumsum(totals, axis=2, exclusive=True)
    sums = within + before * every_byte
    return pack_lowest_bits(tf.bitwise.bitwise_and(tf.bitwise.right_shift(sums + 126 * every_byte, 7), every_byte))


def mask_coverage(
    runs: Runs, num_instances: tf.Tensor | int, canvas: tuple[int, int], stride: int = MASK_STRIDE
) -> tf.Tensor:
    """How many of the stride x stride canvas pixels of each pixel are set, uint8 [m, H / stride, W / stride].

    Of the columns left of x, `stride` are in each block k < x // stride, x % stride in block x // stride, and none
    beyond. A run is the difference of two such step functions; their changes along k are scattered, then summed up.
    """
    height, width = canvas[0] // stride, canvas[1] // stride
    line = (runs.instance * height + runs.row // stride) * (width + 2)
    index = [line + x // stride + column for x in (runs.start, runs.end) for column in (0, 1)]
    start, end = runs.start % stride, runs.end % stride
    changes = tf.concat([stride - start, start, end - stride, -end], axis=0)
    steps = tf.math.unsorted_segment_sum(changes, tf.concat(index, axis=0), num_instances * height * (width + 2))
    steps = tf.reshape(steps, [num_instances, height, width + 2])
    return tf.cast(tf.cumsum(steps, axis=2)[:, :, :width], tf.uint8)


def is_coverage(masks: tf.Tensor, width: int) -> bool:
    """Whether masks of `width` columns are numbers as `mask_coverage` makes them; if not, they are bits."""
    return masks.shape[-1] == width


def mask_values(masks: tf.Tensor, width: int) -> tf.Tensor:
    """Targets of masks of `width` columns in either form, uint8 [..., ceil(w/8) or w] -> float32 [..., w] in 0..1."""
    if is_coverage(masks, width):
        return tf.cast(masks, tf.float32) / MASK_STRIDE**2
    return unpack_bits(masks, tf.float32, width)


def count_collisions(
    cells: np.ndarray, instances: np.ndarray, num_instances: int, num_cells: int
) -> tuple[int, int, int]:
    """How many instances of an image lose a cell to a later one, lose all their cells so, and had none at all.

    Args:
      cells: int [P], flat cell of each positive.
      instances: int [P], its instance.
      num_instances: m.
      num_cells: N.
    """
    owner = np.full(num_cells, -1)
    np.maximum.at(owner, cells, instances)
    before = np.bincount(instances, minlength=num_instances)
    after = np.bincount(instances[owner[cells] == instances], minlength=num_instances)
    return int((after < before).sum()), int(((after == 0) & (before > 0)).sum()), int((before == 0).sum())
