"""The time of each part of a detection on this machine, measured on a few images of the validation shards."""

import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.data.geometry import letterbox
from solo_dist.inference.coco_results import encode_masks
from solo_dist.inference.detector import Detector
from solo_dist.masks.paste import paste_masks


class Speed(NamedTuple):
    """Medians in milliseconds an image, one image at a time."""

    decode: float
    """From JPEG bytes to the canvas."""
    network: float
    postprocess: float
    """From the network's outputs to instances: candidates, masks, Matrix NMS."""
    paste: float
    """Masks at the original size, and their encoding."""
    images: int
    device: str
    peak_gb: float
    """Largest memory of this process so far, of all that it did."""


def measure(detector: Detector, images: Sequence[np.ndarray]) -> Speed:
    """Measures detection on images, uint8 [h,w,3]. The first run of each part, which compiles it, is not counted."""
    canvas = detector.config.data.canvas
    network = tf.function(lambda canvases: detector.model(canvases, training=False))
    times: dict[str, list[float]] = {"decode": [], "network": [], "whole": [], "paste": []}
    for round_number, image in enumerate([images[0], *images]):
        encoded = tf.io.encode_jpeg(image)
        spent: dict[str, float] = {}
        with _timed(spent, "decode"):
            fitted, size = letterbox(tf.io.decode_jpeg(encoded, channels=3), canvas)
        with _timed(spent, "network"):
            # Copies to NumPy wait until a GPU is done.
            _ = [tensor.numpy() for tensor in tf.nest.flatten(network(fitted[None]))]
        with _timed(spent, "whole"):
            found = {name: tensor.numpy() for name, tensor in detector.detect(fitted[None]).items()}
        with _timed(spent, "paste"):
            _paste(detector, found, size.numpy(), image.shape[:2])
        if round_number:
            for name, seconds in spent.items():
                times[name].append(1000 * seconds)
    median = {name: statistics.median(values) for name, values in times.items()}
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    gpus = tf.config.list_physical_devices("GPU")
    device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"
    return Speed(
        decode=median["decode"],
        network=median["network"],
        postprocess=max(0.0, median["whole"] - median["network"]),
        paste=median["paste"],
        images=len(images),
        device=device,
        peak_gb=peak / 1e9,
    )


def _paste(detector: Detector, found: dict[str, np.ndarray], size: np.ndarray, original: tuple[int, ...]) -> None:
    probabilities = found["mask_probabilities"][0, : found["count"][0]]
    threshold = detector.config.postprocess.mask_threshold
    encode_masks(paste_masks(probabilities, (int(size[0]), int(size[1])), (original[0], original[1]), threshold))


@contextlib.contextmanager
def _timed(spent: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    spent[name] = time.perf_counter() - begin
