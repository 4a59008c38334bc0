"""A detector as a SavedModel: from an image of any size, encoded or not, to instances at that size, and on canvases.

Programs that batch requests, such as TensorFlow Serving, can do so with the signature `canvas`, whose shapes are fixed.
Serving sends the requests in assets.extra to itself before it serves the model.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from solo_dist.data.geometry import letterbox
from solo_dist.data.image_io import DCT_METHOD
from solo_dist.exporting.warmup import write_warmup
from solo_dist.inference.detector import Detector, detections
from solo_dist.masks.paste import paste_masks_in_graph


class ServedDetector(tf.Module):
    """A detector as a module that tf.saved_model.save can write."""

    def __init__(self, detector: Detector):
        super().__init__(name=detector.config.model.head)
        self._detector = detector
        # Programs that serve a model often have no XLA, so it is used only if the recipe asks for it.
        self._compiled = detector.config.runtime.compile in ("loss", "step")
        self._weights = [variable.value for variable in detector.model.variables]
        self._ids = tf.constant([category["id"] for category in detector.categories], tf.int64)
        self._names = tf.constant([category["name"] for category in detector.categories])

    @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8, name="image")])
    @tf.autograph.experimental.do_not_convert
    def __call__(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """uint8 [1,H0,W0,3] -> scores, categories, names [1,n] and masks [1,n,H0,W0]."""
        config = self._detector.config
        original_size = tf.shape(image)[1:3]
        fitted, image_size = letterbox(image[0], config.data.canvas)
        found = detections(self._detector.model, fitted[None], config.postprocess, self._compiled)
        count = found["count"][0]
        classes = found["categories"][:, :count]
        # At least one, as a map over nothing does not know the size of its results.
        probabilities = found["mask_probabilities"][0, : tf.maximum(count, 1)]
        masks = paste_masks_in_graph(probabilities, image_size, original_size, config.postprocess.mask_threshold)
        return {
            "scores": found["scores"][:, :count],
            "categories": tf.gather(self._ids, classes),
            "names": tf.gather(self._names, classes),
            "masks": masks[None, :count],
        }

    @tf.function(input_signature=[tf.TensorSpec([1], tf.string, name="image_bytes")])
    @tf.autograph.experimental.do_not_convert
    def jpeg(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """The bytes of a JPEG file -> what `__call__` returns. Its EXIF orientation is not looked at."""
        return self(tf.io.decode_jpeg(image_bytes[0], channels=3, dct_method=DCT_METHOD)[None])

    def canvas(self) -> Any:
        """A tf.function of canvases, uint8 [B,H,W,3] -> detections as `solo.postprocess.detect` returns them."""
        config = self._detector.config
        specification = tf.TensorSpec([None, *config.data.canvas, 3], tf.uint8, name="image")

        def run(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return detections(self._detector.model, image, config.postprocess, self._compiled)

        return tf.function(run, input_signature=[specification], autograph=False)


def write_saved_model(detector: Detector, folder: str) -> None:
    """Writes a SavedModel with the signatures serving_default, jpeg and canvas to a folder on this machine."""
    module = ServedDetector(detector)
    signatures = {"serving_default": module.__call__, "jpeg": module.jpeg, "canvas": module.canvas()}
    tf.saved_model.save(module, folder, signatures=signatures)
    write_warmup(folder, warmup_requests(detector.config.data.canvas))


def warmup_requests(canvas: tuple[int, int]) -> list[tuple[str, dict[str, Any]]]:
    """A request for each signature, with a grey image of the size of the canvas."""
    image = np.full([1, *canvas, 3], 128, np.uint8)
    jpeg = tf.io.encode_jpeg(image[0]).numpy()
    return [("serving_default", {"image": image}), ("jpeg", {"image_bytes": jpeg}), ("canvas", {"image": image})]
