"""The dynamic convolution of SOLOv2 (section 3.2): one mask for each positive cell, none for the others."""

import tensorflow as tf

from solo_dist.config import GridConfig


def select_kernels(kernels: tf.Tensor, cells: tf.Tensor, grid: GridConfig, channels: int) -> tf.Tensor:
    """The kernels of some cells, made to fit the mask features.

    Args:
      kernels: [B, N, E].
      cells: int32 [B, K], flat indices into N; padding (-1) gives the kernel of cell 0.
      grid: the grids that N counts.
      channels: of the mask features: E, or L * E where every level has a map of its own.

    Returns:
      [B, K, channels]; with L * E, zero but at the slot of the cell's level.
    """
    selected = tf.gather(kernels, tf.maximum(cells, 0), batch_dims=1)
    return selected if channels == kernels.shape[-1] else _at_own_level(selected, cells, grid)


def mask_logits(mask_features: tf.Tensor, kernels: tf.Tensor, cells: tf.Tensor, grid: GridConfig) -> tf.Tensor:
    """Convolves the mask features with the 1x1 kernels of the given cells only.

    Args:
      mask_features: [B, h, w, E], or [B, h, w, L * E] where every level has a map of its own.
      kernels: [B, N, E].
      cells: int32 [B, K], flat indices into N; padding (-1) gives a mask that the caller must ignore.
      grid: the grids that N counts.

    Returns:
      [B, K, h * w] in the type of the mask features.
    """
    height, width, channels = mask_features.shape[1:]
    selected = tf.cast(select_kernels(kernels, cells, grid, channels), mask_features.dtype)
    return tf.matmul(selected, tf.reshape(mask_features, [-1, height * width, channels]), transpose_b=True)


def _at_own_level(selected: tf.Tensor, cells: tf.Tensor, grid: GridConfig) -> tf.Tensor:
    """[B, K, E] -> [B, K, L * E], zero but at the slot of the cell's level."""
    starts = [0]
    for size in grid.sizes[:-1]:
        starts.append(starts[-1] + size * size)
    level = tf.reduce_sum(tf.cast(tf.maximum(cells, 0)[..., None] >= tf.constant(starts), tf.int32), axis=-1) - 1
    slots = tf.one_hot(level, len(grid.sizes), dtype=selected.dtype)  # [B, K, L]
    spread = slots[..., None] * selected[..., None, :]
    return tf.reshape(spread, [-1, cells.shape[1] or tf.shape(cells)[1], len(grid.sizes) * selected.shape[-1]])
