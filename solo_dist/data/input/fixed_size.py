"""Elements of fixed shapes: padded to M instances and K positives, or cut to them."""

import tensorflow as tf

from solo_dist.config import MASK_STRIDE, Config
from solo_dist.data import geometry
from solo_dist.data.schema import NO_IMAGE
from solo_dist.solo import targets
from solo_dist.solo.family import target_spec
from solo_dist.solo.targets import mask_key

Element = dict[str, tf.Tensor]

_SUBSET = 1 << 40
"""Added to a position to draw the subset of instances and positives independently of the augmentation."""


def fixed_size_targets(made: targets.Targets, config: Config, position: tf.Tensor) -> Element:
    """Pads instances to M and positives to K; if there are more, keeps a random subset and counts what is lost."""
    cell, instance = made.positives.cell, made.positives.instance
    masks = {mask_key(stride): value for stride, value in ((MASK_STRIDE, made.masks), *made.coarser_masks.items())}
    max_instances, max_positives = config.data.max_instances, config.data.max_positives
    seed = tf.stack([tf.constant(config.seed, tf.int64), position + _SUBSET])
    found = tf.size(cell)
    cell, instance, masks = tf.cond(
        tf.shape(made.masks)[0] > max_instances,
        lambda: _subset_of_instances(cell, instance, masks, max_instances, seed),
        lambda: (cell, instance, masks),
    )
    cell, instance = tf.cond(
        tf.size(cell) > max_positives,
        lambda: _subset_of_positives(cell, instance, max_positives, seed),
        lambda: (cell, instance),
    )
    room = max_positives - tf.size(cell)
    missing = max_instances - tf.shape(masks["masks"])[0]
    masks = {key: tf.pad(value, [[0, missing], [0, 0], [0, 0]]) for key, value in masks.items()}
    shapes = _mask_shapes(config)
    return {
        "category_grid": tf.ensure_shape(made.positives.category_grid, [config.model.grid.num_cells]),
        "positive_cell": tf.ensure_shape(tf.pad(cell, [[0, room]], constant_values=-1), [max_positives]),
        "positive_instance": tf.ensure_shape(tf.pad(instance, [[0, room]]), [max_positives]),
        **{key: tf.ensure_shape(value, shapes[key]) for key, value in masks.items()},
        "dropped_positives": found - tf.size(cell),
    }


def _mask_shapes(config: Config) -> dict[str, list[int]]:
    """Shapes of the masks of an element, by key of the batch."""
    spec = target_spec(config)
    height, width = config.data.canvas
    pixels = 1 if spec.coverage else 8  # in a byte
    return {mask_key(s): [config.data.max_instances, height // s, -(-width // s // pixels)] for s in spec.mask_strides}


def _subset_of_instances(
    cell: tf.Tensor, instance: tf.Tensor, masks: dict[str, tf.Tensor], count: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
    """`count` random instances with their positives, those that have positives before those without."""
    total = tf.shape(masks["masks"])[0]
    has_positives = tf.math.unsorted_segment_sum(tf.ones_like(instance, tf.float32), instance, total) > 0
    priority = tf.random.stateless_uniform([total], seed, alg="philox") + tf.cast(has_positives, tf.float32)
    kept = tf.sort(tf.math.top_k(priority, count).indices)
    new_index = tf.tensor_scatter_nd_update(tf.fill([total], -1), kept[:, None], tf.range(count))
    instance = tf.gather(new_index, instance)
    masks = {key: tf.gather(value, kept) for key, value in masks.items()}
    return cell[instance >= 0], instance[instance >= 0], masks


def _subset_of_positives(
    cell: tf.Tensor, instance: tf.Tensor, count: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    priority = tf.random.stateless_uniform(tf.shape(cell), seed, alg="philox")
    kept = tf.sort(tf.math.top_k(priority, count).indices)
    return tf.gather(cell, kept), tf.gather(instance, kept)


def padding_element(config: Config) -> Element:
    """An element without an image, image_id NO_IMAGE, which fills up the last batch of a validation."""
    height, width = config.data.canvas
    return {
        "image": tf.tile(tf.constant(geometry.PADDING, tf.uint8)[None, None], [height, width, 1]),
        "image_size": tf.constant([height, width]),
        "image_id": tf.constant(NO_IMAGE, tf.int64),
        "original_size": tf.constant([height, width]),
        "category_grid": tf.fill([config.model.grid.num_cells], -1),
        "positive_cell": tf.fill([config.data.max_positives], -1),
        "positive_instance": tf.zeros([config.data.max_positives], tf.int32),
        **{key: tf.zeros(shape, tf.uint8) for key, shape in _mask_shapes(config).items()},
        "dropped_positives": tf.constant(0),
        "bad_records": tf.constant(0),
    }
