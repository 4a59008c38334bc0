"""The dynamic convolution of SOLOv2 (section 3.2): one mask for each positive cell, none for the others."""

import tensorflow as tf

from solo_dist.config import GridConfig


def gather_kernels(kernels: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """Kernels [B, N, E] at flat cells [B, K] -> [B, K, E]; padding cells (-1) give those of cell 0."""
    return tf.gather(kernels, tf.maximum(cells, 0), batch_dims=1)


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
    selected = tf.cast(gather_kernels(kernels, cells), mask_features.dtype)  # [B, K, E]
    if channels != kernels.shape[-1]:
        selected = _at_own_level(selected, cells, grid)
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
