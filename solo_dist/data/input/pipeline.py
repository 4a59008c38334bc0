"""From shards to batches: order, reading, augmentation, targets, padding. docs/numerics.md defines a batch.

Everything about an element is a function of its position: the number of images of the run before it. Position p is
image p % n of epoch p // n in an order drawn from (seed, epoch), and all its random numbers are drawn from (seed, p).
So a run continues at any position at once, workers read disjoint parts without communication, and the batches do not
depend on the degree of parallelism. No image is left out: a batch may contain the end of one epoch and the start of the
next. The images that share a canvas with the one at p are drawn from (seed, p) too. With data.repeat_threshold an epoch
has some images more than once (repeats.py); with data.mix each data set has epochs of its own (mixture.py).
Legend of shapes: `solo_dist.config`.
"""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data.input.cache import open_shards
from solo_dist.data.input.composed import composed_element
from solo_dist.data.input.element import record_to_element, reduction
from solo_dist.data.input.fixed_size import Element, padding_element
from solo_dist.data.input.mixture import Mixture, PartSampler
from solo_dist.data.input.reader import Readings, RecordReader, no_readings
from solo_dist.data.input.sampler import Sampler
from solo_dist.data.input.service import through_service
from solo_dist.data.schema import Manifest, Record, load_manifest, parse_record
from solo_dist.errors import ConfigError
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
      positive_instance int32 [B, K], masks uint8 [B, M, h, w / 8] (first pixel in the highest bit) or, with
      loss.mask_target=coverage, [B, M, h, w] (sixteenths), and masks_8 and so on if the member of the family needs
      masks of other strides; unknown_categories uint8 [B, C / 8] of bits if loss.federated is on; for bookkeeping
      image_id int64 [B], original_size int32 [B, 2], position int64 [B], dropped_positives int32 [B] (positives
      beyond K and M) and bad_records int32 [B] (broken records that were passed over for this one).
    Raises:
      ConfigError, ShardError: the recipe and the shards do not fit. Broken records raise
        tf.errors.InvalidArgumentError while reading; `reader.readable_errors` makes a ShardError of it.
    """
    training = split == "train"
    manifests = load_training_sets(config) if training else [load_split(config, split)]
    manifest = manifests[0]
    batch_size = batch_size or _worker_batch(config, num_workers)
    served = training and bool(config.data.service)
    readers = [_open_reader(config, one, training, served) for one in manifests]
    waiting = _WAITING_ELEMENTS if any(urls.is_remote(one.folder) for one in manifests) else 0
    parallelism = parallelism or waiting or tf.data.AUTOTUNE
    options = input_options(threads=waiting)
    global_batch = batch_size * num_workers
    first = start_position + worker * batch_size
    # The functions use tf.cond and tf.while_loop, so AutoGraph would only slow down the tracing.
    make = tf.autograph.experimental.do_not_convert(_position_to_element(config, manifests, readers, training))

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
        batches = readers[0].limit_bad_records(batches)
    return batches.prefetch(2).with_options(options)


def _open_reader(config: Config, manifest: Manifest, training: bool, served: bool) -> RecordReader:
    if served and urls.is_remote(manifest.folder) and not manifest.folder.startswith("gs://"):
        raise ConfigError(
            f"The workers of data.service cannot read {manifest.folder}; give gs:// or a folder they see."
        )
    # Paths are found by Python code of this process, which the workers of a service do not have.
    shards = None if served else open_shards(manifest, config.data)
    return RecordReader(manifest, config.data.max_bad_records, reduction(config, manifest, training), shards)


def load_training_sets(config: Config) -> list[Manifest]:
    """The manifests of data.train and data.mix, checked against the recipe and each other.

    Raises:
      ConfigError, ShardError: one of them cannot be used with this recipe.
    """
    manifests = [load_split(config, "train")]
    for number, folder in enumerate(config.data.mix):
        manifest = load_manifest(folder)
        check_manifest(manifest, config, option=f"data.mix[{number}]")
        if [one["name"] for one in manifest.categories] != [one["name"] for one in manifests[0].categories]:
            raise ConfigError(
                f"data.mix: {folder} has other categories than {config.data.train}, or another order of them; merge "
                "the annotations first (solo-dist import --format=coco --categories=...), then shard each part."
            )
        manifests.append(manifest)
    if config.loss.federated and not any(manifest.is_federated for manifest in manifests):
        raise ConfigError(
            f"loss.federated needs images that say which categories are in them and which are not, as in LVIS, and no "
            f"category of {config.data.train} is unknown in an image; set it to False, or shard a json with "
            "neg_category_ids again."
        )
    return manifests


def load_split(config: Config, split: str) -> Manifest:
    """The manifest of data.train or data.validation, checked against the recipe.

    Raises:
      ConfigError, ShardError: it cannot be used with this recipe.
    """
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


def check_manifest(manifest: Manifest, config: Config, option: str) -> None:
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


def _position_to_element(
    config: Config, manifests: Sequence[Manifest], readers: Sequence[RecordReader], training: bool
) -> Callable[[tf.Tensor], Element]:
    """A function of a position, which returns its element of a batch."""
    samplers = [Sampler(config, manifest, training) for manifest in manifests]
    if len(manifests) == 1:
        make = _make_of_set(config, manifests[0], readers[0], samplers[0], training)
    else:
        make = _make_of_mixture(config, manifests, readers, samplers)
    limited = config.data.max_bad_records > 0

    def element(position: tf.Tensor) -> Element:
        values, read = make(position)
        values |= {"position": position, "bad_records": tf.reduce_sum(read.broken)}
        return values | read._asdict() if limited else values

    def padding(position: tf.Tensor) -> Element:
        values = padding_element(config) | {"position": position}
        return values | no_readings(1)._asdict() if limited else values

    if training:
        return element
    return lambda position: tf.cond(
        position < manifests[0].num_images, lambda: element(position), lambda: padding(position)
    )


def _make_of_mixture(
    config: Config, manifests: Sequence[Manifest], readers: Sequence[RecordReader], samplers: Sequence[Sampler]
) -> Callable[[tf.Tensor], tuple[Element, Readings]]:
    mixture = Mixture(config, [sampler.epoch_length for sampler in samplers])
    parts = [PartSampler(mixture, number, sampler) for number, sampler in enumerate(samplers)]
    makes = [_make_of_set(config, *of_set, training=True) for of_set in zip(manifests, readers, parts, strict=True)]

    def element(position: tf.Tensor) -> tuple[Element, Readings]:
        branches = [functools.partial(make, position) for make in makes]
        return tf.switch_case(mixture.set_of(position), branches)

    return element


def _make_of_set(
    config: Config, manifest: Manifest, reader: RecordReader, sampler: Sampler | PartSampler, training: bool
) -> Callable[[tf.Tensor], tuple[Element, Readings]]:
    if training and config.data.augment.composes:
        return composed_element(config, manifest, reader, sampler)
    return _element_of_one_image(record_to_element(config, manifest, training), reader, sampler)


def _element_of_one_image(
    build: Callable[[Record, tf.Tensor, tf.Tensor], Element], reader: RecordReader, sampler: Sampler | PartSampler
) -> Callable[[tf.Tensor], tuple[Element, Readings]]:
    def element(position: tf.Tensor) -> tuple[Element, Readings]:
        number = sampler.record(position)
        stored, broken = reader.read(number)
        values = build(parse_record(stored.serialized), stored.image, position)
        return values, Readings(number[None], broken[None])

    return element
