"""Writes a trained model as a SavedModel that takes images of any size and returns instances.

Examples:
  solo-dist export --workdir=runs/shapes_tiny
      the newest checkpoint, to runs/shapes_tiny/export

  solo-dist export --workdir=runs/mine --checkpoint=best --output=models/mine/1
      the checkpoint with the best mask AP, to a folder that TensorFlow Serving reads

  solo-dist export --workdir=runs/mine --config.postprocess.max_detections=20
      at most 20 instances an image

The signature serving_default takes image, uint8 [1, height, width, 3] RGB, and returns for its n instances, best first:
scores float32 [1, n], categories int64 [1, n] (ids of the training data), names string [1, n] and masks bool
[1, n, height, width]. Fitting into the canvas and all post-processing are part of the model.
"""

from absl import flags
from ml_collections import config_flags

from solo_dist import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe; by default the run's own.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory, a path or URL.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best, or the folder of a checkpoint.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder of the SavedModel; by default WORKDIR/export.")


def main(arguments: list[str]) -> None:
    """Exports and says how to load the result."""
    del arguments
    config = _CONFIG.value

    from solo_dist.inference.detector import load_detector
    from solo_dist.inference.saved_model import export_detector

    detector = load_detector(_WORKDIR.value, _CHECKPOINT.value, config)
    output = (_OUTPUT.value or f"{_WORKDIR.value.rstrip('/')}/export").rstrip("/")
    export_detector(detector, output)
    print(
        f"Exported {detector.source} to {output}. To use it:\n\n"
        "  import tensorflow as tf\n"
        f'  detect = tf.saved_model.load("{output}").signatures["serving_default"]\n'
        '  image = tf.io.decode_jpeg(tf.io.read_file("image.jpg"), channels=3)\n'
        "  found = detect(image=image[None])\n"
        '  print(found["names"][0], found["scores"][0], found["masks"].shape)'
    )
    if detector.pixel_range:
        low, high = detector.pixel_range
        print(
            f"It was trained on images of more than 8 bits; make 8 bits of their values in the same way:\n\n"
            f"  image = np.clip(np.round((values - {low:g}) * 255 / ({high:g} - {low:g})), 0, 255).astype(np.uint8)"
        )


if __name__ == "__main__":
    cli.run(main)
