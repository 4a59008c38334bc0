"""From a detector to the folder of an export: the model, what travels with it, and the report on it.

folder/{model.tflite | model.onnx | saved_model.pb, variables/}  model.json  detect.py  [decode.py]  report.json
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np

from solo_dist.data.input.pipeline import build_dataset, load_split
from solo_dist.data.input.reader import readable_errors
from solo_dist.errors import ConfigError, DataError
from solo_dist.exporting import onnx_file, parity, tflite
from solo_dist.exporting.description import describe
from solo_dist.exporting.graphs import export_function
from solo_dist.exporting.pairs import choose_pairs
from solo_dist.exporting.saved_model import write_saved_model
from solo_dist.exporting.settings import CALIBRATION_IMAGES, ExportSettings
from solo_dist.inference.detector import Detector
from solo_dist.storage import file_io

REPORT = "report.json"
_SHIPPED = Path(__file__).parent / "shipped"


def export(
    detector: Detector, settings: ExportSettings, folder: str, check_images: int, max_ap_drop: float, calibration: int
) -> dict[str, Any] | str:
    """Exports, checks the result against the model and writes the report.

    Args:
      detector: the model.
      settings: what to export; `pairs` may be 0.
      folder: path or URL.
      check_images: validation images of the check; 0 for none.
      max_ap_drop: by how much the AP may be lower.
      calibration: images of the training shards that int8 takes its ranges from.

    Returns:
      The content of report.json, or the reason why there is none.
    Raises:
      ConfigError, DataError: something that is needed is missing.
      ExportFailed: the export finds less than the model; its files are there for a look unless the folder is a URL.
    """
    check_possible(detector, settings)
    if settings.format != "savedmodel" and not settings.pairs:
        settings = dataclasses.replace(settings, pairs=choose_pairs(detector, check_images))
    with file_io.staged(folder) as local:
        write_export(detector, settings, local, lambda: representative_canvases(detector, settings.batch, calibration))
        file_io.remove(f"{local}/{REPORT}")
        if not check_images:
            return "--check_images=0"
        try:
            report = parity.check(detector, settings, local, check_images)
        except (ConfigError, DataError) as error:
            return str(error)
        report["milliseconds_an_image"] = parity.time_export(detector, settings, local)
        report["bytes"] = bytes_of(local, settings)
        report["max_ap_drop"] = max_ap_drop
        file_io.write(f"{local}/{REPORT}", json.dumps(report, indent=2).encode())
        parity.refuse_loss(report, max_ap_drop)
    return report


def check_possible(detector: Detector, settings: ExportSettings) -> None:
    """Raises ConfigError if a converter is missing, or if raw outputs are asked for that decode.py does not know."""
    if settings.format == "onnx":
        onnx_file.check_installed()
    if settings.outputs == "raw" and detector.config.model.head != "solov2":
        raise ConfigError(
            f"--outputs=raw is there for model.head=solov2, not {detector.config.model.head}; use --outputs=detections."
        )


def write_export(
    detector: Detector, settings: ExportSettings, folder: str, canvases: Callable[[], Iterable[np.ndarray]]
) -> None:
    """Writes the model and what travels with it to a folder on this machine.

    Args:
      detector: the model.
      settings: what to export.
      folder: made if it is missing.
      canvases: representative batches, uint8 [B,H,W,3], for int8.
    """
    description = json.dumps(describe(detector, settings), indent=2)
    with _only_warnings():
        if settings.format == "savedmodel":
            write_saved_model(detector, folder)
        else:
            function = export_function(detector, settings)
            if settings.format == "tflite":
                content = tflite.convert(function, detector.model, settings, canvases)
                content = tflite.with_files(content, {"model.json": description})
            else:
                content = onnx_file.convert(function, settings, {"model.json": description})
            file_io.write(f"{folder}/{settings.file}", content)
    file_io.write(f"{folder}/model.json", description.encode())
    for name in ["detect.py"] + (["decode.py"] if settings.outputs == "raw" else []):
        file_io.write(f"{folder}/{name}", file_io.read(str(_SHIPPED / name)))


@contextlib.contextmanager
def _only_warnings() -> Iterator[None]:
    """Leaves out what TensorFlow and tf2onnx log on the way, such as a line with the names of all variables."""
    before = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.WARNING)
    try:
        yield
    finally:
        absl.logging.set_verbosity(before)


def representative_canvases(detector: Detector, batch: int, images: int = CALIBRATION_IMAGES) -> Iterator[np.ndarray]:
    """The first images of the training shards, unchanged, as batches uint8 [B,H,W,3]. Raises ConfigError, DataError."""
    config = detector.config
    if not config.data.train:
        raise ConfigError("--precision=int8 takes ranges from training images: give --config.data.train=SHARDS.")
    config = type(config).from_json(config.to_json())
    config.data.validation = config.data.train  # validation images are not augmented
    load_split(config, "validation")
    with readable_errors():
        for number, element in enumerate(build_dataset(config, "validation", batch_size=batch)):
            if number * batch >= images:
                return
            yield element["image"].numpy()


def bytes_of(folder: str, settings: ExportSettings) -> int:
    """Size of the model itself."""
    if settings.format != "savedmodel":
        return file_io.size(f"{folder}/{settings.file}")
    paths = [f"{folder}/saved_model.pb", *file_io.matches(f"{folder}/variables/*")]
    return sum(map(file_io.size, paths))
