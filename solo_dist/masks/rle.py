"""Instance masks as row runs: the form in which masks are stored, moved and turned into targets.

A run is (row, start, end): the pixels start <= x < end of a row. Runs of an instance do not overlap. Every change of
geometry in this project is separable (scale, crop, flip), so runs are transformed exactly with integer maps, and no
dense mask at full resolution is ever needed inside the graph. Legend of shapes: `solo_dist.config`; r is the number
of runs of all m instances of an image together.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

MAX_SIDE = 32767
"""Largest side of an image in pixels: runs are stored as int16."""

_MASKS_A_CALL = 255


class Runs(NamedTuple):
    """Runs of all instances of an image, ordered by instance, then row; int32 [r] each."""

    row: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    instance: tf.Tensor


# ---- NumPy: making runs, storing them, looking at them


def dense_to_runs(mask: np.ndarray) -> np.ndarray:
    """Mask, bool or 0/1, [H, W] -> int16 [r, 3] rows of (row, start, end)."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask != 0
    # Every run of a row begins with a step up and ends with a step down, so both lists are in the same order.
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    return np.stack([rows, starts, ends], axis=1).astype(np.int16)


def areas_of_rles(rles: Sequence[dict]) -> np.ndarray:
    """Pixels of each COCO RLE, float64 [n]."""
    # With NumPy 2, pycocotools 2.0.11 raises OverflowError for more than 255 masks in a call: it once puts their number
    # into an array of uint8.
    parts = [coco_mask.area(rles[start : start + _MASKS_A_CALL]) for start in range(0, len(rles), _MASKS_A_CALL)]
    return np.concatenate(parts or [[]]).astype(float)


def segmentation_to_rle(segmentation: Any, height: int, width: int) -> dict:
    """A COCO segmentation (polygons, or RLE with plain or compressed counts) -> compressed RLE of the whole instance.

    Raises:
      ValueError: with a short reason, if it is none of these or does not belong to a height x width image.
    """
    if isinstance(segmentation, list):
        return _polygons_to_rle(segmentation, height, width)
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise ValueError("segmentation is neither polygons nor RLE")
    if segmentation["size"] != [height, width]:
        raise ValueError("RLE size differs from the image")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
            raise ValueError("RLE counts do not cover the image")
        return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    _check_compressed_counts(counts, height * width)
    return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}


def _polygons_to_rle(polygons: list, height: int, width: int) -> dict:
    if not polygons:
        raise ValueError("empty segmentation")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("polygon of fewer than 3 points")
        if not all(type(value) in (int, float) and abs(value) < 1e15 for value in polygon):  # also refuses nan
            raise ValueError("polygon coordinate is not a finite number")
    clipped = [_clip_polygon(polygon, height, width) for polygon in polygons]
    return coco_mask.merge(coco_mask.frPyObjects(clipped, height, width))


def _clip_polygon(polygon: list, height: int, width: int) -> list:
    """The part of a ring up to one image size beyond each edge.

    A coordinate far outside would overflow the 32-bit arithmetic of pycocotools' C code.
    """
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    for axis, side in enumerate((width, height)):
        points = _cut_off(points, points[:, axis] - 2 * side)
        points = _cut_off(points, -side - points[:, axis])
    if len(points) < 3:  # nothing of it is left: a ring without area, outside
        points = np.full((3, 2), -1.0)
    return points.ravel().tolist()


