"""What an export can be: the combinations of format, precision and outputs that there are."""

import dataclasses

from solo_dist.errors import ConfigError

PRECISIONS = {
    "savedmodel": ("float32",),
    "tflite": ("float32", "float16", "dynamic", "int8"),
    "onnx": ("float32", "float16"),
}
"""Format -> precisions. float16: weights in 16 bits, computed in 32. dynamic: weights in 8 bits; products of them are
computed in 8 bits with ranges found at run time. int8: everything in 8 bits, with ranges of a representative set."""
OUTPUTS = ("detections", "raw")
MAX_AP_DROP = {"float32": 0.005, "float16": 0.005, "dynamic": 0.01, "int8": 0.02}
"""Precision -> how much lower the AP of an export may be than that of the model."""
CALIBRATION_IMAGES = 100
"""Training images that int8 takes its ranges from by default."""
_FILES = {"savedmodel": ".", "tflite": "model.tflite", "onnx": "model.onnx"}


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """One kind of export. Raises ConfigError for a combination that there is not."""

    format: str = "savedmodel"
    precision: str = "float32"
    outputs: str = "detections"
    """detections: instances. raw: outputs of the network, for decode.py."""
    batch: int = 1
    """Images at a time; a SavedModel takes any number."""
    pairs: int = 0
    """Pairs of cell and category that get a mask (see solo/static_postprocess.py); 0: not chosen yet, or a SavedModel,
    which has no such limit."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS[self.format]:
            raise ConfigError(
                f"--precision={self.precision} is not there for --format={self.format}; it can be "
                f"{', '.join(PRECISIONS[self.format])}."
            )
        if self.precision == "int8" and self.outputs != "raw":
            raise ConfigError(
                "--precision=int8 needs --outputs=raw: suppression of duplicates does not work in 8 bits, so decode.py "
                "does it outside of the model."
            )
        if self.format == "savedmodel" and self.outputs != "detections":
            raise ConfigError("--outputs=raw is there for --format=tflite and --format=onnx.")

    @property
    def file(self) -> str:
        """Name of the model in the folder of the export."""
        return _FILES[self.format]

    @property
    def name(self) -> str:
        """Name of the export, for example tflite_int8_raw; that of a SavedModel is empty, as it is the default."""
        if self.format == "savedmodel":
            return ""
        return f"{self.format}_{self.precision}" + ("_raw" if self.outputs == "raw" else "")
