"""The speed of the input pipeline, compared with two lower bounds: decoding the images, and decoding and resizing them.

All cases are tf.data pipelines over the same images on the same cores; they take turns in one process. If --data is a
folder of shards, for example in a bucket, the cases are reading it directly, through a cache, and from a local copy.
"""

import dataclasses
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from solo_dist.benchmarks.timing import Options, alternate, peak_kilobytes, ratio, report
from solo_dist.config import AugmentConfig, Config, DataConfig, ModelConfig
from solo_dist.data import geometry
from solo_dist.data.input import pipeline
from solo_dist.data.input.element import record_to_element
from solo_dist.data.input.reader import RecordReader
from solo_dist.data.input.sampler import Sampler
from solo_dist.data.schema import is_complete, load_manifest, parse_record
from solo_dist.data.sharding import shapes
from solo_dist.data.sharding.copy import copy_shards
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings

CANVAS = (512, 512)
BATCH = 8
IMAGES_A_TURN = 1024
AUGMENT = {
    "precomputed": AugmentConfig(flip=True, brightness=0.2),
    "recomputed": AugmentConfig(flip=True, scale=(0.8, 1.2), crop=0.2),
}
COMPOSED: dict[str, dict[str, Any]] = {"mosaic": {"mosaic": 1.0}, "paste": {"paste": 1.0}}
"""What is added to the second, so that each image is a mosaic, or has pasted instances."""


def run(options: Options) -> dict[str, float]:
    """Images/s of both paths, of both bounds and of composed images; memory, cost of restoring, time of each stage."""
    if options.data and is_complete(options.data.rstrip("/")):
        return _throughput_of_shards(options)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data.rstrip("/") or f"{folder}/shapes"
        if not options.data:
            shapes.make_shapes(data, "train", 64, shapes.ShapesSettings(side=640))
        recipes = _shard(data, f"{folder}/shards")
        results = _throughput(data, recipes, options.rounds)
        results |= _composed_vs_recomputed(recipes["recomputed"], options.rounds)
        results["memory_gigabytes"] = _memory_gigabytes(recipes)
        results |= _seconds_to_first_batch(recipes["recomputed"])
        for path, recipe in recipes.items():
            results |= _milliseconds_by_stage(path, recipe, options.rounds)
        return results


