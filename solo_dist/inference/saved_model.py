"""The exported form of a detector: one TensorFlow function from a picture of any size to instances at that size."""

import tensorflow as tf

from solo_dist.config import MASK_STRIDE
from solo_dist.data.geometry import letterbox
from solo_dist.inference.detector import Detector
from solo_dist.storage import file_io


class ServedDetector(tf.Module):
    """A detector as a module that tf.saved_model.save can write."""

    def __init__(self, detector: Detector):
        super().__init__(name="solov2")
        self._detector = detector
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
        found = self._detector.detect(fitted[None])
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


def paste_masks_in_graph(
    probabilities: tf.Tensor, image_size: tf.Tensor, original_size: tf.Tensor, threshold: float
) -> tf.Tensor:
    """The graph's form of `postprocess.paste_masks`: float32 [n,h,w], sizes int32 [2] -> bool [n,H0,W0] (quirk 14)."""
    rows = _enlarging_matrix(probabilities.shape[1], image_size[0], original_size[0])
    columns = _enlarging_matrix(probabilities.shape[2], image_size[1], original_size[1])
    return tf.map_fn(
        lambda mask: tf.matmul(rows, tf.matmul(mask, columns, transpose_b=True)) > threshold,
        probabilities,
        fn_output_signature=tf.TensorSpec([None, None], tf.bool),
        parallel_iterations=1,
    )


def _enlarging_matrix(source: int, image: tf.Tensor, original: tf.Tensor) -> tf.Tensor:
    """float32 [original, source]: x4, then the first `image` values, then resized to `original`."""
    enlarged = tf.range(tf.constant(source * MASK_STRIDE))[:image]
    upper = _bilinear(enlarged, 1.0 / MASK_STRIDE, tf.constant(source))
    scale = tf.cast(image, tf.float64) / tf.cast(original, tf.float64)
    return tf.cast(tf.matmul(_bilinear(tf.range(original), scale, image), upper), tf.float32)


def _bilinear(targets: tf.Tensor, scale: tf.Tensor | float, source: tf.Tensor) -> tf.Tensor:
    """Float64 [targets, source]: weights of linear interpolation with half-pixel centres, clamped at the ends."""
    last = tf.cast(source - 1, tf.float64)
    position = tf.clip_by_value((tf.cast(targets, tf.float64) + 0.5) * scale - 0.5, 0.0, last)
    # A pixel's weight falls linearly with the distance to it and is 0 from one pixel on.
    return tf.maximum(1.0 - tf.abs(position[:, None] - tf.cast(tf.range(source), tf.float64)), 0.0)
