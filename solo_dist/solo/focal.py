"""The loss of the category scores: focal loss, and quality focal loss, whose targets are the quality of the masks.

Sources: Focal Loss for Dense Object Detection (Lin et al. 2017); Generalized Focal Loss (Li et al. 2020). Shape legend:
config.py.
"""

import tensorflow as tf


def focal_loss_sum(
    logits: tf.Tensor, category_grid: tf.Tensor, alpha: float, gamma: float, unknown: tf.Tensor | None = None
) -> tf.Tensor:
    """Sum of the sigmoid focal loss over all cells and categories (Lin et al. 2017).

    Args:
      logits: [..., C]. Column c belongs to class c; there is no column for the background (quirk 12).
      category_grid: int32 [...], class 0..C-1 or -1 for background.
      alpha: weight of the target category; the others have 1 - alpha.
      gamma: exponent of the probability that is wrong.
      unknown: bool [..., C] that broadcasts, categories whose absence is not certain: they count if they are the
        target of a cell, and not otherwise. None: all are certain.
    """
    return _sum(focal_loss(logits, category_grid, alpha, gamma), category_grid, unknown)


def _sum(loss: tf.Tensor, category_grid: tf.Tensor, unknown: tf.Tensor | None) -> tf.Tensor:
    """The sum of a loss [..., C] without what is unknown."""
    if unknown is None:
        return tf.reduce_sum(loss)
    is_target = tf.one_hot(category_grid, loss.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    return tf.reduce_sum(tf.where(is_target | ~unknown, loss, 0.0))


def focal_loss(logits: tf.Tensor, category_grid: tf.Tensor, alpha: float, gamma: float) -> tf.Tensor:
    """Elementwise sigmoid focal loss [..., C] of `focal_loss_sum`."""
    logits = tf.cast(logits, tf.float32)
    is_target = tf.one_hot(category_grid, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    agreement = tf.where(is_target, logits, -logits)  # large if the prediction is right
    weight = tf.where(is_target, alpha, 1.0 - alpha)
    return weight * tf.pow(tf.sigmoid(-agreement), gamma) * tf.nn.softplus(-agreement)


def quality_focal_loss_sum(
    logits: tf.Tensor,
    category_grid: tf.Tensor,
    quality: tf.Tensor,
    alpha: float,
    gamma: float,
    unknown: tf.Tensor | None = None,
) -> tf.Tensor:
    """Sum of the quality focal loss (Li et al., Generalized Focal Loss, 2020), with the weights of the focal loss.

    Cross-entropy with a soft target y, which is the quality for a cell's category and 0 for the others, times
    |y - probability|^gamma. With a quality of 1 everywhere it is the focal loss.

    Args:
      logits, category_grid, alpha, gamma, unknown: as of `focal_loss_sum`.
      quality: float32 [...], of the shape of category_grid, in 0..1; without gradient.
    """
    logits = tf.cast(logits, tf.float32)
    is_target = tf.one_hot(category_grid, logits.shape[-1])
    target = is_target * quality[..., None]
    weight = alpha * is_target + (1.0 - alpha) * (1.0 - is_target)
    wrong = tf.abs(target - tf.sigmoid(logits))
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(target, logits)
    # The gradient of 0^gamma is infinite or undefined if gamma is below 1; 0^0 is 1.
    modulation = tf.pow(tf.maximum(wrong, 1e-6), gamma)
    return _sum(weight * modulation * entropy, category_grid, unknown)


def cell_quality(quality: tf.Tensor, positive_cell: tf.Tensor, cells: int) -> tf.Tensor:
    """Qualities of the positives, float32 [B,K], in 0..1, at their cells: float32 [B,N], 0 for the background.

    Instances that share a cell also share its one predicted mask; the best of their qualities is taken.
    """
    rows = tf.range(tf.shape(quality)[0])[:, None] * (cells + 1)
    places = rows + tf.where(positive_cell >= 0, positive_cell, cells)  # the last element of a row collects the padding
    count = tf.shape(quality)[0] * (cells + 1)
    best = tf.math.unsorted_segment_max(tf.reshape(quality, [-1]), tf.reshape(places, [-1]), count)
    return tf.clip_by_value(tf.reshape(best, [-1, cells + 1])[:, :cells], 0.0, 1.0)
