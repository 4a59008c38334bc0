"""Several data sets in one training, each with its share of the positions.

Positions come in blocks. Each block gives every set its share of them, in an order drawn from (seed, block), and a set
sees its own positions 0, 1, 2, ... without a gap. So which record is at a position is a function of the position alone.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data.input.sampler import Sampler
from solo_dist.errors import ConfigError

BLOCK = 1000
"""Positions of a block; a share is rounded to a whole number of them."""


class Mixture:
    """Maps positions to sets and to the positions within a set."""

    def __init__(self, config: Config, lengths: Sequence[int]):
        """Takes the shares: data.mix_weights, or the lengths of an epoch of each set if it is empty.

        Raises:
          ConfigError: a share is too small.
        """
        self._seed, self._shuffle = config.seed, config.data.shuffle
        self._slots = slots_of(config.data.mix_weights or [float(length) for length in lengths])
        if min(self._slots) < 1:
            raise ConfigError(f"data.mix_weights gives a folder less than one image in {BLOCK}; raise its weight.")
        self._ends = np.cumsum(self._slots)

    def set_of(self, position: tf.Tensor) -> tf.Tensor:
        """Number of the set, int32 scalar, of a position, int64 scalar."""
        return tf.searchsorted(tf.constant(self._ends), self._slot(position)[None], side="right")[0]

    def within(self, position: tf.Tensor, number: int) -> tf.Tensor:
        """The position within set `number` of a position that belongs to it; int64 scalars."""
        first = int(self._ends[number]) - self._slots[number]
        return position // BLOCK * self._slots[number] + self._slot(position) - first

    def _slot(self, position: tf.Tensor) -> tf.Tensor:
        block, place = position // BLOCK, position % BLOCK
        if not self._shuffle:
            return place
        # Below 0, so that it differs from the seeds of the epochs of the sets, which are 0 and above.
        seed = tf.stack([tf.constant(self._seed, tf.int64), -1 - block])
        return tf.random.experimental.index_shuffle(place, seed, BLOCK - 1)


def slots_of(weights: Sequence[float]) -> list[int]:
    """Positions of each set in a block, in proportion to the weights, by the method of largest remainders."""
    exact = np.array(weights, np.float64) / np.sum(weights) * BLOCK
    slots = np.floor(exact).astype(np.int64)
    slots[np.argsort(slots - exact, kind="stable")[: BLOCK - slots.sum()]] += 1
    return slots.tolist()


class PartSampler:
    """The order of one set of a mixture, by positions of the whole training."""

    def __init__(self, mixture: Mixture, number: int, sampler: Sampler):
        self._mixture, self._number, self._sampler = mixture, number, sampler

    def record(self, position: tf.Tensor) -> tf.Tensor:
        """As Sampler.record."""
        return self._sampler.record(self._mixture.within(position, self._number))

    def partner(self, position: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
        """As Sampler.partner; partners come from the same set."""
        return self._sampler.partner(self._mixture.within(position, self._number), share)
