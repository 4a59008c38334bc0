"""The exported form of a detector: one TensorFlow function from an image of any size to instances at that size."""

import tensorflow as tf

from solo_dist.data.geometry import letterbox
from solo_dist.inference.detector import Detector, detections
from solo_dist.masks.paste import paste_masks_in_graph
from solo_dist.storage import file_io


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


def export_detector(detector: Detector, folder: str) -> None:
    """Writes a SavedModel with the signature serving_default."""
    module = ServedDetector(detector)
    with file_io.staged(folder) as local:
        tf.saved_model.save(module, local, signatures={"serving_default": module.__call__})
