"""Which record is at which position of the training order."""

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data.schema import Manifest


class Sampler:
    """Maps positions to numbers of records."""

    def __init__(self, config: Config, manifest: Manifest, training: bool):
        self._images, self._copies, self._seed = manifest.num_images, manifest.augmented_copies, config.seed
        self._shuffle = training and config.data.shuffle

    def record(self, position: tf.Tensor) -> tf.Tensor:
        """From position to record, int64 scalars. Each epoch has every image once, and uses the next of its copies."""
        epoch, index = position // self._images, position % self._images
        if self._shuffle:
            seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
            index = tf.random.experimental.index_shuffle(index, seed, self._images - 1)
        return index * self._copies + epoch % self._copies

    def partner(self, position: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
        """The record of another image, int64 scalar; of the same one if there is no other.

        Args:
          position: int64 scalar.
          share: which one, as a share of all others from 0 to below 1, float64 scalar.
        """
        others = max(1, self._images - 1)
        step = 1 + tf.cast(tf.floor(share * others), tf.int64)
        epoch, index = position // self._images, position % self._images
        return self.record(epoch * self._images + (index + step) % self._images)
