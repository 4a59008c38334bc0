"""metrics.jsonl and TensorBoard, written so that a resumed run has no gap and no repeated step.

    writer = MetricWriter(RunDirectory(workdir), after_step=restored_step)
    writer.scalars(100, "train", {"loss/total": 1.2})

If a run resumes, everything after the restored step is cut off first: those steps are going to happen again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.util import event_pb2

from solo_dist.run.directory import STEP_METRICS_FILE, RunDirectory
from solo_dist.run.upload import Uploader
from solo_dist.storage import file_io, store_errors

_TENSORBOARD_FOLDERS = {"train": "train", "validation": "eval"}
_LONGEST_EVENT_FILE = 1 << 20
"""Bytes after which a new event file is begun if they are uploaded, since an object is uploaded whole each time."""


class MetricWriter:
    """Writes scalars and images of one run; only the chief has one.

    The files grow in the local folder of the run directory. If the run is in a store they are uploaded from there, in
    the background, by `publish` and at the end; see upload.py.

    Args:
      directory: the run directory.
      after_step: the restored step; lines and events of later steps are removed. 0 for a fresh run.
      unpublished: the local folder holds lines and events that an earlier process could not upload; otherwise they
        are fetched from the store.
    """

    def __init__(self, directory: RunDirectory, after_step: int, unpublished: bool = False):
        self._folder = directory.local
        self._uploader: Uploader | None = None
        if directory.is_remote:
            boards = [_board(split) for split in _TENSORBOARD_FOLDERS]
            self._uploader = Uploader(directory.local, directory.path, STEP_METRICS_FILE, boards)
            if not unpublished:
                self._uploader.fetch()
        self._path = f"{self._folder}/{STEP_METRICS_FILE}"
        lines = _kept_lines(self._path, after_step)
        file_io.write(self._path, "".join(lines).encode())
        # An evaluation counts as done when its line is in metrics.jsonl, which comes after its events.
        validations = [line for line in lines if _split_of_line(line) == "validation"]
        evaluated = int(max(map(_step_of_line, validations), default=0))
        self._boards = {}
        for split in _TENSORBOARD_FOLDERS:
            folder = f"{self._folder}/{_board(split)}"
            cut_events(folder, after_step if split == "train" else evaluated)
            self._boards[split] = tf.summary.create_file_writer(folder)
        if self._uploader:
            self._uploader.start()

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Adds one line to metrics.jsonl and one point to each curve.

        Args:
          split: 'train' or 'validation'.
        """
        with store_errors.clear_errors(self._folder):
            with self._boards[split].as_default(step=step):
                for tag, value in values.items():
                    tf.summary.scalar(tag, value)
            self._boards[split].flush()
            with tf.io.gfile.GFile(self._path, "a") as file:
                file.write(json.dumps({"step": step, "split": split, **values}) + "\n")

    def panels(self, step: int, split: str, panels: Sequence[np.ndarray]) -> None:
        """Adds images, uint8 [height, width, 3] each, to TensorBoard as panel/1, panel/2 and so on."""
        with store_errors.clear_errors(self._folder), self._boards[split].as_default(step=step):
            for number, panel in enumerate(panels, start=1):
                tf.summary.image(f"panel/{number}", panel[None])

    def flush(self) -> None:
        """Returns when everything written so far is in the files, on this machine."""
        for split, board in self._boards.items():
            with store_errors.clear_errors(self._folder):
                board.flush()
            if self._uploader and self._uploader.size_of_newest(_board(split)) > _LONGEST_EVENT_FILE:
                board.close()
                self._boards[split] = tf.summary.create_file_writer(f"{self._folder}/{_board(split)}")

    def publish(self) -> None:
        """Returns when what was flushed is in the run directory. Can be called from any thread. Raises StoreError."""
        if self._uploader:
            self._uploader.publish()

    def close(self) -> None:
        """Flushes, closes and publishes. Raises StoreError."""
        for board in self._boards.values():
            with store_errors.clear_errors(self._folder):
                board.close()
        if self._uploader:
            self._uploader.close()


def has_line(directory: RunDirectory, step: int, split: str) -> bool:
    """Whether metrics.jsonl of a run holds a line of this step and split."""
    lines = _lines(directory.step_metrics_file)
    return any(_step_of_line(line) == step and _split_of_line(line) == split for line in lines)


def _board(split: str) -> str:
    return f"tensorboard/{_TENSORBOARD_FOLDERS[split]}"


def _lines(path: str) -> list[str]:
    try:
        return file_io.read(path).decode().splitlines(keepends=True)
    except tf.errors.NotFoundError:
        return []


def _kept_lines(path: str, after_step: int) -> list[str]:
    return [line for line in _lines(path) if _step_of_line(line) <= after_step] if after_step else []


def _step_of_line(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that a killed process wrote in part


def _split_of_line(line: str) -> str:
    return json.loads(line)["split"] if _step_of_line(line) != float("inf") else ""


def cut_events(folder: str, after_step: int) -> None:
    """Rewrites the event files of a folder without the summaries of later steps; removes files left empty."""
    for path in tf.io.gfile.glob(f"{folder}/events.out.tfevents.*"):
        events = list(read_events(path))
        kept = [event for event in events if not event.HasField("summary") or event.step <= after_step]
        if not any(event.HasField("summary") for event in kept):
            tf.io.gfile.remove(path)
        elif len(kept) < len(events):
            _rewrite_events(path, kept)


def _rewrite_events(path: str, events: list[event_pb2.Event]) -> None:
    # Written beside the folder's event files under a name that TensorBoard does not read, then moved into place.
    temporary = path.replace("events.out.tfevents.", "rewriting.")
    with tf.io.TFRecordWriter(temporary) as file:
        for event in events:
            file.write(event.SerializeToString())
    tf.io.gfile.rename(temporary, path, overwrite=True)


def read_events(path: str) -> Iterator[event_pb2.Event]:
    """The events of one file up to its end, or to the point at which a killed process stopped writing."""
    iterator = iter(tf.data.TFRecordDataset(path))
    while True:
        try:
            record = next(iterator)
        except (StopIteration, tf.errors.DataLossError):
            return
        yield event_pb2.Event.FromString(record.numpy())
