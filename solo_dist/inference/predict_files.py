"""From files of images and videos to overlays and COCO results: what `solo-dist predict` does."""

import dataclasses
import itertools
import json
import posixpath
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tqdm

from solo_dist.data.image_io import read_image
from solo_dist.data.pixel_range import FULL_RANGE
from solo_dist.data.tiling import Tiling
from solo_dist.errors import ConfigError, Unusable
from solo_dist.inference import videos
from solo_dist.inference.coco_metrics import BEST_THRESHOLD, AnnotationsError, load_annotations
from solo_dist.inference.detector import Detector, Found
from solo_dist.inference.image_results import coco_results, draw, index_png, jpeg, without_empty_masks
from solo_dist.inference.overlap import overlapped
from solo_dist.inference.tiles import tile_by_tile
from solo_dist.run.directory import EVALUATION_METRICS_FILE, RESULTS_FILE, RunDirectory
from solo_dist.storage import file_io

_BATCH_PIXELS = 1 << 21


@dataclasses.dataclass
class Summary:
    """Counts of a prediction."""

    images: int = 0
    """Images, and frames of videos, that were read."""
    instances: int = 0
    """Instances found in them."""
    unreadable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Path and reason of each file that could not be read."""


def find_images(pattern: str) -> list[str]:
    """Paths of a file, of the images and videos in a folder, or of what matches a pattern, sorted.

    Raises ConfigError if there are none.
    """
    folder = pattern.rstrip("/")
    if file_io.is_folder(folder):
        suffixes = (*file_io.IMAGE_SUFFIXES, *videos.SUFFIXES)
        paths = [f"{folder}/{name}" for name in file_io.names(folder) if name.lower().endswith(suffixes)]
        if not paths:
            raise ConfigError(
                f"--images={pattern} is a folder without an image; give a pattern such as '{folder}/*/*'."
            )
        return paths
    paths = [path for path in file_io.matches(pattern) if not file_io.is_folder(path)]
    if not paths:
        raise ConfigError(f"No file matches --images={pattern}; put the pattern in quotes, for example 'photos/*.jpg'.")
    return paths


def listed_images(annotations: str, folder: str) -> list[str]:
    """Paths of the images that a COCO json lists, whose names are relative to a folder, sorted.

    Raises:
      AnnotationsError: the json cannot be read, or is not COCO instances.
    """
    names: set[str] = set()
    for place, image in enumerate(load_annotations(annotations)["images"], start=1):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name:
            raise AnnotationsError(f"{annotations}: image number {place} has no file_name.")
        names.add(name)
    return [f"{folder.rstrip('/')}/{name}" for name in sorted(names)]


@dataclasses.dataclass(frozen=True)
class Options:
    """How images are predicted, and what is written."""

    score_threshold: float = 0.3
    """Least score of what is drawn and written."""
    batch: int = 1
    """Images that the network gets at once."""
    shard: tuple[int, int] = (1, 1)
    """i, n: every n-th file, beginning with the i-th; ids and names are those that they have among all."""
    index_pngs: bool = False
    """Write the instances of each image as a PNG too, see `image_results.index_png`."""
    tiling: Tiling | None = None
    """Look at images, not at videos, tile by tile."""


class _Job(NamedTuple):
    """A file to predict."""

    number: int
    path: str
    name: str
    """Name of the files to write, without a suffix."""


def predict_files(detector: Detector, paths: Sequence[str], output: str, options: Options) -> Summary:
    """Writes an overlay for each image and all their results as one json, and both for each video.

    Args:
      detector: the model.
      paths: files of images and videos, paths or URLs.
      output: folder, made if it is missing.
      options: how.

    Raises:
      ConfigError: the output is the folder of an image, or a package for videos is missing.
      StoreError: a store cannot be read or written.
    """
    folder = posixpath.realpath(output)
    if beside := [path for path in paths if posixpath.realpath(posixpath.dirname(path)) == folder]:
        raise ConfigError(f"--output={output} has images in it, such as {beside[0]}; choose another folder.")
    index, count = options.shard
    jobs = [_Job(*job) for job in zip(itertools.count(1), paths, output_names(paths))][index - 1 :: count]
    clips = {job for job in jobs if videos.is_video(job.path)}
    if clips:
        videos.check_installed()
    summary = Summary()
    _predict_images(detector, [job for job in jobs if job not in clips], output, options, summary)
    for job in sorted(clips):
        _predict_video(detector, job, output, options, summary)
    return summary


def _predict_images(detector: Detector, jobs: Sequence[_Job], output: str, options: Options, summary: Summary) -> None:
    def read(job: _Job) -> np.ndarray:
        return read_image(job.path, detector.pixel_range or FULL_RANGE, limited=not options.tiling)

    def finish(job: _Job, image: np.ndarray, found: Found) -> list[dict[str, Any]]:
        found = without_empty_masks(found)
        file_io.write(f"{output}/{job.name}.jpg", jpeg(draw(image, found, detector.categories)))
        if options.index_pngs:
            file_io.write(f"{output}/{job.name}.png", index_png(found, (image.shape[0], image.shape[1])))
        return coco_results(found, job.number, job.path, detector.categories)

    results: list[dict[str, Any]] = []
    if options.tiling:
        outcomes = tile_by_tile(detector, jobs, read, finish, options.tiling, options.score_threshold)
    else:
        outcomes = overlapped(detector, jobs, read, finish, options.batch, options.score_threshold)
    for job, outcome in zip(tqdm.tqdm(jobs, desc="predicting", unit=" images"), outcomes, strict=True):
        if isinstance(outcome, Unusable):
            summary.unreadable.append((job.path, str(outcome)))
            continue
        results += outcome
        summary.images += 1
    summary.instances += len(results)
    file_io.write(f"{output}/{results_name(options.shard)}", json.dumps(results).encode())


def _predict_video(detector: Detector, job: _Job, output: str, options: Options, summary: Summary) -> None:
    try:
        frames, instances = videos.predict_video(
            detector, job.path, output, job.name, options.score_threshold, options.batch
        )
    except Unusable as error:
        summary.unreadable.append((job.path, str(error)))
        return
    summary.images += frames
    summary.instances += instances


def default_batch(canvas: tuple[int, int]) -> int:
    """Images that the network gets at once: 8, or fewer if their canvases have more than _BATCH_PIXELS together."""
    return max(1, min(8, _BATCH_PIXELS // (canvas[0] * canvas[1])))


def parse_shard(text: str) -> tuple[int, int]:
    """i, n of the flag --shard=i/n. Raises ConfigError."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ConfigError(f"--shard={text} must be i/n with i from 1 to n, for example 1/4 to 4/4.")
    return int(index), int(count)


def results_name(shard: tuple[int, int]) -> str:
    """File name of the results of a shard."""
    stem, suffix = posixpath.splitext(RESULTS_FILE)
    return RESULTS_FILE if shard == (1, 1) else f"{stem}_{shard[0]}_of_{shard[1]}{suffix}"


def best_threshold(workdir: str, step: int) -> float:
    """The score threshold with the best F1 that the report of an evaluation at a step found. Raises ConfigError."""
    path = f"{RunDirectory(workdir).evaluation(step)}/{EVALUATION_METRICS_FILE}"
    try:
        return float(json.loads(file_io.read(path))[BEST_THRESHOLD])
    except (tf.errors.NotFoundError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"--score_threshold=best: {path} has no {BEST_THRESHOLD}; run solo-dist evaluate --report with the same "
            "--workdir and --checkpoint first, or give a number."
        ) from None


def output_names(paths: Sequence[str]) -> list[str]:
    """A file name without a suffix for each path; paths of the same name in different folders get a number."""
    taken: set[str] = set()
    names = []
    for path in paths:
        stem = posixpath.splitext(posixpath.basename(path))[0]
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name)
        names.append(name)
    return names
