"""Finds objects in an image with the model of this folder, and shows every step from the file to the masks.

    python detect.py photo.jpg              # writes photo_overlay.png and photo_instances.npz

Needs NumPy, Pillow and the runtime of the model: ai-edge-litert for .tflite, onnxruntime (or openvino, with
--runtime=openvino) for .onnx, tensorflow for a SavedModel. model.json says what the model expects.
"""

import argparse
import json
import runpy
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps


def load_model(folder, threads=0, runtime=""):
    """Reads the model of a folder; threads: 0 for the runtime's own choice.

    Returns model.json, and a function from canvases, uint8 [batch, H, W, 3], to a dict of arrays: scores [batch, D],
    best first; categories [batch, D], places in labels; mask_probabilities [batch, D, H/4, W/4]; count [batch] of D.
    """
    model = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    loaders = {"tflite": _tflite, "onnx": _onnx, "openvino": _openvino, "savedmodel": _savedmodel}
    run = loaders[runtime or model["format"]](str(Path(folder) / model["file"]), threads)
    if model["outputs"] == "detections":
        return model, run
    decode = runpy.run_path(str(Path(folder) / "decode.py"))["decode"]
    return model, lambda canvases: decode(run(canvases), model)


def _tflite(path, threads):
    try:
        from ai_edge_litert import interpreter as litert
    except ImportError:  # the same interpreter is a part of TensorFlow
        from tensorflow import lite as litert
    run = litert.Interpreter(path, num_threads=threads or None).get_signature_runner()
    return lambda canvases: run(image=canvases)


def _onnx(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda canvases: dict(zip(names, session.run(names, {"image": canvases}), strict=True))


def _openvino(path, threads):
    import openvino

    # On many CPUs OpenVINO computes in bfloat16 unless it is asked for float32.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    run = openvino.Core().compile_model(path, "CPU", options)
    return lambda canvases: {key.get_any_name(): value for key, value in run([canvases]).items()}


def _savedmodel(path, _):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return lambda canvases: {key: value.numpy() for key, value in loaded.signatures["canvas"](image=canvases).items()}


def bilinear(source, target):
    """Weights of bilinear interpolation with half-pixel centres, float32 [target, source]."""
    position = np.float32(np.float64(np.float32(source / target)) * (np.arange(target) + 0.5) - 0.5).clip(min=0)
    low = np.minimum(position.astype(int), source - 1)
    share, matrix, rows = position - low, np.zeros([target, source], np.float32), np.arange(target)
    np.add.at(matrix, (rows, low), 1 - share)
    np.add.at(matrix, (rows, np.minimum(low + 1, source - 1)), share)
    return matrix


def area(source, target):
    """Weights of the mean over the pixels that each target pixel covers, float32 [target, source]."""
    edges, pixels = np.arange(target + 1) * source / target, np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.float32(overlap.clip(min=0) * target / source)


def letterbox(image, canvas_size, padding):
    """Fits an image, uint8 [h, w, 3] RGB, into the top left of a canvas -> canvas, size that the image has there."""
    sizes = list(zip(image.shape[:2], canvas_size, strict=True))
    factor = min(side / length for length, side in sizes)
    fitted = [int(np.clip(np.floor(length * factor / 4 + 0.5) * 4, 4, side)) for length, side in sizes]
    # An image that is at least twice too large is shrunk by a power of two first.
    step = 2 ** max(0, int(np.floor(np.log2(1 / factor))))
    pixels = image.astype(np.float32)
    for axis, (length, target) in enumerate(zip(image.shape[:2], fitted, strict=True)):
        shrunk = -(-length // step)
        for matrix in ([area(length, shrunk)] if step > 1 else []) + [bilinear(shrunk, target)]:
            pixels = np.moveaxis(np.tensordot(matrix, pixels, (1, axis)), 0, axis)
    canvas = np.full([*canvas_size, 3], padding, np.uint8)
    canvas[: fitted[0], : fitted[1]] = (pixels + 0.5).clip(0, 255)
    return canvas, fitted


def paste(probabilities, fitted, size, threshold):
    """Mask probabilities [n, H/4, W/4] -> bool [n, *size]: enlarged four times, cut to the image, resized to it."""
    rows, columns = (
        bilinear(kept, target) @ bilinear(quarter, 4 * quarter)[:kept]
        for quarter, kept, target in zip(probabilities.shape[1:], fitted, size, strict=True)
    )
    masks = [rows @ mask @ columns.T > threshold for mask in probabilities]
    return np.array(masks, bool).reshape(len(masks), *size)


def detect(model, run, image, score_threshold=0.0):
    """Instances in an image, uint8 [h, w, 3] RGB, best first -> scores [n], categories [n], masks bool [n, h, w]."""
    canvas, fitted = letterbox(image, model["canvas"], model["padding"])
    found = run(np.repeat(canvas[None], model["batch"] or 1, axis=0))
    count = int((found["scores"][0, : int(found["count"][0])] >= score_threshold).sum())
    masks = paste(found["mask_probabilities"][0, :count], fitted, image.shape[:2], model["mask_threshold"])
    return found["scores"][0, :count], found["categories"][0, :count], masks


def overlay(image, masks, texts):
    """The masks in colours over the image, with a text at the top left of each."""
    painted = image.astype(np.float32)
    for i, mask in enumerate(masks):
        painted[mask] = 0.55 * painted[mask] + 0.45 * 255 * (0.5 + 0.5 * np.cos(2.4 * i + np.array([0, 2.1, 4.2])))
    drawn = Image.fromarray(painted.astype(np.uint8))
    for mask, text in zip(masks, texts, strict=True):
        for y, x in np.argwhere(mask)[:1].tolist():
            ImageDraw.Draw(drawn).text((x, y), text, fill="white", stroke_width=1, stroke_fill="black")
    return drawn


def main():
    """Reads the command line; writes the overlay and the instances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--score_threshold", type=float, default=0.3)
    parser.add_argument("--runtime", default="", choices=["", "openvino"])
    arguments = parser.parse_args()
    model, run = load_model(Path(__file__).resolve().parent, runtime=arguments.runtime)
    image = np.asarray(ImageOps.exif_transpose(Image.open(arguments.image)).convert("RGB"))
    scores, categories, masks = detect(model, run, image, arguments.score_threshold)
    texts = [f"{model['labels'][c]['name']} {score:.2f}" for c, score in zip(categories, scores, strict=True)]
    overlay(image, masks, texts).save(f"{arguments.image.stem}_overlay.png")
    np.savez_compressed(f"{arguments.image.stem}_instances.npz", scores=scores, categories=categories, masks=masks)
    print("\n".join([*texts, f"{len(texts)} instances; see {arguments.image.stem}_overlay.png"]))


if __name__ == "__main__":
    main()
