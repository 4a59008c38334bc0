"""Panels in TensorBoard: an image, its target masks, and the masks that the network finds in it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, Config
from solo_dist.data.input.pipeline import build_dataset
from solo_dist.data.schema import NO_IMAGE
from solo_dist.solo.targets import mask_values
from solo_dist.viz.overlay import overlay

_LEAST_SCORE = 0.3
"""Detections with lower scores are not shown."""


class Panels:
    """Panels of the first images of a split, always the same ones, so that the panels of all steps can be compared.

    Args:
      config: the config of the run.
      split: "train" or "validation".
      categories: {"name"} by class, of the training shards.
      detect: uint8 images [B,H,W,3] to the dict of `postprocess.detect`.
      count: number of images; fewer if the split has fewer.
      batch_size: B, images that `detect` takes at a time.
    """

    def __init__(
        self,
        config: Config,
        split: str,
        categories: Sequence[Mapping[str, Any]],
        detect: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
        count: int = 1,
        batch_size: int = 1,
    ) -> None:
        self._config, self._split, self._categories, self._detect = config, split, categories, detect
        self._count, self._batch_size = count, batch_size

    @functools.cached_property
    def _batches(self) -> list[Mapping[str, Any]]:
        """The batches of the images, read when the first panels are drawn."""
        # In this process: the servers of data.service hand out each image once, and may be gone.
        config = dataclasses.replace(self._config, data=dataclasses.replace(self._config.data, service=""))
        batches = build_dataset(config, self._split, batch_size=self._batch_size)
        return list(batches.take(-(-self._count // self._batch_size)))

    def draw(self) -> list[np.ndarray]:
        """uint8 [height, width, 3] each: an image, the targets, and what the network finds as it is now."""
        threshold = self._config.postprocess.mask_threshold
        panels: list[np.ndarray] = []
        for batch in self._batches:
            found = self._detect(batch["image"])
            for i in np.flatnonzero(batch["image_id"] != NO_IMAGE)[: self._count - len(panels)]:
                panels.append(panel(batch, found, i, self._categories, threshold))
        return panels


def panel(
    batch: Mapping[str, Any],
    detections: Mapping[str, Any],
    i: int,
    categories: Sequence[Mapping[str, Any]],
    mask_threshold: float,
) -> np.ndarray:
    """The panel of one image of a batch, without the padding of the canvas.

    Args:
      batch: image uint8 [B,H,W,3], image_size [B,2], masks of either form.
      detections: of that image at least, as `postprocess.detect` gives them.
      i: index of the image in the batch.
      categories: {"name"} by class.
      mask_threshold: of the probability.
    """
    height, width = (int(side) for side in batch["image_size"][i])
    image = np.asarray(batch["image"][i])[:height, :width]
    target = mask_values(batch["masks"][i], batch["image"].shape[2] // MASK_STRIDE).numpy() >= 0.5
    scores, classes = np.asarray(detections["scores"][i]), np.asarray(detections["categories"][i])
    shown = int((scores >= _LEAST_SCORE).sum())  # best first, padding has score 0
    predicted = np.asarray(detections["mask_probabilities"][i][:shown]) > mask_threshold
    labels = [f"{categories[classes[n]]['name']} {scores[n]:.2f}" for n in range(shown)]
    stride = batch["image"].shape[1] // target.shape[1]
    window = np.s_[:, : height // stride, : width // stride]
    return side_by_side(image, target[target.any(axis=(1, 2))][window], predicted[window], labels)


def side_by_side(
    image: np.ndarray, target_masks: np.ndarray, predicted_masks: np.ndarray, labels: Sequence[str]
) -> np.ndarray:
    """An image, its target masks and its predicted masks side by side.

    Args:
      image: uint8 [H,W,3], the canvas.
      target_masks: bool [m,h,w], at a quarter of the canvas.
      predicted_masks: bool [n,h,w].
      labels: n texts for the predicted ones.

    Returns:
      uint8 [H',3W'+gaps,3], small canvases enlarged.
    """

    def full_size(masks: np.ndarray) -> np.ndarray:
        masks = np.asarray(masks, bool).reshape(-1, *masks.shape[-2:])
        stride = image.shape[0] // masks.shape[1]
        return masks.repeat(stride, axis=1).repeat(stride, axis=2)

    none = np.zeros([0, *image.shape[:2]], bool)
    views = [
        overlay(image, none, []),
        overlay(image, full_size(target_masks), [""] * len(target_masks)),
        overlay(image, full_size(predicted_masks), labels),
    ]
    gap = np.full([views[0].height, 8, 3], 255, np.uint8)
    parts = [np.asarray(view) for view in views]
    return np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1)
