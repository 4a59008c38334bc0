"""The loss: focal loss over the category grid, dice loss over the masks of the positives only.

The target of a category's score is 1 at its positives or, with `loss.score_target`, how good the predicted mask is.
With `loss.federated`, the score of a category is free if it is not certain that the image has no object of it, except
at cells of its objects (Gupta et al., LVIS, 2019, section 2: federated annotations).

Both parts are sums divided by *global* counts (over replicas, workers and accumulated micro-batches) that the caller
passes in, so that adding the results of all micro-batches gives the loss of the whole batch.

The mask part is written for time and memory. Only positives get a mask: their kernels are gathered and multiplied with
the features of their map, one [K, E] x [E, h*w] product an image, in chunks of K. The dice loss of a chunk and its
gradient are computed together while the chunk's masks are at hand, so that the backward pass has nothing to recompute
and nothing of size [K, h*w] is kept; chunks without a positive of the map are not computed at all.

Source: SOLOv2 (Wang et al. 2020), sections 3.2 and 3.3, and the official code's behaviour. Shape legend: config.py;
A factors of a mask as in mask_map.py.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from solo_dist.config import LossConfig, ModelConfig
from solo_dist.masks.bits import count_bits, unpack_bits
from solo_dist.solo.family import find_member
from solo_dist.solo.focal import cell_quality, focal_loss_sum, quality_focal_loss_sum
from solo_dist.solo.mask_map import MaskMap
from solo_dist.solo.targets import is_coverage, mask_key, mask_values

POSITIVES_PER_CHUNK = 64
DICE_EPSILON = 1e-3

Batch = Mapping[str, tf.Tensor]


def count_positives(batch: Batch) -> dict[str, tf.Tensor]:
    """The counts of one batch that normalise the loss; sum them over all batches of an optimizer step.

    Returns:
      positives: float32 scalar, instance-cell pairs that get a mask. positive_cells: float32 scalar, distinct cells.
    """
    return {
        "positives": tf.reduce_sum(tf.cast(batch["positive_cell"] >= 0, tf.float32)),
        "positive_cells": tf.reduce_sum(tf.cast(batch["category_grid"] >= 0, tf.float32)),
    }


def solo_loss(
    outputs: Mapping[str, tf.Tensor],
    batch: Batch,
    normalizers: Mapping[str, tf.Tensor],
    loss: LossConfig,
    model: ModelConfig,
) -> dict[str, tf.Tensor]:
    """This batch's share of the loss, in float32 whatever the precision of the outputs.

    Args:
      outputs: of the network.
      batch: category_grid, positive_cell, positive_instance, and the masks that the member needs, of bits or coverage;
        with `loss.federated` also unknown_categories, uint8 [B, ceil(C / 8)] of bits.
      normalizers: `count_positives` summed over all batches of the optimizer step.
      loss: weights of the two parts and the focal parameters.
      model: names the member of the family, and has its grid.

    Returns:
      Scalars category and mask, each with its weight, and total. Without a positive, mask and its gradients are 0.
    """
    weight = loss.mask_weight / tf.maximum(normalizers["positives"], 1.0)
    masks = [
        mask_dice_sum(
            mask_map,
            batch["positive_cell"],
            batch["positive_instance"],
            batch[mask_key(mask_map.stride)],
            weight,
        )
        for mask_map in find_member(model).mask_maps(outputs, model.grid)
    ]
    mask = tf.add_n([part.loss for part in masks])
    logits, grid = outputs["category_logits"], batch["category_grid"]
    unknown = None
    if loss.federated:
        unknown = unpack_bits(batch["unknown_categories"], tf.bool, logits.shape[-1])[:, None]
    if loss.score_target == "one":
        focal = focal_loss_sum(logits, grid, loss.focal_alpha, loss.focal_gamma, unknown)
    else:
        quality = tf.add_n([part.dice for part in masks])
        if loss.score_target == "iou":
            quality /= 2.0 - quality
        targets = cell_quality(quality, batch["positive_cell"], grid.shape[1])
        focal = quality_focal_loss_sum(logits, grid, targets, loss.focal_alpha, loss.focal_gamma, unknown)
    # Quirk 11: the focal sum is divided by the distinct positive cells + 1, dice is a mean over all positives.
    category = loss.category_weight * focal / (normalizers["positive_cells"] + 1.0)
    return {"total": category + mask, "category": category, "mask": mask}


class MaskLoss(NamedTuple):
    """The mask loss of the positives that a map serves."""

    loss: tf.Tensor
    """float32 scalar, the weighted sum of their dice losses."""
    dice: tf.Tensor
    """float32 [B,K], their dice coefficients, 1 - dice loss; 0 for padding and positives of other maps. No gradient."""


def mask_dice_sum(
    mask_map: MaskMap,
    positive_cell: tf.Tensor,
    positive_instance: tf.Tensor,
    masks: tf.Tensor,
    weight: tf.Tensor | float = 1.0,
) -> MaskLoss:
    """Weighted sum of the dice loss between predicted mask and instance's mask, over the positives that the map serves.

    Args:
      mask_map: features and kernels.
      positive_cell: int32 [B,K] in 0..N-1, -1 for padding. The order is free, but costs least if a map's are together.
      positive_instance: int32 [B,K] in 0..M-1; anything if positive_cell is -1.
      masks: at the resolution of the map's features, uint8 [B,M,h,ceil(w/8)] of bits or [B,M,h,w] of coverage.
      weight: float32 scalar without a gradient; given here it spares a pass over the gradient of the mask features.
    """
    count = positive_cell.shape[1]
    padding = -count % POSITIVES_PER_CHUNK
    positive_cell = tf.pad(mask_map.own(positive_cell), [[0, 0], [0, padding]], constant_values=-1)
    positive_instance = tf.pad(positive_instance, [[0, 0], [0, padding]])
    weights = tf.where(positive_cell >= 0, weight, 0.0)
    loss, dice = _dice_sum(
        weights,
        tf.maximum(positive_instance, 0),
        masks,
        *mask_map.features,
        *mask_map.kernels_of(positive_cell),
    )
    return MaskLoss(loss, tf.stop_gradient(tf.where(positive_cell >= 0, dice, 0.0)[:, :count]))


@tf.custom_gradient
def _dice_sum(weights, instance, masks, *factors):
    """Weights, instance [B,K], masks [B,M,h,w or w/8], features [B,h,w,E], kernels [B,K,E] -> loss [], dice [B,K]."""
    features, kernels = factors[: len(factors) // 2], factors[len(factors) // 2 :]
    height, width = features[0].shape[1:3]
    pixels = [tf.cast(tf.reshape(x, [-1, height * width, x.shape[3]]), tf.float32) for x in features]
    loss, dice, d_features, d_kernels = _dice_and_gradients(pixels, kernels, weights, instance, masks, width)
    # bfloat16 halves the memory of what is kept; in float16 it could underflow, as the loss scale comes later.
    d_features = [
        tf.cast(gradient, tf.bfloat16) if x.dtype == tf.bfloat16 else gradient
        for gradient, x in zip(d_features, features, strict=True)
    ]

    def gradient(upstream, _):
        for_features = [
            tf.reshape(tf.cast(upstream * tf.cast(gradient, tf.float32), x.dtype), [-1, *x.shape[1:]])
            for gradient, x in zip(d_features, features, strict=True)
        ]
        for_kernels = [tf.cast(upstream * d, k.dtype) for d, k in zip(d_kernels, kernels, strict=True)]
        return None, None, None, *for_features, *for_kernels

    return (loss, dice), gradient


def _dice_and_gradients(features, kernels, weights, instance, masks, width):
    """The dice loss as in `_dice_sum`, with its gradients, for features [B,P,E] with rows of `width` pixels.

    Returns:
      loss [], dice coefficients [B,K], A gradients of features [B,P,E] and A of kernels [B,K,E], all float32.
    """
    size, count = POSITIVES_PER_CHUNK, weights.shape[1]
    used = tf.reduce_any(weights > 0, axis=0)
    first = tf.reduce_min(tf.where(used, tf.range(count), count - 1)) // size
    end = tf.reduce_max(tf.where(used, tf.range(1, count + 1), 0))

    def chunk_terms(chunk):
        columns = chunk * size + tf.range(size)
        *chosen, factors, whose = (tf.gather(value, columns, axis=1) for value in (*kernels, weights, instance))
        return _chunk_dice_and_gradients(features, chosen, factors, whose, masks, width)

    def body(chunk, loss, dice, d_features, d_kernels):
        more = chunk_terms(chunk)
        d_features = [old + new for old, new in zip(d_features, more[2], strict=True)]
        d_kernels = [array.write(chunk, new) for array, new in zip(d_kernels, more[3], strict=True)]
        return chunk + 1, loss + more[0], dice.write(chunk, more[1]), d_features, d_kernels

    def array_from(value):
        return tf.TensorArray(tf.float32, count // size, element_shape=value.shape).write(first, value)

    loss, dice, d_features, d_kernels = chunk_terms(first)
    _, loss, dice, d_features, d_kernels = tf.while_loop(
        lambda chunk, *_: chunk * size < end,  # the rest is padding, or served by other maps
        body,
        (first + 1, loss, array_from(dice), d_features, [array_from(value) for value in d_kernels]),
        parallel_iterations=1,
    )
    dice = tf.reshape(tf.transpose(dice.stack(), [1, 0, 2]), [-1, count])
    d_kernels = [tf.transpose(array.stack(), [1, 0, 2, 3]) for array in d_kernels]
    d_kernels = [tf.reshape(d, [-1, *k.shape[1:]]) for d, k in zip(d_kernels, kernels, strict=True)]
    return loss, dice, d_features, d_kernels


def _chunk_dice_and_gradients(features, kernels, weights, instance, masks, width):
    """`_dice_and_gradients` for c of the K positives."""
    kernels, weights = [tf.cast(kernel, tf.float32) for kernel in kernels], weights[..., None]
    masks = tf.gather(masks, instance, batch_dims=1)  # [B,c,h,w/8 or w]
    logits = [tf.matmul(kernel, feature, transpose_b=True) for kernel, feature in zip(kernels, features, strict=True)]
    factors = [tf.sigmoid(value) for value in logits]
    probability = functools.reduce(tf.multiply, factors)
    target = tf.reshape(mask_values(masks, width), [-1, *probability.shape[1:]])
    error = probability - target
    if is_coverage(masks, width):
        target_squares = _sum_of_squares(target)
    else:  # counting bits spares a pass over the large tensor
        target_squares = count_bits(tf.reshape(masks, [-1, masks.shape[1], masks.shape[2] * masks.shape[3]]))[..., None]
    # Quirk 11: 0.001 is added to each of the two squared sums.
    squares = _sum_of_squares(probability) + target_squares + 2 * DICE_EPSILON
    # 1 - 2 sum(p t) / squares, written without the cancellation that would spoil it for nearly perfect masks.
    dice = (_sum_of_squares(error) + 2 * DICE_EPSILON) / squares
    # d dice / d p = -2 t / squares + 4 sum(p t) p / squares^2. As 2 sum(p t) / squares = 1 - dice, this is
    # 2 / squares * (p - t - dice * p). The factor 2 / squares, one number a mask, is multiplied into the small operands
    # of the products below and not into this large tensor.
    scales = 2.0 * weights / squares
    d_probability = error - dice * probability
    d_features, d_kernels = [], []
    for index, (kernel, feature) in enumerate(zip(kernels, features, strict=True)):
        others = factors[:index] + factors[index + 1 :]
        d_factor = functools.reduce(tf.multiply, others, d_probability)
        d_logits = tf.raw_ops.SigmoidGrad(y=factors[index], dy=d_factor)
        d_features.append(tf.matmul(d_logits, scales * kernel, transpose_a=True))
        d_kernels.append(scales * tf.matmul(d_logits, feature))
    return tf.reduce_sum(weights * dice), 1.0 - dice[..., 0], d_features, d_kernels


def _sum_of_squares(values: tf.Tensor) -> tf.Tensor:
    """[B,c,P] -> [B,c,1]."""
    return tf.reduce_sum(tf.square(values), axis=2, keepdims=True)
