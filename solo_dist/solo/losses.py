"""The loss of SOLOv2: focal loss over the category grid, dice loss over the masks of the positives only.

Both parts are sums divided by *global* counts (over replicas, workers and accumulated micro-batches) that the caller
passes in, so that adding the results of all micro-batches gives the loss of the whole batch.

The mask part is written for time and memory. Only positives get a mask: their kernels are gathered and multiplied with
the mask features, one [K, E] x [E, h*w] product an image, in chunks of K. The dice loss of a chunk and its
gradient are computed together while the chunk's masks are at hand, so that the backward pass has nothing to recompute
and nothing of size [K, h*w] is kept; chunks that hold only padding are not computed at all.

Source: SOLOv2 (Wang et al. 2020), sections 3.2 and 3.3, and the official code's behaviour. Shape legend: config.py.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from solo_dist.config import GridConfig, LossConfig
from solo_dist.solo.dynamic_conv import select_kernels
from solo_dist.solo.targets import count_bits

POSITIVES_PER_CHUNK = 64
DICE_EPSILON = 1e-3
_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)

Batch = Mapping[str, tf.Tensor]


def count_positives(batch: Batch) -> dict[str, tf.Tensor]:
    """What the loss is normalised by, of one batch; sum it over everything that makes up one optimizer step.

    Returns:
      positives: float32 scalar, instance-cell pairs that get a mask. positive_cells: float32 scalar, distinct cells.
    """
    return {
        "positives": tf.reduce_sum(tf.cast(batch["positive_cell"] >= 0, tf.float32)),
        "positive_cells": tf.reduce_sum(tf.cast(batch["category_grid"] >= 0, tf.float32)),
    }


def solov2_loss(
    outputs: Mapping[str, tf.Tensor],
    batch: Batch,
    normalizers: Mapping[str, tf.Tensor],
    loss: LossConfig,
    grid: GridConfig,
) -> dict[str, tf.Tensor]:
    """This batch's share of the loss, in float32 whatever the precision of the outputs.

    Args:
      outputs: category_logits [B,N,C], kernels [B,N,E], mask_features [B,h,w,E], or [B,h,w,L*E] if separate a level.
      batch: category_grid, positive_cell, positive_instance, and masks bit-packed [B,M,h,w/8].
      normalizers: `count_positives` summed over all batches of the optimizer step.
      loss: weights of the two parts and the focal parameters.
      grid: the levels, to find each cell's mask features where these are separate.

    Returns:
      Scalars category and mask, each with its weight, and total. Without a positive, mask and its gradients are 0.
    """
    focal = focal_loss_sum(outputs["category_logits"], batch["category_grid"], loss.focal_alpha, loss.focal_gamma)
    mask = mask_dice_sum(
        outputs["mask_features"],
        outputs["kernels"],
        batch["positive_cell"],
        batch["positive_instance"],
        batch["masks"],
        grid,
        loss.mask_weight / tf.maximum(normalizers["positives"], 1.0),
    )
    # Quirk 11: the focal sum is divided by the distinct positive cells + 1, dice is a mean over all positives.
    category = loss.category_weight * focal / (normalizers["positive_cells"] + 1.0)
    return {"total": category + mask, "category": category, "mask": mask}


def focal_loss_sum(logits: tf.Tensor, category_grid: tf.Tensor, alpha: float, gamma: float) -> tf.Tensor:
    """Sum of the sigmoid focal loss over all cells and categories (Lin et al. 2017).

    Args:
      logits: [..., C]. Column c belongs to class c; there is no column for the background (quirk 12).
      category_grid: int32 [...], class 0..C-1 or -1 for background.
      alpha: weight of the target category; the others have 1 - alpha.
      gamma: exponent of the probability that is wrong.
    """
    return tf.reduce_sum(focal_loss(logits, category_grid, alpha, gamma))


def focal_loss(logits: tf.Tensor, category_grid: tf.Tensor, alpha: float, gamma: float) -> tf.Tensor:
    """Elementwise sigmoid focal loss [..., C] of `focal_loss_sum`."""
    logits = tf.cast(logits, tf.float32)
    is_target = tf.one_hot(category_grid, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    agreement = tf.where(is_target, logits, -logits)  # large where the prediction is right
    weight = tf.where(is_target, alpha, 1.0 - alpha)
    return weight * tf.pow(tf.sigmoid(-agreement), gamma) * tf.nn.softplus(-agreement)


def mask_dice_sum(
    mask_features: tf.Tensor,
    kernels: tf.Tensor,
    positive_cell: tf.Tensor,
    positive_instance: tf.Tensor,
    packed_masks: tf.Tensor,
    grid: GridConfig,
    weight: tf.Tensor | float = 1.0,
) -> tf.Tensor:
    """Weighted sum over all positives of the dice loss between their predicted mask and their instance's mask.

    Args:
      mask_features: [B,h,w,E], or [B,h,w,L*E] where each level has its own.
      kernels: [B,N,E] dynamic 1x1 kernels.
      positive_cell: int32 [B,K] in 0..N-1, -1 for padding.
      positive_instance: int32 [B,K] in 0..M-1; anything where positive_cell is -1.
      packed_masks: uint8 [B,M,h,w/8], eight pixels a byte, the leftmost in the highest bit.
      grid: the levels, for separate mask features.
      weight: float32 scalar without a gradient; given here it spares a pass over the gradient of the mask features.
    """
    height, width, channels = mask_features.shape[1:]
    features = tf.reshape(mask_features, [-1, height * width, channels])
    packed = tf.reshape(packed_masks, [-1, packed_masks.shape[1], height * width // 8])
    gathered = select_kernels(kernels, positive_cell, grid, channels)
    padding = -positive_cell.shape[1] % POSITIVES_PER_CHUNK
    gathered = tf.pad(gathered, [[0, 0], [0, padding], [0, 0]])
    positive_cell = tf.pad(positive_cell, [[0, 0], [0, padding]], constant_values=-1)
    positive_instance = tf.pad(positive_instance, [[0, 0], [0, padding]])
    weights = tf.where(positive_cell >= 0, weight, 0.0)
    return _dice_sum(features, gathered, weights, tf.maximum(positive_instance, 0), packed)


@tf.custom_gradient
def _dice_sum(features, kernels, weights, instance, packed):
    """Of features [B,P,E], kernels [B,K,E], weights [B,K], instance [B,K], packed [B,M,P/8] -> float32 scalar."""
    loss, d_features, d_kernels = _dice_and_gradients(tf.cast(features, tf.float32), kernels, weights, instance, packed)
    if features.dtype == tf.bfloat16:  # halves what is kept; float16 could not hold it before the loss scale is applied
        d_features = tf.cast(d_features, tf.bfloat16)

    def gradient(upstream):
        scaled = tf.cast(upstream * tf.cast(d_features, tf.float32), features.dtype)
        return scaled, tf.cast(upstream * d_kernels, kernels.dtype), None, None, None

    return loss, gradient


def _dice_and_gradients(features, kernels, weights, instance, packed):
    """As `_dice_sum` -> loss [], d features [B,P,E], d kernels [B,K,E], all float32."""
    size = POSITIVES_PER_CHUNK
    chunks = kernels.shape[1] // size
    last_positive = tf.reduce_max(tf.where(weights > 0, tf.range(1, kernels.shape[1] + 1), 0))

    def chunk_terms(chunk):
        columns = chunk * size + tf.range(size)
        chosen, factors, whose = (tf.gather(value, columns, axis=1) for value in (kernels, weights, instance))
        return _chunk_dice_and_gradients(features, chosen, factors, whose, packed)

    def body(chunk, loss, d_features, d_kernels):
        chunk_loss, more_d_features, chunk_d_kernels = chunk_terms(chunk)
        return chunk + 1, loss + chunk_loss, d_features + more_d_features, d_kernels.write(chunk, chunk_d_kernels)

    loss, d_features, chunk_d_kernels = chunk_terms(0)
    d_kernels = tf.TensorArray(tf.float32, chunks, element_shape=chunk_d_kernels.shape).write(0, chunk_d_kernels)
    _, loss, d_features, d_kernels = tf.while_loop(
        lambda chunk, *_: chunk * size < last_positive,  # what follows is padding
        body,
        (1, loss, d_features, d_kernels),
        parallel_iterations=1,
    )
    d_kernels = tf.transpose(d_kernels.stack(), [1, 0, 2, 3])
    return loss, d_features, tf.reshape(d_kernels, [-1, *kernels.shape[1:]])


def _chunk_dice_and_gradients(features, kernels, weights, instance, packed):
    """As `_dice_sum` for c of the K positives -> loss [], d features [B,P,E], d kernels [B,c,E], all float32."""
    kernels, weights = tf.cast(kernels, tf.float32), weights[..., None]
    packed = tf.gather(packed, instance, batch_dims=1)
    probability = tf.sigmoid(tf.matmul(kernels, features, transpose_b=True))
    error = probability - _unpack(packed)
    area = count_bits(packed)[..., None]
    # Quirk 11: 0.001 is added to each of the two squared sums.
    squares = _sum_of_squares(probability) + area + 2 * DICE_EPSILON
    # 1 - 2 sum(p t) / squares, written without the cancellation that would spoil it for nearly perfect masks.
    dice = (_sum_of_squares(error) + 2 * DICE_EPSILON) / squares
    # d dice / d p = -2 t / squares + 4 sum(p t) p / squares^2, where 2 sum(p t) / squares = 1 - dice: so it is
    # 2 / squares times p - t - dice p. The factors, one a mask, are left to the small operands of the products.
    d_logits = tf.raw_ops.SigmoidGrad(y=probability, dy=error - dice * probability)
    factors = 2.0 * weights / squares
    d_features = tf.matmul(d_logits, factors * kernels, transpose_a=True)
    return tf.reduce_sum(weights * dice), d_features, factors * tf.matmul(d_logits, features)


def _sum_of_squares(values: tf.Tensor) -> tf.Tensor:
    """[B,c,P] -> [B,c,1]."""
    return tf.reduce_sum(tf.square(values), axis=2, keepdims=True)


def _unpack(packed: tf.Tensor) -> tf.Tensor:
    """uint8 [B,c,n] of bits -> float32 [B,c,8n]; by table, half the time of shifting."""
    bits = tf.gather(_BITS_OF_BYTE, tf.cast(packed, tf.int32))
    return tf.reshape(bits, [-1, packed.shape[1], 8 * packed.shape[2]])
