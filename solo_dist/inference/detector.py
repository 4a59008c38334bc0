"""A trained model ready to detect: read from a run directory, with its recipe, categories and compiled detection.

    detector = load_detector(workdir, "latest", RunDirectory(workdir).load_config())
    found = detector.detect_image(image)          # uint8 [H0,W0,3] -> scores, categories, masks

Used by evaluate, predict and export. Shape legend: config.py; D detections, H0 x W0 the original image.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import Config, PostprocessConfig
from solo_dist.data.geometry import letterbox
from solo_dist.data.pixel_range import PixelRange
from solo_dist.distributed.precision import set_precision
from solo_dist.distributed.xla import start_xla_quietly
from solo_dist.errors import ConfigError
from solo_dist.masks.paste import paste_masks
from solo_dist.run.checkpoint import CheckpointError, assign_arrays, inference_weights, load_checkpoint
from solo_dist.run.directory import RunDirectory
from solo_dist.solo.network import build_model
from solo_dist.solo.postprocess import detect


class Fitted(NamedTuple):
    """An image on the model's canvas."""

    canvas: tf.Tensor
    """uint8 [H,W,3]."""
    size: tuple[int, int]
    """Height and width of the image on the canvas."""
    original_size: tuple[int, int]
    """Height and width of the image itself."""


class Detected(NamedTuple):
    """Instances in one image, best first, before their masks have the size of the image."""

    scores: np.ndarray
    """float32 [n]."""
    classes: np.ndarray
    """int32 [n], position in the list of categories."""
    mask_probabilities: np.ndarray
    """float32 [n,h,w], at a quarter of the canvas."""


class Found(NamedTuple):
    """Instances in one image, best first."""

    scores: np.ndarray
    """float32 [n]."""
    classes: np.ndarray
    """int32 [n], position in the list of categories."""
    masks: np.ndarray | Sequence[np.ndarray]
    """bool [n,H0,W0]; of an image that was looked at in tiles, a sequence that makes one at a time."""


@dataclasses.dataclass
class Detector:
    """A model with its recipe and categories, and its compiled detection."""

    config: Config
    model: Any
    categories: list[dict[str, Any]]
    """{"id", "name"}; the position is the class."""
    step: int
    """Optimizer steps it was trained for."""
    source: str
    """Folder of the checkpoint."""
    pixel_range: PixelRange | None = None
    """What became black and white in training images of more than 8 bits; None: all had 8."""

    def __post_init__(self) -> None:
        self.detect = detection_function(self.model, self.config)
        canvas = self.config.data.canvas
        self._letterbox = tf.function(
            lambda image: letterbox(image, canvas), input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)]
        )

    def detect_image(self, image: np.ndarray) -> Found:
        """Detects in an image of any size, uint8 [H0,W0,3] RGB; masks have its size."""
        fitted = self.fit(image)
        return self.paste(fitted, self.detect_batch([fitted])[0])

    def fit(self, image: np.ndarray) -> Fitted:
        """Fits an image of any size, uint8 [H0,W0,3] RGB, into the canvas."""
        canvas, size = self._letterbox(tf.constant(image))
        height, width = size.numpy().tolist()
        return Fitted(canvas, (height, width), (image.shape[0], image.shape[1]))

    def detect_batch(self, images: Sequence[Fitted], batch: int = 1, least_score: float = 0.0) -> list[Detected]:
        """Detects in images at once.

        Args:
          images: up to `batch` of them.
          batch: the batch that the network gets, as each size is traced anew; what is missing is filled up.
          least_score: instances with lower scores are left out.
        """
        canvases = [image.canvas for image in images]
        found = self.detect(tf.stack(canvases + canvases[-1:] * (batch - len(images))))
        counts, scores, classes = (found[key].numpy() for key in ("count", "scores", "categories"))
        detected = []
        for i in range(len(images)):
            count = int((scores[i, : counts[i]] >= least_score).sum())
            probabilities = found["mask_probabilities"][i, :count].numpy()
            detected.append(Detected(scores[i, :count], classes[i, :count], probabilities))
        return detected

    def paste(self, image: Fitted, detected: Detected) -> Found:
        """Brings the masks to the size of the image."""
        threshold = self.config.postprocess.mask_threshold
        masks = paste_masks(detected.mask_probabilities, image.size, image.original_size, threshold)
        return Found(detected.scores, detected.classes, masks)


def raw_outputs(model: Any, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """The outputs of the network for canvases, uint8 [B,H,W,3], by the names that `solo.family.Member` gives."""
    return model(images, training=False)


def detections(model: Any, images: tf.Tensor, postprocess: PostprocessConfig, compiled: bool) -> dict[str, tf.Tensor]:
    """Instances in canvases, uint8 [B,H,W,3], as `solo.postprocess.detect` returns them.

    Args:
      model: the network.
      images: the canvases.
      postprocess: thresholds and limits.
      compiled: let XLA compile the parts that it makes faster. If False, the graph also runs in programs without XLA.
    """
    return detect(raw_outputs(model, images), model.config, postprocess, compiled)


def detection_function(model: Any, config: Config) -> Any:
    """`detections` as a tf.function of uint8 images [B,H,W,3], with XLA unless `runtime.compile` is none.

    It is traced once for each batch size.
    """
    compiled = config.runtime.compile != "none"

    def run(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return detections(model, images, config.postprocess, compiled)

    return tf.function(run, autograph=False)


def load_detector(workdir: str, checkpoint: str, config: Config) -> Detector:
    """Builds the model of a run and loads its weights, the averaged ones if the run keeps an average.

    Args:
      workdir: the run directory.
      checkpoint: latest, best, or the path of a checkpoint folder.
      config: the run's recipe; completed with the number of categories.

    Raises:
      ConfigError, CheckpointError: there is no such run or checkpoint, or it has another architecture.
    """
    folder = RunDirectory(workdir).find_checkpoint(checkpoint)
    arrays, metadata = load_checkpoint(folder)
    categories = metadata.categories
    if not categories:
        raise CheckpointError(f"{folder} does not say which categories it was trained for; give one of a training run.")

    def fill(model: Any) -> None:
        assign_arrays({v.path: v for v in model.variables}, inference_weights(arrays), folder)

    detector = build_detector(config, categories, fill, folder, metadata.step)
    detector.pixel_range = metadata.pixel_range
    return detector


def build_detector(
    config: Config, categories: list[dict[str, Any]], fill: Callable[[Any], object], source: str, step: int = 0
) -> Detector:
    """Builds the model of a recipe; `fill` then assigns its weights.

    Args:
      config: the recipe; completed with the number of categories.
      categories: {"id", "name"} of each class.
      fill: assigns the variables of the model.
      source: name of the weights, for messages.
      step: optimizer steps that they were trained for.

    Raises:
      ConfigError: the recipe has another number of categories. Errors of `fill` are passed on.
    """
    if config.model.num_categories not in (0, len(categories)):
        raise ConfigError(
            f"model.num_categories={config.model.num_categories}, but {source} was trained for {len(categories)}: "
            "set it to 0 to take the number from the checkpoint."
        )
    config.model.num_categories = len(categories)
    config.model.backbone.weights = ""  # `fill` assigns them with the rest: do not download them
    set_precision(config.runtime.precision)
    if config.runtime.compile != "none":
        start_xla_quietly()
    model = build_model(config.model, config.data.canvas)
    fill(model)
    return Detector(config, model, categories, step, source)
