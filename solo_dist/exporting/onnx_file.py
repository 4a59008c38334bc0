"""A model as an ONNX file, by tf2onnx."""

import importlib.util
from typing import Any

import numpy as np

from solo_dist import stack
from solo_dist.errors import ConfigError
from solo_dist.exporting.graphs import not_converted
from solo_dist.exporting.settings import ExportSettings

OPSET = 17
_LEAST_HALVED = 256  # numbers: smaller constants, such as sizes and thresholds, stay exact


def check_installed() -> None:
    """Raises ConfigError if the converter is missing."""
    missing = [name for name in ("tf2onnx", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--format=onnx needs {', '.join(missing)}: pip install -c {stack.constraints()} '.[onnx]'")


def convert(function: Any, settings: ExportSettings, description: dict[str, str]) -> bytes:
    """The content of the file.

    Args:
      function: a tf.function with an input signature, see `graphs.export_function`.
      settings: the precision.
      description: texts by name that the file carries as metadata_props.
    """
    import onnx
    import tf2onnx

    try:
        model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    except Exception as error:
        raise not_converted("ONNX", error) from error
    if settings.precision == "float16":
        _halve_weights(model)
    for key, text in description.items():
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _halve_weights(model: Any) -> None:
    """Stores the large constants in 16 bits, each followed by a cast to 32, which runtimes do once on loading."""
    import onnx

    graph, casts = model.graph, []
    for tensor in graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size < _LEAST_HALVED:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float16), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
