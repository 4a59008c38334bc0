"""metrics.jsonl and TensorBoard, written so that a resumed run has no gap and no repeated step.

    writer = MetricWriter(workdir, after_step=restored_step)
    writer.scalars(100, "train", {"loss/total": 1.2})

On a resume everything past the restored checkpoint is cut off first: those steps are going to happen again.
"""

import json
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.util import event_pb2

from solo_dist.checkpoint import write_atomically

_TENSORBOARD_FOLDERS = {"train": "train", "validation": "eval"}


class MetricWriter:
    """Writes scalars and pictures of one run; only the chief has one.

    Args:
      workdir: the run directory.
      after_step: the restored step; lines and events of later steps are removed. 0 for a fresh run.
    """

    def __init__(self, workdir: str, after_step: int):
        self._path = f"{workdir}/metrics.jsonl"
        self._lines = _kept_lines(self._path, after_step)
        # The file is written whole when it is opened and appended to afterwards; objects cannot be appended to.
        self._appendable = "://" not in workdir
        tf.io.gfile.makedirs(workdir)
        write_atomically(self._path, "".join(self._lines).encode())
        # An evaluation counts as done when its line is in metrics.jsonl, which comes after its events.
        validations = [line for line in self._lines if _split_of_line(line) == "validation"]
        evaluated = int(max(map(_step_of_line, validations), default=0))
        self._boards = {}
        for split, name in _TENSORBOARD_FOLDERS.items():
            folder = f"{workdir}/tensorboard/{name}"
            cut_events(folder, after_step if split == "train" else evaluated)
            self._boards[split] = tf.summary.create_file_writer(folder)

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Adds one line to metrics.jsonl and one point to each curve.

        Args:
          split: 'train' or 'validation'.
        """
        with self._boards[split].as_default(step=step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)
        self._boards[split].flush()
        line = json.dumps({"step": step, "split": split, **values}) + "\n"
        if self._appendable:
            with tf.io.gfile.GFile(self._path, "a") as file:
                file.write(line)
        else:
            self._lines.append(line)
            write_atomically(self._path, "".join(self._lines).encode())

    def picture(self, step: int, split: str, tag: str, picture: np.ndarray) -> None:
        """Adds one picture, uint8 [height, width, 3], to TensorBoard."""
        with self._boards[split].as_default(step=step):
            tf.summary.image(tag, picture[None])

    def flush(self) -> None:
        """Returns when everything written so far is in the files."""
        for board in self._boards.values():
            board.flush()

    def close(self) -> None:
        """Flushes and closes the event files."""
        for board in self._boards.values():
            board.close()


def has_line(workdir: str, step: int, split: str) -> bool:
    """Whether metrics.jsonl of a run holds a line of this step and split."""
    path = f"{workdir}/metrics.jsonl"
    if not tf.io.gfile.exists(path):
        return False
    with tf.io.gfile.GFile(path, "r") as file:
        return any(_step_of_line(line) == step and _split_of_line(line) == split for line in file)


def _kept_lines(path: str, after_step: int) -> list[str]:
    if not after_step or not tf.io.gfile.exists(path):
        return []
    with tf.io.gfile.GFile(path, "r") as file:
        lines = file.read().splitlines(keepends=True)
    return [line for line in lines if _step_of_line(line) <= after_step]


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
    """The events of one file up to its end or to the place where a killed process stopped writing."""
    iterator = iter(tf.data.TFRecordDataset(path))
    while True:
        try:
            record = next(iterator)
        except (StopIteration, tf.errors.DataLossError):
            return
        yield event_pb2.Event.FromString(record.numpy())
