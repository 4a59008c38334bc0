"""Panels in TensorBoard: a training image, its target masks, and the masks that the network finds in it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, Config
from solo_dist.data.input.pipeline import build_dataset
from solo_dist.data.schema import Manifest
from solo_dist.solo.targets import mask_values
from solo_dist.viz.overlay import overlay


class TrainingPanel:
    """The panel of the first image of the run, so that the panels of all steps can be compared.

    Args:
      config: the config of the run.
      manifest: of the training shards.
      detect: uint8 images [B,H,W,3] to the dict of `postprocess.detect`.
    """

    def __init__(
        self, config: Config, manifest: Manifest, detect: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
    ) -> None:
        self._config, self._manifest, self._detect = config, manifest, detect

    @functools.cached_property
    def _batch(self) -> Mapping[str, Any]:
        """The batch of the one image, read when the first panel is drawn."""
        # In this process: the servers of data.service hand out each image once, and may be gone.
        data = dataclasses.replace(self._config.data, service="")
        return next(iter(build_dataset(dataclasses.replace(self._config, data=data), "train", batch_size=1)))

    def draw(self) -> np.ndarray:
        """uint8 [height, width, 3]: the image, the targets, and what the network finds as it is now, side by side."""
        found = self._detect(self._batch["image"])
        threshold = self._config.postprocess.mask_threshold
        return training_panel(self._batch, found, self._manifest.categories, threshold)


def training_panel(
    batch: Mapping[str, Any],
    detections: Mapping[str, Any],
    categories: Sequence[Mapping[str, Any]],
    mask_threshold: float,
    score_threshold: float = 0.3,
) -> np.ndarray:
    """The panel of the first image of a batch, without the padding of the canvas.

    Args:
      batch: image uint8 [B,H,W,3], image_size [B,2], masks of either form.
      detections: of that image at least, as `postprocess.detect` gives them.
      categories: {"name"} by class.
      mask_threshold: of the probability.
      score_threshold: least score of what is shown.
    """
    height, width = (int(side) for side in batch["image_size"][0])
    image = np.asarray(batch["image"][0])[:height, :width]
    target = mask_values(batch["masks"][0], batch["image"].shape[2] // MASK_STRIDE).numpy() >= 0.5
    scores, classes = np.asarray(detections["scores"][0]), np.asarray(detections["categories"][0])
    shown = int((scores >= score_threshold).sum())  # best first, padding has score 0
    predicted = np.asarray(detections["mask_probabilities"][0][:shown]) > mask_threshold
    labels = [f"{categories[classes[i]]['name']} {scores[i]:.2f}" for i in range(shown)]
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
