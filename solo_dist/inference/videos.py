"""Videos: each frame is predicted, and an mp4 with overlays and a json of results are written.

ffmpeg does the decoding and encoding; it comes with the package imageio-ffmpeg. Frames are read one after another at
the constant rate that ffmpeg gives them, so memory does not depend on the length. Sound is left out.
"""

import contextlib
import importlib.util
import json
import posixpath
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tqdm

from solo_dist import stack
from solo_dist.data.image_io import open_image, read_bytes
from solo_dist.errors import ConfigError, Unusable
from solo_dist.inference.detector import Detector, Found
from solo_dist.inference.image_results import coco_results, draw, without_empty_masks
from solo_dist.inference.overlap import overlapped
from solo_dist.run.directory import RESULTS_FILE
from solo_dist.storage import file_io
from solo_dist.storage.atomic import replacing

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
_QUALITY = 7  # of 10
_UNKNOWN_RATE = 25.0


def is_video(path: str) -> bool:
    """Whether a file is taken for a video: by its suffix, and a GIF if it has several frames."""
    suffix = posixpath.splitext(path)[1].lower()
    if suffix != ".gif":
        return suffix in SUFFIXES
    try:
        return open_image(read_bytes(path)).frames > 1
    except Unusable:  # predicting the image will say why
        return False


def predict_video(
    detector: Detector, path: str, output: str, name: str, score_threshold: float, batch: int
) -> tuple[int, int]:
    """Writes NAME.mp4 and NAME_coco_instances_results.json, whose image_id is the number of the frame, from 1.

    Args:
      detector: the model.
      path: of the video, a path or URL.
      output: folder, made if it is missing.
      name: of what is written, without a suffix.
      score_threshold: least score of what is drawn and written.
      batch: frames that the network gets at once.

    Returns:
      Numbers of frames and instances.
    Raises:
      ConfigError: imageio-ffmpeg is missing.
      Unusable: the file does not decode as a video.
    """
    check_installed()
    results: list[dict[str, Any]] = []
    frames = 0

    def finish(frame: _Frame, pixels: np.ndarray, found: Found) -> tuple[np.ndarray, list[dict[str, Any]]]:
        found = without_empty_masks(found)
        drawn = np.asarray(draw(pixels, found, detector.categories))
        return drawn, coco_results(found, frame.number, path, detector.categories)

    with (
        file_io.local_copy(path) as local,
        _opened(local) as video,
        file_io.staged(output) as folder,
        _written(folder, name, video.rate) as write,
        contextlib.closing(
            overlapped(detector, video.frames, lambda frame: frame.pixels, finish, batch, score_threshold)
        ) as done,
    ):
        for outcome in tqdm.tqdm(done, desc=name, total=video.length, unit=" frames"):
            assert not isinstance(outcome, Unusable)  # frames are read already
            drawn, entries = outcome
            write(drawn)
            results += entries
            frames += 1
        if not frames:
            raise Unusable("video has no frames")
    file_io.write(f"{output}/{name}_{RESULTS_FILE}", json.dumps(results).encode())
    return frames, len(results)


def check_installed() -> None:
    """Raises ConfigError if the package with ffmpeg is missing."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ConfigError(f"videos need imageio-ffmpeg: pip install -c {stack.constraints()} '.[video]'")


class _Frame(NamedTuple):
    number: int
    pixels: np.ndarray
    """uint8 [H0,W0,3]."""


class _Video(NamedTuple):
    rate: float
    """Frames a second."""
    length: int | None
    """About how many frames it has, if that is known."""
    frames: Iterator[_Frame]


@contextlib.contextmanager
def _opened(path: str) -> Iterator[_Video]:
    """A video file of this machine. Raises Unusable, also while its frames are read."""
    import imageio_ffmpeg

    with contextlib.closing(imageio_ffmpeg.read_frames(path)) as source:
        with _decoding():
            about = next(source)
        width, height = about["size"]

        def frames() -> Iterator[_Frame]:
            with _decoding():
                for number, data in enumerate(source, start=1):
                    yield _Frame(number, np.frombuffer(data, np.uint8).reshape(height, width, 3))

        rate = about["fps"] or _UNKNOWN_RATE
        yield _Video(rate, round(about["duration"] * rate) or None, frames())


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise Unusable("video does not decode") from error


@contextlib.contextmanager
def _written(folder: str, name: str, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends a frame, uint8 [H,W,3], to folder/NAME.mp4, which appears when the last is written."""
    import imageio_ffmpeg

    tf.io.gfile.makedirs(folder)
    with replacing(f"{folder}/{name}.mp4") as partial, contextlib.ExitStack() as opened:
        sink = None

        def write(frame: np.ndarray) -> None:
            nonlocal sink
            # H.264 has half as many values of colour in each direction, so that sides have to be even.
            frame = np.pad(frame, [[0, frame.shape[0] % 2], [0, frame.shape[1] % 2], [0, 0]], "edge")
            if sink is None:
                size, format_option = (frame.shape[1], frame.shape[0]), ["-f", "mp4"]
                sink = opened.enter_context(
                    contextlib.closing(
                        imageio_ffmpeg.write_frames(
                            partial, size, fps=rate, quality=_QUALITY, macro_block_size=1, output_params=format_option
                        )
                    )
                )
                sink.send(None)
            sink.send(frame)

        yield write
