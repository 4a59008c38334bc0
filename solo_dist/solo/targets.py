"""Training targets of SOLOv2 from boxes and row runs: the one place, used by the shard tool and by the input pipeline.

Source: the official solov2_head.solov2_target_single. Its quirks are part of the published numbers and are marked
where they are reproduced. Pure functions; shapes as in `solo_dist.config`, m instances, r runs, P positives.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, GridConfig
from solo_dist.masks.rle import Runs

_NEIGHBOURS = np.arange(-1, 2)


class Positives(NamedTuple):
    """Which cells predict which instance. In the official order: by level, then instance, then row-major cells."""

    cell: tf.Tensor
    """int32 [P], flat index in the N cells; a cell can repeat where instances collide."""
    instance: tf.Tensor
    """int32 [P], index of the instance."""
    category_grid: tf.Tensor
    """int32 [N], -1 background, else class."""


class Targets(NamedTuple):
    """All targets of one picture on one canvas."""

    positives: Positives
    masks: tf.Tensor
    """uint8 [m, h, w / 8], masks at 1/4 resolution, eight pixels a byte, first pixel in the highest bit."""


def make_targets(
    runs: Runs, boxes: tf.Tensor, categories: tf.Tensor, canvas: tuple[int, int], grid: GridConfig
) -> Targets:
    """Targets from instances in canvas pixels.

    Args:
      runs: masks of m instances on the canvas.
      boxes: float32 [m, 4] x1, y1, x2, y2.
      categories: int32 [m], class 0..C-1.
      canvas: H, W, multiples of 32.
      grid: the levels.
    """
    num_instances = tf.size(categories)
    centers, areas = mass_centers(runs, num_instances)
    positives = assign_positives(boxes, categories, centers, areas > 0, canvas, grid)
    return Targets(positives, quarter_masks(runs, num_instances, canvas))


def scale_boxes(boxes: tf.Tensor, size: tf.Tensor, new_size: tf.Tensor) -> tf.Tensor:
    """Boxes float32 [m, 4] of a picture of `size` (int32 [2], height, width) after a resize to `new_size`.

    Official behaviour: coordinates times the factor, then clipped to the picture's first and last pixel.
    """
    factor = tf.cast(new_size, tf.float32) / tf.cast(size, tf.float32)
    limit = tf.cast(new_size - 1, tf.float32)
    return tf.clip_by_value(boxes * tf.gather(factor, [1, 0, 1, 0]), 0.0, tf.gather(limit, [1, 0, 1, 0]))


def flip_boxes(boxes: tf.Tensor, width: tf.Tensor | int) -> tf.Tensor:
    """Boxes float32 [m, 4] mirrored within `width` columns: x becomes width - 1 - x."""
    x1, y1, x2, y2 = tf.unstack(boxes, num=4, axis=1)
    last = tf.cast(width, tf.float32) - 1.0
    return tf.stack([last - x2, y1, last - x1, y2], axis=1)


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
    """The cells around each instance's mass centre, on each level whose scale range holds its size.

    Args:
      boxes: float32 [m, 4] x1, y1, x2, y2 in canvas pixels.
      categories: int32 [m].
      centers: float32 [m, 2] mass centres as x, y.
      valid: bool [m]; false: the mask is empty and gets no positive (quirk 6).
      canvas: H, W. Centres are divided by it, padding included (quirk 3).
      grid: the levels.
    """
    sizes = np.asarray(grid.sizes, np.int32)
    offsets = (np.cumsum(sizes**2) - sizes**2).astype(np.int32)
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
    """Category of each cell, int32 [N], -1 where none.

    Quirk 6: where instances collide, the later one in annotation order has the cell's category.
    """
    owner = tf.tensor_scatter_nd_max(tf.fill([num_cells], -1), cell[:, None], instance)
    return tf.gather(tf.concat([[-1], categories], axis=0), owner + 1)


def quarter_masks(runs: Runs, num_instances: tf.Tensor | int, canvas: tuple[int, int]) -> tf.Tensor:
    """Masks at mask-feature resolution, uint8 [m, h, w / 8]: eight pixels a byte, first pixel in the highest bit.

    Quirk 2: the official bilinear resize by 1/4 averages the 2x2 pixels at rows and columns 4k+1, 4k+2 and rounds a
    half up: 1 where at least two of the four are set.

    The pixels of {4k+1, 4k+2} left of x are 2 for k < x // 4, x % 4 - 1 (not below 0) at k = x // 4, and 0 beyond. A
    run is the difference of two such step functions; their changes along k are scattered, then summed up along the
    row. Eight columns share an int64, a byte each: sums stay within 0..4, so that no byte carries into the next.
    """
    height, words = canvas[0] // MASK_STRIDE, canvas[1] // MASK_STRIDE // 8
    used = tf.where((runs.row % MASK_STRIDE == 1) | (runs.row % MASK_STRIDE == 2))[:, 0]
    row, start, end, instance = (tf.gather(values, used) for values in runs)
    line = (instance * height + row // MASK_STRIDE) * (words + 1)

    def change(x: tf.Tensor, column_shift: int, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        column = x // MASK_STRIDE + column_shift
        return line + column // 8, tf.bitwise.left_shift(tf.cast(value, tf.int64), tf.cast(column % 8 * 8, tf.int64))

    end_part, start_part = (tf.clip_by_value(x % MASK_STRIDE - 1, 0, 2) for x in (end, start))
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
    at_least_two = tf.bitwise.bitwise_and(tf.bitwise.right_shift(sums + 126 * every_byte, 7), every_byte)
    # Moves the lowest bit of byte i to bit 7 - i of the highest byte.
    gathered = at_least_two * (0x8040201008040201 - 2**64)
    return tf.cast(tf.bitwise.bitwise_and(tf.bitwise.right_shift(gathered, 56), 255), tf.uint8)


def unpack_bits(packed: tf.Tensor) -> tf.Tensor:
    """uint8 [..., w / 8], first pixel in the highest bit -> bool [..., w]."""
    shape = tf.shape(packed)
    bits = tf.bitwise.bitwise_and(packed[..., None], tf.constant([128, 64, 32, 16, 8, 4, 2, 1], tf.uint8)) > 0
    return tf.reshape(bits, tf.concat([shape[:-1], [shape[-1] * 8]], axis=0))


def count_bits(packed: tf.Tensor) -> tf.Tensor:
    """uint8 [..., n] of bits -> float32 [...], how many are set; in words of 64, which takes an eighth of the time."""
    *shape, size = packed.shape
    padded = tf.pad(packed, [[0, 0]] * len(shape) + [[0, -size % 8]])
    words = tf.bitcast(tf.reshape(padded, [*(side or -1 for side in shape), padded.shape[-1] // 8, 8]), tf.int64)
    return tf.reduce_sum(tf.cast(tf.raw_ops.PopulationCount(x=words), tf.float32), axis=-1)
