"""A model as a file of LiteRT (TensorFlow Lite) that holds built-in operators only."""

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from solo_dist.exporting.graphs import not_converted
from solo_dist.exporting.settings import ExportSettings


def convert(function: Any, model: Any, settings: ExportSettings, canvases: Callable[[], Iterable[np.ndarray]]) -> bytes:
    """The content of the file.

    Args:
      function: a tf.function with an input signature, see `graphs.export_function`.
      model: owns the variables of the function.
      settings: the precision.
      canvases: representative batches, uint8 [B,H,W,3], for int8.
    """
    owner = tf.Module()  # without an owner of the variables, names of inputs and outputs would be lost
    owner.weights = [variable.value for variable in model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], owner)
    if settings.precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if settings.precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if settings.precision == "int8":

        def representative() -> Iterator[list[np.ndarray]]:
            yield from ([batch] for batch in canvases())

        converter.representative_dataset = representative
    try:
        return converter.convert()
    except Exception as error:
        raise not_converted("TFLite", error) from error


def with_files(content: bytes, files: dict[str, str]) -> bytes:
    """The model with text files appended as a zip, which `unzip model.tflite` shows and readers of metadata find."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()