def _cut_off(points: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """The part of a ring, float64 [n, 2], that is not beyond a line (Sutherland and Hodgman 1974).

    Args:
      points: x, y of each point.
      beyond: signed distance of each to the line, float64 [n]; positive: to be cut off.
    """
    if not (beyond > 0).any():
        return points
    kept = []
    for start, end, before, after in zip(points, np.roll(points, -1, 0), beyond, np.roll(beyond, -1), strict=True):
        if before <= 0:
            kept.append(start)
        if (before > 0) != (after > 0):
            kept.append(start + (end - start) * (before / (before - after)))
    return np.array(kept).reshape(-1, 2)


def _check_compressed_counts(counts: Any, pixels: int) -> None:
    """Decodes pycocotools' base-48 differences: its C code trusts them and would write beyond the image."""
    if not isinstance(counts, (str, bytes)):
        raise ValueError("RLE counts are neither a list nor a string")
    data = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    values: list[int] = []
    value, shift = 0, 0
    for byte in data:
        byte -= 48
        if not 0 <= byte < 64 or shift > 30:
            raise ValueError("RLE counts are damaged")
        value |= (byte & 31) << shift
        shift += 5
        if byte & 32:
            continue
        if byte & 16:
            value -= 1 << shift
        values.append(value + (values[-2] if len(values) > 2 else 0))
        value, shift = 0, 0
    if shift or any(count < 0 for count in values) or sum(values) != pixels:
        raise ValueError("RLE counts do not cover the image")


def rle_to_runs(rle: dict) -> np.ndarray:
    """Compressed RLE -> int16 [r, 3]; r is 0 if no pixel is inside."""
    x, y, width, height = (int(value) for value in coco_mask.toBbox(rle))
    runs = dense_to_runs(coco_mask.decode(rle)[y : y + height, x : x + width])
    return runs + np.array([y, x, x], np.int16)


def encode_runs(instances: Sequence[np.ndarray]) -> tuple[bytes, list[int]]:
    """Runs of m instances, int16 [r_i, 3] each -> compressed bytes and the number of runs of each."""
    flat = np.concatenate([*instances, np.zeros((0, 3), np.int16)]).astype("<i2")
    return zlib.compress(flat.tobytes()), [len(runs) for runs in instances]


# ---- TensorFlow: exact transforms inside the graph


def decode_runs(encoded: tf.Tensor, counts: tf.Tensor) -> Runs:
    """Reverses `encode_runs`: string scalar and int [m] -> Runs."""
    raw = tf.io.decode_raw(tf.io.decode_compressed(encoded, "ZLIB"), tf.int16)
    columns = tf.cast(tf.transpose(tf.reshape(raw, [-1, 3])), tf.int32)
    instance = tf.repeat(tf.range(tf.size(counts)), counts)
    return Runs(columns[0], columns[1], columns[2], instance)


def from_numpy(instances: Sequence[np.ndarray]) -> Runs:
    """Runs of m instances, int16 [r_i, 3] each -> Runs."""
    flat = np.concatenate([*instances, np.zeros((0, 3), np.int16)]).astype(np.int32)
    instance = np.repeat(np.arange(len(instances), dtype=np.int32), [len(runs) for runs in instances])
    return Runs(*(tf.constant(values) for values in (flat[:, 0], flat[:, 1], flat[:, 2], instance)))


def nearest_source(source: tf.Tensor | int, target: tf.Tensor | int) -> tf.Tensor:
    """The source pixel of each of `target` pixels, int32 [target], when `source` pixels are resized to them.

    The official rule (quirk 16): floor(x * source / target), the factor formed in double precision as OpenCV's
    nearest resize does, namely as the reciprocal of target / source.
    """
    source, target = tf.convert_to_tensor(source), tf.convert_to_tensor(target)
    factor = 1.0 / (tf.cast(target, tf.float64) / tf.cast(source, tf.float64))
    pixels = tf.cast(tf.floor(tf.range(target, dtype=tf.float64) * factor), tf.int32)
    return tf.minimum(pixels, tf.cast(source, tf.int32) - 1)


def resample(runs: Runs, row_source: tf.Tensor, column_source: tf.Tensor, size: tf.Tensor) -> Runs:
    """Runs of the image whose row y is row_source[y] and column x is column_source[x] of the present one.

    Any scale and crop is of this form: build the maps with `nearest_source` and slice them.

    Args:
      runs: runs of an image of `size`.
      row_source: int32 [H'], not decreasing, each 0 <= value < size[0].
      column_source: int32 [W'], not decreasing, each 0 <= value < size[1].
      size: int32 [2], height and width that the runs refer to now.
    """
    # An interval of source columns is an interval of target columns: look up the first target column of each.
    column_begin = tf.searchsorted(column_source, tf.range(size[1] + 1))
    row_begin = tf.searchsorted(row_source, tf.range(size[0] + 1))
    start, end = tf.gather(column_begin, runs.start), tf.gather(column_begin, runs.end)
    first, last = tf.gather(row_begin, runs.row), tf.gather(row_begin, runs.row + 1)
    copies = tf.where(end > start, last - first, 0)
    index = tf.repeat(tf.range(tf.size(copies)), copies)
    begin_of_copies = tf.cumsum(copies, exclusive=True)
    row = tf.gather(first, index) + tf.range(tf.size(index)) - tf.gather(begin_of_copies, index)
    # Copies of several runs of one row come as (run, copy), so rows are ordered only within each run,
    # which nothing depends on; the order by instance stays.
    return Runs(row, tf.gather(start, index), tf.gather(end, index), tf.gather(runs.instance, index))


def flip(runs: Runs, width: tf.Tensor | int) -> Runs:
    """Mirrored left and right within `width` columns: pixel x becomes width - 1 - x."""
    return Runs(runs.row, width - runs.end, width - runs.start, runs.instance)


def flip_rows(runs: Runs, height: tf.Tensor | int) -> Runs:
    """Mirrored above and below within `height` rows: pixel y becomes height - 1 - y."""
    return Runs(height - 1 - runs.row, runs.start, runs.end, runs.instance)


def shift(runs: Runs, by: tf.Tensor) -> Runs:
    """Moved by int32 [2] rows and columns."""
    return Runs(runs.row + by[0], runs.start + by[1], runs.end + by[1], runs.instance)


def pixels(runs: Runs) -> tuple[tf.Tensor, tf.Tensor]:
    """For each pixel of all runs, the index of its run and its column; int32 [number of pixels] each."""
    length = runs.end - runs.start
    index = tf.repeat(tf.range(tf.size(length)), length)
    return index, tf.gather(runs.start - tf.cumsum(length, exclusive=True), index) + tf.range(tf.size(index))


def subtract(runs: Runs, cover: Runs, width: tf.Tensor | int) -> Runs:
    """The runs without the pixels that are in any run of `cover`; all are in an image of `width` columns."""

    def ends(of: Runs) -> tuple[tf.Tensor, tf.Tensor]:
        """Begin and end of each run among all pixels of the image, counted row by row."""
        return of.row * width + of.start, of.row * width + of.end

    # Between the i-th smallest end and the next smallest begin, as many runs have ended as have begun.
    begins_of_cover, ends_of_cover = (tf.sort(values) for values in ends(cover))
    begin = tf.concat([[0], ends_of_cover], axis=0)
    end = tf.concat([begins_of_cover, [tf.int32.max]], axis=0)
    begin, end = begin[begin < end], end[begin < end]
    # The gaps that a run reaches into are neighbours.
    run_begin, run_end = ends(runs)
    first, past = tf.searchsorted(end, run_begin, side="right"), tf.searchsorted(begin, run_end, side="left")
    pieces = tf.maximum(past - first, 0)
    index = tf.repeat(tf.range(tf.size(pieces)), pieces)
    gap = tf.gather(first - tf.cumsum(pieces, exclusive=True), index) + tf.range(tf.size(index))
    row = tf.gather(runs.row, index)
    start = tf.maximum(tf.gather(run_begin, index), tf.gather(begin, gap)) - row * width
    stop = tf.minimum(tf.gather(run_end, index), tf.gather(end, gap)) - row * width
    return Runs(row, start, stop, tf.gather(runs.instance, index))


def select(runs: Runs, kept: tf.Tensor) -> Runs:
    """The runs of those of m instances that are kept, bool [m]; these are numbered anew, in the same order."""
    new_number = tf.cumsum(tf.cast(kept, tf.int32)) - 1
    row, start, end, instance = (tf.boolean_mask(part, tf.gather(kept, runs.instance)) for part in runs)
    return Runs(row, start, end, tf.gather(new_number, instance))


def transpose(runs: Runs, size: tf.Tensor) -> Runs:
    """Rows and columns exchanged, of an image of `size`, int32 [2] height, width."""
    index, x = pixels(runs)
    height, width = tf.unstack(tf.cast(size, tf.int64), num=2)
    # A number for each pixel, in the order in which the transposed runs visit them.
    column = tf.cast(tf.gather(runs.instance, index), tf.int64) * width + tf.cast(x, tf.int64)
    visited = tf.sort(column * height + tf.cast(tf.gather(runs.row, index), tf.int64))
    # A run ends if the next pixel is not its neighbour, or is in another column.
    breaks = (visited[1:] != visited[:-1] + 1) | (visited[1:] % height == 0)
    edge = tf.ones([tf.minimum(tf.size(visited), 1)], tf.bool)
    first = tf.boolean_mask(visited, tf.concat([edge, breaks], axis=0))
    last = tf.boolean_mask(visited, tf.concat([breaks, edge], axis=0))
    parts = (first // height % width, first % height, last % height + 1, first // (height * width))
    return Runs(*(tf.cast(part, tf.int32) for part in parts))


def areas(runs: Runs, num_instances: tf.Tensor | int) -> tf.Tensor:
    """Pixels of each instance, int32 [m]."""
    return tf.math.unsorted_segment_sum(runs.end - runs.start, runs.instance, num_instances)


def tight_boxes(runs: Runs, num_instances: tf.Tensor | int) -> tf.Tensor:
    """Boxes around the instances, float32 [m, 4]: x1, y1, x2, y2 of the first and last pixels; zeros if it is empty."""
    low = [tf.math.unsorted_segment_min(v, runs.instance, num_instances) for v in (runs.start, runs.row)]
    high = [tf.math.unsorted_segment_max(v, runs.instance, num_instances) for v in (runs.end - 1, runs.row)]
    box = tf.stack([*low, *high], axis=1)
    return tf.cast(tf.where(areas(runs, num_instances)[:, None] > 0, box, 0), tf.float32)
