"""Requests that TensorFlow Serving answers by itself before it serves a SavedModel, so that no user waits for tracing.

They are TFRecords of tensorflow.serving.PredictionLog in assets.extra. The few fields that are needed are written here
by their numbers in prediction_log.proto, predict.proto and model.proto: the package with these messages,
tensorflow-serving-api, has a version for each TensorFlow and brings grpc.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

FOLDER, FILE = "assets.extra", "tf_serving_warmup_requests"
_PREDICT_LOG = 6  # of PredictionLog
_REQUEST = 1  # of PredictLog
_MODEL_SPEC, _INPUTS = 1, 2  # of PredictRequest
_SIGNATURE_NAME = 3  # of ModelSpec
_KEY, _VALUE = 1, 2  # of an entry of a map
_LENGTH_DELIMITED = 2


def write_warmup(folder: str, requests: Iterable[tuple[str, Mapping[str, np.ndarray | bytes]]]) -> None:
    """Writes requests into a SavedModel on this machine.

    Args:
      folder: of the SavedModel.
      requests: name of a signature, and its inputs by name: arrays, or bytes for a string [1].
    """
    tf.io.gfile.makedirs(f"{folder}/{FOLDER}")
    with tf.io.TFRecordWriter(f"{folder}/{FOLDER}/{FILE}") as writer:
        for signature, inputs in requests:
            writer.write(prediction_log(signature, inputs))


def prediction_log(signature: str, inputs: Mapping[str, np.ndarray | bytes]) -> bytes:
    """A tensorflow.serving.PredictionLog with one request of `predict`."""
    request = _field(_MODEL_SPEC, _field(_SIGNATURE_NAME, signature.encode()))
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto([value] if isinstance(value, bytes) else value)
        request += _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tensor.SerializeToString()))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A field of a message, a string or bytes as protobuf encodes it."""
    return bytes([number << 3 | _LENGTH_DELIMITED]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
