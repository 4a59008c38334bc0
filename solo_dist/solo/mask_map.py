"""Masks of chosen cells: the dynamic convolution that every member of the SOLO family can be written as.

A cell's mask is a product of A sigmoids. Factor a is a map of features, multiplied at each pixel with the cell's vector
for it, the kernel: probability = sigmoid(F_1 k_1) * ... * sigmoid(F_A k_A). A dense tensor with a mask for each of the
N cells is never made: kernels are gathered for the cells asked for, then one [K,E] x [E,h*w] product an image follows.

SOLOv2 (section 3.2 of its paper) has one factor, whose kernels the network predicts. Shape legend: config.py.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from solo_dist.config import MASK_STRIDE
from solo_dist.models.resize import resize_planes


class MaskMap(NamedTuple):
    """The features that the masks of consecutive cells are made of; a member has one map or several."""

    first_cell: int
    """Flat index in N of the first cell that the map serves. It serves n cells, as many as there are kernels."""
    stride: int
    """Canvas pixels a pixel of the features, a multiple of MASK_STRIDE."""
    features: tuple[tf.Tensor, ...]
    """A tensors [B,h,w,E]; E may differ between factors."""
    kernels: tuple[tf.Tensor, ...]
    """A tensors [B,n,E]."""

    @property
    def num_cells(self) -> int:
        """The number n of cells that the map serves."""
        return self.kernels[0].shape[1]

    @property
    def mask_size(self) -> tuple[int, int]:
        """Height and width of detected masks, at a quarter of the canvas."""
        height, width = self.features[0].shape[1:3]
        return height * self.stride // MASK_STRIDE, width * self.stride // MASK_STRIDE

    def of_image(self, image: tf.Tensor) -> "MaskMap":
        """The map of one image, int32 scalar, of the batch: B = 1."""
        features, kernels = (tuple(x[image][None] for x in tensors) for tensors in (self.features, self.kernels))
        return self._replace(features=features, kernels=kernels)

    def own(self, cells: tf.Tensor) -> tf.Tensor:
        """Flat cells, int32 of any shape, as indices into the kernels; -1 for padding and cells of other maps."""
        inside = (cells >= self.first_cell) & (cells < self.first_cell + self.num_cells)
        return tf.where(inside, cells - self.first_cell, -1)

    def kernels_of(self, own: tf.Tensor) -> list[tf.Tensor]:
        """The kernels at int32 [B,K], a result of `own` -> A tensors [B,K,E]; -1 gives the kernel of the first cell."""
        return [tf.gather(kernels, tf.maximum(own, 0), batch_dims=1) for kernels in self.kernels]

    def probabilities(self, own: tf.Tensor) -> tf.Tensor:
        """Masks of the cells at int32 [B,K], a result of `own` -> float32 [B,K,h*w] with h, w = `mask_size`.

        Quirk 25: each factor is enlarged as a probability, bilinearly, before the factors are multiplied.
        """
        factors = zip(self.features, self.kernels_of(own), strict=True)
        return functools.reduce(tf.multiply, (self._enlarged(_product(*factor)) for factor in factors))

    def _enlarged(self, logits: tf.Tensor) -> tf.Tensor:
        """Logits [B,K,h'*w'] at the resolution of the features -> probabilities [B,K,h*w]."""
        probabilities = tf.sigmoid(tf.cast(logits, tf.float32))
        if self.stride == MASK_STRIDE:
            return probabilities
        height, width = self.features[0].shape[1:3]
        planes = tf.reshape(probabilities, [-1, height, width])
        (height, width), count = self.mask_size, logits.shape[1]
        return tf.reshape(resize_planes(planes, (height, width)), [-1, count, height * width])


def mask_probabilities(maps: Sequence[MaskMap], cells: tf.Tensor) -> tf.Tensor:
    """Masks of flat cells, int32 [B,K], whichever map serves them -> float32 [B,K,h,w]."""
    first, *others = maps
    probabilities = first.probabilities(first.own(cells))
    for mask_map in others:
        own = mask_map.own(cells)
        probabilities = tf.where(own[..., None] >= 0, mask_map.probabilities(own), probabilities)
    return tf.reshape(probabilities, [-1, cells.shape[1], *first.mask_size])


def _product(features: tf.Tensor, kernels: tf.Tensor) -> tf.Tensor:
    """[B,h,w,E] and [B,K,E] -> [B,K,h*w] in the type of the features."""
    height, width, channels = features.shape[1:]
    pixels = tf.reshape(features, [-1, height * width, channels])
    return tf.matmul(tf.cast(kernels, features.dtype), pixels, transpose_b=True)
