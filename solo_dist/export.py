"""Writes a trained model as files that other programs run: a SavedModel, TFLite or ONNX.

Examples:
  solo-dist export --workdir=runs/shapes_tiny
      the newest checkpoint as a SavedModel, to runs/shapes_tiny/export

  solo-dist export --workdir=runs/mine --checkpoint=best --output=models/mine/1
      the checkpoint with the best mask AP, to a folder that TensorFlow Serving reads

  solo-dist export --workdir=runs/mine --config.postprocess.max_detections=20
      at most 20 instances an image

  solo-dist export --workdir=runs/mine --format=tflite --precision=float16
      for phones and small computers, to runs/mine/export/tflite_float16; half the size

  solo-dist export --workdir=runs/mine --format=tflite --precision=int8 --outputs=raw
      a quarter of the size; decode.py, which is written beside it, makes instances of its outputs

  solo-dist export --workdir=runs/mine --format=onnx --canvas=256x384 --batch=4
      for ONNX Runtime or OpenVINO, four images at a time on a smaller canvas

Beside the model are model.json (labels, sizes, thresholds, source), detect.py (from an image file to masks, with
NumPy, Pillow and the runtime alone) and report.json: how the export differs from the model on validation images.
docs/export.md tells what each format holds.

The SavedModel's signature serving_default takes image, uint8 [1, height, width, 3] RGB, and returns for its n
instances, best first: scores float32 [1, n], categories int64 [1, n] (ids of the training data), names string [1, n]
and masks bool [1, n, height, width]. Fitting into the canvas and all post-processing are part of the model.
"""

from absl import flags
from ml_collections import config_flags

from solo_dist import cli
from solo_dist.config import parse_canvas
from solo_dist.exporting.settings import CALIBRATION_IMAGES, MAX_AP_DROP, OUTPUTS, PRECISIONS, ExportSettings

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe; by default the run's own.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory, a path or URL.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best, or the folder of a checkpoint.")
_OUTPUT = flags.DEFINE_string(
    "output", "", "Folder of the export; by default WORKDIR/export, or a folder in it named after format and precision."
)
_FORMAT = flags.DEFINE_enum("format", "savedmodel", list(PRECISIONS), "Kind of file.")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    list(MAX_AP_DROP),
    "float16: weights in 16 bits. dynamic: weights in 8 bits (tflite). int8: everything in 8 bits (tflite, raw).",
)
_OUTPUTS = flags.DEFINE_enum("outputs", "detections", OUTPUTS, "detections: instances. raw: outputs of the network.")
_CANVAS = flags.DEFINE_string("canvas", "", "HEIGHTxWIDTH that images are fitted into; by default the recipe's.")
_BATCH = flags.DEFINE_integer("batch", 1, "Images at a time, of tflite and onnx.", lower_bound=1)
_CANDIDATES = flags.DEFINE_integer(
    "candidates",
    0,
    "Pairs of cell and category that get a mask, of tflite and onnx; by default twice as many as the check image with "
    "the most has above the score threshold.",
    lower_bound=0,
)
_CHECK_IMAGES = flags.DEFINE_integer(
    "check_images", 50, "Validation images that the export is compared on; 0: none.", lower_bound=0
)
_MAX_AP_DROP = flags.DEFINE_float(
    "max_ap_drop", None, "An export whose mask AP is lower by more fails; by default 0.005, dynamic 0.01, int8 0.02."
)
_CALIBRATION_IMAGES = flags.DEFINE_integer(
    "calibration_images", CALIBRATION_IMAGES, "Training images that int8 takes its ranges from.", lower_bound=1
)


def main(arguments: list[str]) -> None:
    """Exports, prints the report and says how to use the result."""
    del arguments
    config = _CONFIG.value

    settings = ExportSettings(_FORMAT.value, _PRECISION.value, _OUTPUTS.value, _BATCH.value, _CANDIDATES.value)
    if settings.format != "savedmodel":
        config.runtime.precision = "float32"  # the only one that the converters support
    if _CANVAS.value:
        config.data.canvas = parse_canvas(_CANVAS.value)
        config.validate()

    from solo_dist.exporting.job import export
    from solo_dist.exporting.parity import format_report
    from solo_dist.inference.detector import load_detector

    detector = load_detector(_WORKDIR.value, _CHECKPOINT.value, config)
    output = (_OUTPUT.value or f"{_WORKDIR.value.rstrip('/')}/export/{settings.name}").rstrip("/")
    limit = MAX_AP_DROP[settings.precision] if _MAX_AP_DROP.value is None else _MAX_AP_DROP.value
    report = export(detector, settings, output, _CHECK_IMAGES.value, limit, _CALIBRATION_IMAGES.value)
    print(f"Exported {detector.source} to {output}")
    print(f"Not compared with the model: {report}" if isinstance(report, str) else format_report(report))
    print(_how_to_use(settings.format, output))
    if detector.pixel_range:
        low, high = detector.pixel_range
        print(
            f"It was trained on images of more than 8 bits; make 8 bits of their values in the same way:\n\n"
            f"  image = np.clip(np.round((values - {low:g}) * 255 / ({high:g} - {low:g})), 0, 255).astype(np.uint8)"
        )


def _how_to_use(kind: str, output: str) -> str:
    if kind != "savedmodel":
        runtime = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}[kind]
        return f"To use it:\n\n  pip install {runtime} numpy pillow\n  python {output}/detect.py image.jpg"
    return (
        "To use it:\n\n"
        "  import tensorflow as tf\n"
        f'  detect = tf.saved_model.load("{output}").signatures["serving_default"]\n'
        '  image = tf.io.decode_jpeg(tf.io.read_file("image.jpg"), channels=3)\n'
        "  found = detect(image=image[None])\n"
        '  print(found["names"][0], found["scores"][0], found["masks"].shape)'
    )


if __name__ == "__main__":
    cli.run(main)
