"""From shards to batches: order, reading, augmentation, targets, padding. docs/numerics.md defines a batch.

Everything about an element is a function of its position: the number of images of the run before it. Position p is
image p % n of epoch p // n in an order drawn from (seed, epoch), and all its random numbers are drawn from (seed, p).
So a run continues at any position at once, workers read disjoint parts without communication, and the batches do not
depend on the degree of parallelism. No image is left out: a batch may contain the end of one epoch and the start of the
next.
Legend of shapes: `solo_dist.config`.
"""

from collections.abc import Callable

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data import augmentation, geometry
from solo_dist.data.input.cache import open_shards
from solo_dist.data.input.fixed_size import Element, fixed_size_targets, padding_element
from solo_dist.data.input.reader import RecordReader
from solo_dist.data.input.service import through_service
from solo_dist.data.schema import Manifest, Record, load_manifest, parse_record, precomputed_targets
from solo_dist.errors import ConfigError
from solo_dist.solo import targets
from solo_dist.solo.family import find_member
from solo_dist.solo.targets import STORED_TARGETS
from solo_dist.storage import urls

_WAITING_ELEMENTS = 32
"""Elements prepared at a time if shards are in an object store, each on a thread, as they mostly wait for the store."""


def build_dataset(
    config: Config,
    split: str,
    *,
    start_position: int = 0,
    worker: int = 0,
    num_workers: int = 1,
    batch_size: int | None = None,
    parallelism: int = 0,
) -> tf.data.Dataset:
    """Batches of one worker.

    "train" never ends. Let G = batch_size * num_workers. Global batch s holds the G positions from
    start_position + s * G on, and worker w gets the w-th batch_size of them. "validation" visits each image once, in
    order, without augmentation; the last batches are padded with image_id NO_IMAGE, so that all workers have equally
    many.

    Args:
      config: the recipe; its data folder of the split must be sharded for its canvas and grids.
      split: "train" or "validation".
      start_position: images of the run before the first batch.
      worker: index of this worker.
      num_workers: number of workers.
      batch_size: B, images of a batch of this worker; by default the worker batch, train.global_batch / num_workers.
      parallelism: elements prepared at a time; 0: chosen by tf.data, or 32 if shards are in an object store. Batches
        do not depend on it.
    Returns:
      Batches: image uint8 [B, H, W, 3], image_size int32 [B, 2], category_grid int32 [B, N], positive_cell and
      positive_instance int32 [B, K], masks uint8 [B, M, h, w / 8] (first pixel in the highest bit), and masks_8 and so
      on if the member of the family needs masks of other strides; for bookkeeping
      image_id int64 [B], original_size int32 [B, 2], position int64 [B], dropped_positives int32 [B] (positives
      beyond K and M) and bad_records int32 [B] (broken records that were passed over for this one).
    Raises:
      ConfigError, ShardError: the recipe and the shards do not fit. Broken records raise
        tf.errors.InvalidArgumentError while reading; `reader.readable_errors` makes a ShardError of it.
    """
    manifest = load_split(config, split)
    batch_size = batch_size or _worker_batch(config, num_workers)
    training = split == "train"
    served = training and bool(config.data.service)
    if served and urls.is_remote(manifest.folder) and not manifest.folder.startswith("gs://"):
        raise ConfigError(
            f"The workers of data.service cannot read {manifest.folder}; give gs:// or a folder they see."
        )
    # Paths are found by Python code of this process, which the workers of a service do not have.
    shards = None if served else open_shards(manifest, config.data)
    reader = RecordReader(manifest, config.data.max_bad_records, reduction(config, manifest, training), shards)
    waiting = _WAITING_ELEMENTS if urls.is_remote(manifest.folder) else 0
    parallelism = parallelism or waiting or tf.data.AUTOTUNE
    options = input_options(threads=waiting)
    global_batch = batch_size * num_workers
    first = start_position + worker * batch_size
    # The functions use tf.cond and tf.while_loop, so AutoGraph would only slow down the tracing.
    make = tf.autograph.experimental.do_not_convert(_position_to_element(config, manifest, reader, training))

    def make_batches(numbers: tf.data.Dataset) -> tf.data.Dataset:
        positions = numbers.flat_map(
            lambda number: tf.data.Dataset.range(
                first + number * global_batch, first + number * global_batch + batch_size
            )
        )
        batches = positions.map(make, num_parallel_calls=parallelism).batch(batch_size, drop_remainder=True)
        return batches.with_options(options)

    if served:
        batches = through_service(
            config.data.service, make_batches, lambda batch: (int(batch["position"][0]) - first) // global_batch
        )
    elif training:
        batches = make_batches(tf.data.Dataset.counter())
    else:
        batches = make_batches(tf.data.Dataset.range(-(-(manifest.num_images - start_position) // global_batch)))
    if config.data.max_bad_records:
        batches = reader.limit_bad_records(batches)
    return batches.prefetch(2).with_options(options)


def load_split(config: Config, split: str) -> Manifest:
    """The manifest of data.train or data.validation, checked against the recipe."""
    folder = {"train": config.data.train, "validation": config.data.validation}[split]
    if not folder:
        raise ConfigError(f"data.{split} is empty; set it to a folder that `solo-dist shard` made.")
    manifest = load_manifest(folder)
    if split == "validation" and manifest.augmented_copies > 1:
        raise ConfigError(
            f"{folder} holds augmented copies, which cannot be evaluated; shard it again without --augmented_copies."
        )
    if not manifest.num_instances:
        raise ConfigError(
            f"data.{split}: {folder} has no instance, so nothing can be learnt from it; shard the data again."
        )
    check_manifest(manifest, config, option=f"data.{split}")
    return manifest


def check_manifest(manifest: Manifest, config: Config, option: str = "data.train") -> None:
    """Raises ConfigError if the shards do not fit the recipe's canvas, grids or number of categories.

    Shards that keep whole images fit any canvas and grids: targets are then computed while reading.
    """
    canvas, grid = (config.data.canvas, config.model.grid)
    if manifest.keep_original:
        canvas, grid = manifest.canvas, manifest.grid
    manifest.check_fits(canvas, grid, config.model.num_categories, option)


def _worker_batch(config: Config, num_workers: int) -> int:
    """Images of one worker in one optimizer step."""
    global_batch = config.train.global_batch
    if global_batch % num_workers:
        raise ConfigError(f"train.global_batch={global_batch} must be a multiple of the {num_workers} workers.")
    return global_batch // num_workers


def input_options(threads: int = 0) -> tf.data.Options:
    """How tf.data runs the pipeline, by default on a thread a core; the benchmark's floors run the same way."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # Elements are prepared in parallel; threads inside single operations would only add switching between them.
    options.threading.max_intra_op_parallelism = 1
    if threads:
        options.threading.private_threadpool_size = threads
    return options


class Sampler:
    """Maps positions to numbers of records."""

    def __init__(self, config: Config, manifest: Manifest, training: bool):
        self._images, self._copies, self._seed = manifest.num_images, manifest.augmented_copies, config.seed
        self._shuffle = training and config.data.shuffle

    def record(self, position: tf.Tensor) -> tf.Tensor:
        """From position to record, int64 scalars. Each epoch has every image once, and uses the next of its copies."""
        epoch, index = position // self._images, position % self._images
        if self._shuffle:
            seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
            index = tf.random.experimental.index_shuffle(index, seed, self._images - 1)
        return index * self._copies + epoch % self._copies


def _position_to_element(
    config: Config, manifest: Manifest, reader: RecordReader, training: bool
) -> Callable[[tf.Tensor], Element]:
    """A function of a position, which returns its element of a batch."""
    sampler = Sampler(config, manifest, training)
    build = record_to_element(config, manifest, training)

    def element(position: tf.Tensor) -> Element:
        number = sampler.record(position)
        stored, bad_records = reader.read(number)
        values = build(parse_record(stored.serialized), stored.image, position)
        values |= {"position": position, "bad_records": bad_records}
        return values | {"record": number} if config.data.max_bad_records else values

    def padding(position: tf.Tensor) -> Element:
        values = padding_element(config) | {"position": position}
        return values | {"record": position} if config.data.max_bad_records else values

    if training:
        return element
    return lambda position: tf.cond(
        position < manifest.num_images, lambda: element(position), lambda: padding(position)
    )


def reduction(config: Config, manifest: Manifest, training: bool) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """The factor by which whole images are shrunk while they are decoded, to save time in training; None: 1.

    Evaluation does not use it, so that it sees the same pixels as prediction.
    """
    if not (training and manifest.keep_original):
        return None
    return lambda size: geometry.reduction(size, config.data.canvas, config.data.augment.scale[1])


def record_to_element(
    config: Config, manifest: Manifest, training: bool, always_make_targets: bool = False
) -> Callable[[Record, tf.Tensor, tf.Tensor], Element]:
    """A function of a record, its decoded image and the position, which returns an element of a batch.

    If the image keeps the geometry of the record, apart from a flip, the stored targets are used. Otherwise, or if
    `always_make_targets` is True, targets are computed here with `make_targets`, as in the shard tool.
    """
    canvas, grid, augment = config.data.canvas, config.model.grid, config.data.augment
    spec = find_member(config.model).target_spec(grid)
    fits = manifest.canvas == canvas and manifest.grid == grid
    # Augmented copies are random crops and scales already: they are taken as they are.
    draw = training and augment.changes_geometry and manifest.augmented_copies == 1
    turn = training and augment.turn
    make_targets = always_make_targets or not fits or draw or turn or spec != STORED_TARGETS
    reduce = reduction(config, manifest, training)

    def build(record: Record, image: tf.Tensor, position: tf.Tensor) -> Element:
        draws = augmentation.draw(config.seed, position)
        turns = augmentation.draw_turns(draws)
        if draw:
            placement = augmentation.draw_placement(draws, record.size, canvas, augment)
        else:
            flip = augmentation.draw_flip(draws, augment) if training else tf.constant(False)
            placement = geometry.stored_image(record.size, canvas, manifest.keep_original, flip)
        size = placement.size
        if make_targets:
            runs, boxes = geometry.move_instances(record.runs, record.boxes, record.size, placement)
            if turn:
                runs, boxes, size = geometry.turn_instances(runs, boxes, size, turns)
            made = targets.make_targets(runs, boxes, record.categories, canvas, grid, spec)
        else:
            made = precomputed_targets(record, placement.flip, canvas, grid.num_cells)
        if draw or manifest.keep_original:
            image = geometry.move_image(image, placement, reduce(record.size) if reduce else 1)
        else:
            image = geometry.flip_image(image, placement.flip)
        if turn:
            image = geometry.turn_image(image, turns)
        if training and augmentation.changes_colour(augment):
            image = augmentation.change_colours(image, draws, augment)
        return {
            "image": geometry.pad_to_canvas(geometry.to_uint8(image), canvas),
            "image_size": size,
            "image_id": record.image_id,
            "original_size": record.original_size,
            **fixed_size_targets(made, config, position),
        }

    return build
