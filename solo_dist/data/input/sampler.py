"""Which record is at which position of the training order."""

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data.input.repeats import epoch_ends, repeat_factors
from solo_dist.data.schema import Manifest, load_image_categories


class Sampler:
    """Maps positions to numbers of records."""

    def __init__(self, config: Config, manifest: Manifest, training: bool):
        """Takes what the order depends on.

        Raises:
          ShardError: data.repeat_threshold needs the categories of images, which the folder does not have.
        """
        self._images, self._copies, self._seed = manifest.num_images, manifest.augmented_copies, config.seed
        self._shuffle = training and config.data.shuffle
        self._ends: tf.Tensor | None = None
        self.epoch_length = self._images
        """Positions of an epoch."""
        if training and config.data.repeat_threshold:
            pairs, categories = load_image_categories(manifest), len(manifest.categories)
            ends = epoch_ends(repeat_factors(pairs, self._images, categories, config.data.repeat_threshold))
            self.epoch_length, self._ends = round(ends[-1]), tf.constant(ends)

    def record(self, position: tf.Tensor) -> tf.Tensor:
        """From position to record, int64 scalars. Each epoch uses the next of the copies of an image.

        An epoch has every image once or, with data.repeat_threshold, as often as its repeat factor says: rounded up or
        down, by a draw from the seed and the epoch.
        """
        epoch, index = position // self.epoch_length, position % self.epoch_length
        seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
        if self._shuffle:
            index = tf.random.experimental.index_shuffle(index, seed, self.epoch_length - 1)
        return self._image(index, seed) * self._copies + epoch % self._copies

    def _image(self, index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """From a place in an epoch to an image, int64 scalars."""
        if self._ends is None:
            return index
        offset = tf.random.stateless_uniform([], seed, dtype=tf.float64)
        point = tf.cast(index, tf.float64) + offset
        image = tf.searchsorted(self._ends, point[None], side="right", out_type=tf.int64)[0]
        return tf.minimum(image, self._images - 1)  # the last end may be rounded down

    def partner(self, position: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
        """The record at another place of the epoch, int64 scalar: another image, unless images are repeated.

        Args:
          position: int64 scalar.
          share: which one, as a share of all others from 0 to below 1, float64 scalar.
        """
        others = max(1, self.epoch_length - 1)
        step = 1 + tf.cast(tf.floor(share * others), tf.int64)
        epoch, index = position // self.epoch_length, position % self.epoch_length
        return self.record(epoch * self.epoch_length + (index + step) % self.epoch_length)
