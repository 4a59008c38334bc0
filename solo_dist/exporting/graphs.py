"""The function that a file for another runtime holds: canvases of a fixed size to detections or raw outputs."""

from typing import Any

import tensorflow as tf

from solo_dist.errors import ExportFailed
from solo_dist.exporting.settings import ExportSettings
from solo_dist.inference.detector import Detector, raw_outputs
from solo_dist.solo.static_postprocess import detect_static


def export_function(detector: Detector, settings: ExportSettings) -> Any:
    """A tf.function of `image`, uint8 [B,H,W,3], with the outputs that the settings ask for.

    Args:
      detector: the model.
      settings: what to export.
    """

    def run(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = raw_outputs(detector.model, image)
        if settings.outputs == "raw":
            return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}
        return detect_static(outputs, detector.config.model, detector.config.postprocess, settings.pairs)

    specification = tf.TensorSpec([settings.batch, *detector.config.data.canvas, 3], tf.uint8, name="image")
    return tf.function(run, input_signature=[specification], autograph=False)


def not_converted(kind: str, error: Exception) -> ExportFailed:
    """What a converter raised, which can be an exception of any kind, as an error for users."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return ExportFailed(f"The model cannot be converted to {kind}: {reason}")
