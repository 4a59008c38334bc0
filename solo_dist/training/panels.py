"""Panels in TensorBoard: a training image, its target masks, and the masks that the network finds in it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data.input.pipeline import build_dataset
from solo_dist.data.schema import Manifest
from solo_dist.viz.overlay import training_panel


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