def _throughput_of_shards(options: Options) -> dict[str, float]:
    shards = options.data.rstrip("/")
    with tempfile.TemporaryDirectory() as folder:
        manifest = copy_shards(shards, f"{folder}/copy")

        def batches(train: str, cache_dir: str = "") -> tf.data.Dataset:
            augment = AUGMENT["precomputed"]
            data = DataConfig(train=train, canvas=manifest.canvas, augment=augment, cache_dir=cache_dir)
            config = Config(data=data, model=ModelConfig(grid=manifest.grid))
            return pipeline.build_dataset(config, "train", batch_size=BATCH, parallelism=options.readers)

        for _ in batches(shards, f"{folder}/cache").take(-(-manifest.num_images // BATCH)):
            pass  # fills the cache
        places = {
            "shards": batches(shards),
            "cache": batches(shards, f"{folder}/cache"),
            "disk": batches(f"{folder}/copy"),
        }
        cases = {name: _turn(place, IMAGES_A_TURN // BATCH) for name, place in places.items()}
        seconds = alternate(cases, options.rounds)
        cases.clear()  # ends their threads, which would read on after the copies are gone
    report(seconds)
    return {
        "shards_vs_disk": ratio(seconds, "disk", "shards"),
        "cache_vs_disk": ratio(seconds, "disk", "cache"),
        **{f"images_per_second_{name}": IMAGES_A_TURN / statistics.median(turns) for name, turns in seconds.items()},
    }


def _shard(data: str, output: str) -> dict[str, Config]:
    """Shards the data set; a recipe for each of the two paths."""
    settings = ShardSettings(CANVAS, Config().model.grid)
    shard_coco(ShardJob(f"{data}/instances.json", f"{data}/images", output, settings), progress=False)
    return {
        path: Config(data=DataConfig(train=output, canvas=CANVAS, augment=augment)) for path, augment in AUGMENT.items()
    }


def _throughput(data: str, recipes: dict[str, Config], rounds: int) -> dict[str, float]:
    batches = {path: pipeline.build_dataset(recipe, "train", batch_size=BATCH) for path, recipe in recipes.items()}
    cases = {
        "decode": _turn(_floor(data, resize=False), IMAGES_A_TURN),
        "precomputed": _turn(batches["precomputed"], IMAGES_A_TURN // BATCH),
        "decode and resize": _turn(_floor(data, resize=True), IMAGES_A_TURN),
        "recomputed": _turn(batches["recomputed"], IMAGES_A_TURN // BATCH),
    }
    seconds = alternate(cases, rounds)
    report(seconds)
    speeds = {name.replace(" ", "_"): IMAGES_A_TURN / statistics.median(turns) for name, turns in seconds.items()}
    return {
        "precomputed_vs_decode": ratio(seconds, "decode", "precomputed"),
        "recomputed_vs_resize": ratio(seconds, "decode and resize", "recomputed"),
        **{f"images_per_second_{name}": speed for name, speed in speeds.items()},
    }


def _composed_vs_recomputed(recipe: Config, rounds: int) -> dict[str, float]:
    """Images/s of mosaics and of pasted instances as shares of the images/s of one image a canvas."""
    changes_of: dict[str, dict[str, Any]] = {"one image": {}, **COMPOSED}
    cases = {}
    for name, changes in changes_of.items():
        augment = dataclasses.replace(recipe.data.augment, **changes)
        config = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, augment=augment))
        cases[name] = _turn(pipeline.build_dataset(config, "train", batch_size=BATCH), IMAGES_A_TURN // BATCH // 4)
    seconds = alternate(cases, rounds)
    report(seconds)
    return {f"{name}_vs_recomputed": ratio(seconds, "one image", name) for name in COMPOSED}


def _floor(data: str, resize: bool) -> tf.data.Dataset:
    """The original images, repeated: read and decoded, or also resized to the size they take on the canvas."""
    with tf.io.gfile.GFile(f"{data}/instances.json") as file:
        paths = [f"{data}/images/{image['file_name']}" for image in json.load(file)["images"]]

    def load(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(image, geometry.whole_image(tf.shape(image)[:2], CANVAS).size) if resize else image

    return _parallel(tf.data.Dataset.from_tensor_slices(paths).repeat(), load)


def _parallel(dataset: tf.data.Dataset, function: Callable[..., object]) -> tf.data.Dataset:
    """With the parallelism and the options of the real pipeline, so that cases differ only in their work."""
    function = tf.autograph.experimental.do_not_convert(function)
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2).with_options(pipeline.input_options())


def _turn(dataset: tf.data.Dataset, elements: int) -> Callable[[], None]:
    """A function that takes the next elements of an endless data set.

    The few elements that were prefetched since the last turn count too; a turn takes far more.
    """
    iterator = iter(dataset)

    def take() -> None:
        for _ in range(elements):
            next(iterator)

    return take


def _memory_gigabytes(recipes: dict[str, Config]) -> float:
    """Peak memory of a fresh process that reads both paths, beyond what importing TensorFlow takes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        gigabytes = pool.apply(_peak_gigabytes, [list(recipes.values())])
    print(f"  memory beyond TensorFlow: {gigabytes:.2f} GB")
    return gigabytes


def _peak_gigabytes(recipes: list[Config]) -> float:
    before = peak_kilobytes()
    for recipe in recipes:
        for _ in pipeline.build_dataset(recipe, "train", batch_size=BATCH).take(64):
            pass
    return (peak_kilobytes() - before) / 1e6


def _seconds_to_first_batch(recipe: Config) -> dict[str, float]:
    """A new run beside one that is restored at a far position: the difference is the cost of restoring."""

    def first(position: int) -> Callable[[], object]:
        return lambda: next(iter(pipeline.build_dataset(recipe, "train", batch_size=BATCH, start_position=position)))

    seconds = alternate({"first batch, new run": first(0), "first batch, restored": first(10**9)}, 3)
    report(seconds)
    medians = [statistics.median(turns) for turns in seconds.values()]
    return dict(zip(("first_batch_seconds_new", "first_batch_seconds_restored"), medians, strict=True))


def _milliseconds_by_stage(path: str, recipe: Config, rounds: int) -> dict[str, float]:
    """Milliseconds an image, on all cores together, that each stage adds to those before it."""
    manifest = load_manifest(recipe.data.train)
    reader, order = RecordReader(manifest, 0), Sampler(recipe, manifest, training=True)
    build = record_to_element(recipe, manifest, training=True)

    def element(position: tf.Tensor) -> dict[str, tf.Tensor]:
        record, _ = reader.read(order.record(position))
        return build(parse_record(record.serialized), record.image, position)

    def targets_only(position: tf.Tensor) -> list[tf.Tensor]:
        return [value for key, value in element(position).items() if key != "image"]

    positions = tf.data.Dataset.counter()
    stages = {
        "order_and_read": _parallel(positions, lambda p: reader.records(order.record(p)).get_single_element()),
        "decode": _parallel(positions, lambda p: reader.read(order.record(p))[0]),
        "targets": _parallel(positions, targets_only),
        "image": _parallel(positions, element),
    }
    # Each case returns zeros: handing the elements themselves to Python would take longer than some stages.
    datasets = {name: dataset.map(lambda *_: 0).batch(BATCH) for name, dataset in stages.items()}
    datasets["batch"] = pipeline.build_dataset(recipe, "train", batch_size=BATCH)
    cases = {name: _turn(dataset, IMAGES_A_TURN // BATCH) for name, dataset in datasets.items()}
    seconds = alternate(cases, rounds)
    results, before = {}, 0.0
    print(f"  {path}: milliseconds an image that each stage adds")
    for name, turns in seconds.items():
        total = 1000 * statistics.median(turns) / IMAGES_A_TURN
        results[f"{path}_ms_{name}"] = total - before
        print(f"    {name:<20}{total - before:8.3f}")
        before = total
    return results
