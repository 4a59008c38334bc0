"""Making shards in worker processes.

The note of a shard is written after the shard. A shard without a valid note is made again.
"""

import concurrent.futures
import concurrent.futures.process
import dataclasses
import gzip
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from solo_dist.data.schema import ShardError, ShardFile, crc32c
from solo_dist.data.sharding.annotation import Annotation
from solo_dist.data.sharding.classes import Classes
from solo_dist.data.sharding.counts import Counts
from solo_dist.data.sharding.notes import ShardNote, ShardTask, read_part
from solo_dist.data.sharding.plan import load_plan
from solo_dist.data.sharding.records import RecordMaker, ShardSettings
from solo_dist.data.sharding.rejection import TOO_SMALL_PIECE
from solo_dist.storage import file_io, urls
from solo_dist.storage.atomic import frame_record
from solo_dist.storage.file_io import write_through


def make_shards(
    tasks: list[ShardTask],
    settings: ShardSettings,
    classes: Classes,
    processes: int,
    count_images: Callable[[int], Any],
) -> Iterator[tuple[int, ShardNote]]:
    """Makes shards in any order; yields (index of the task, note).

    Args:
      tasks: what to make.
      settings: how.
      classes: of the data set.
      processes: worker processes; 0: in this process, as is a single task.
      count_images: called repeatedly with the number of images finished since the call before.
    """
    if processes == 0 or len(tasks) == 1:  # starting a process would take longer than most single shards
        maker = _Maker(settings, classes)
        for number, task in enumerate(tasks):
            yield number, maker.make_shard(task, lambda: count_images(1))
    else:
        yield from _make_in_processes(tasks, settings, classes, processes, count_images)


def _make_in_processes(
    tasks: list[ShardTask],
    settings: ShardSettings,
    classes: Classes,
    processes: int,
    count_images: Callable[[int], Any],
) -> Iterator[tuple[int, ShardNote]]:
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs TensorFlow's threads can hang
    counter, seen = context.Value("q", 0), 0
    pool = concurrent.futures.ProcessPoolExecutor(
        min(processes, max(len(tasks), 1)), context, _start_worker, (settings, classes, counter)
    )
    try:
        numbers = {pool.submit(_run_task, task): number for number, task in enumerate(tasks)}
        waiting = set(numbers)
        while waiting:
            finished, waiting = concurrent.futures.wait(waiting, 0.2, concurrent.futures.FIRST_COMPLETED)
            total = counter.get_obj().value  # without its lock: a killed worker may still hold it
            count_images(total - seen)
            seen = total
            for future in finished:
                yield numbers[future], future.result()
        count_images(counter.get_obj().value - seen)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ShardError(
            "A worker process died, most often for lack of memory; run the same command with fewer --processes, "
            "finished shards are kept."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple["_Maker", Any] | None = None
"""In a worker process: what makes shards, and the counter of images that all workers share."""


def _start_worker(settings: ShardSettings, classes: Classes, counter: Any) -> None:
    global _worker
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    # The processes are the parallelism; more threads of TensorFlow would only compete with them for the cores.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")
    _worker = _Maker(settings, classes), counter


def _exit_with_parent() -> None:
    """Ends this worker if its parent is killed; otherwise it would wait for work endlessly."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _run_task(task: ShardTask) -> ShardNote:
    assert _worker is not None
    maker, counter = _worker
    urls.prepare([*task.images, task.output])

    def count() -> None:
        with counter.get_lock():
            counter.value += 1

    return maker.make_shard(task, count)


class _Maker:
    """Makes shards of one data set, one after the other."""

    def __init__(self, settings: ShardSettings, classes: Classes):
        self._ids = classes.ids
        self._records = RecordMaker(settings, classes)

    def make_shard(self, task: ShardTask, count: Callable[[], Any]) -> ShardNote:
        """Writes a shard, its annotations for evaluation and, last, its note."""
        images, raw_of = read_part(task)
        nothing = ShardFile("", 0, 0, "")
        note = ShardNote(task.plan, nothing, [], [], [], nothing, [], [], Counts())
        annotations: list[str] = []

        def framed_records() -> Iterator[bytes]:
            offset = 0
            for index, image in enumerate(images, task.first):
                made = self._records.make(image, index, task.images, raw_of.get(image.id, []))
                note.add(made)
                annotations.extend(
                    self._for_evaluation(its, part.id) for part, all_its in made.parts for its in all_its
                )
                for record in made.records:
                    framed = frame_record(record)
                    note.offsets.append(offset)
                    offset += len(framed)
                    yield framed
                count()

        size, crc = write_through(f"{task.output}/{task.name}", framed_records(), task.scratch)
        data = gzip.compress(",".join(annotations).encode(), mtime=0)
        file_io.write(task.annotations, data)
        note = dataclasses.replace(
            note,
            file=ShardFile(task.name, len(note.offsets), size, crc),
            annotations=ShardFile(task.annotations.rsplit("/", 1)[-1], 0, len(data), crc32c(data)),
        )
        _check_plan(task)
        file_io.write(task.note, json.dumps(dataclasses.asdict(note)).encode())
        return note

    def _for_evaluation(self, annotation: Annotation, image_id: int) -> str:
        return json.dumps(
            {
                "id": annotation.id,
                "image_id": image_id,
                "category_id": self._ids[annotation.category],
                "bbox": annotation.bbox,
                "area": annotation.area,
                "iscrowd": int(annotation.untrainable in ("crowd", TOO_SMALL_PIECE)),
                "segmentation": {"size": annotation.rle["size"], "counts": annotation.rle["counts"].decode()},
            }
        )


def _check_plan(task: ShardTask) -> None:
    plan = load_plan(task.output)
    if plan is None or plan.id != task.plan:
        raise ShardError(
            f"The plan of {task.output} was {'replaced' if plan else 'removed'} while this task was at work; start the "
            "tasks of the plan that is there now."
        )
