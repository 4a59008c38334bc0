"""Measures planning and reading at the size of millions, on synthetic sets drawn from a seed.

    python tests/drills/large_set.py plan --folder=large --images=1000000
    python tests/drills/large_set.py read --folder=large --images=2000000 --shards=2000

`plan`: a COCO json of small images with seven annotations each is planned in a process of its own; prints its seconds
and its largest memory. `read`: shards of tiny records; prints the seconds until the first batch, at the start and at a
position far into the training, and the memory that the input takes; checks that the records are those that the order of
the training names.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SIDE, ANNOTATIONS, FILES = 32, 7, 100
FIRST_ID = 1 << 28
"""From here to twice it, ids take the same number of bytes in a record."""


# ---- Planning


def write_json(path: Path, images: int, seed: int) -> None:
    """Streams a COCO json of images and annotations; the names of image files repeat."""
    if path.exists():
        return
    rng = np.random.default_rng(seed)
    with open(path.with_suffix(".part"), "w") as file:
        file.write('{"images": [')
        for n in range(images):
            comma = ", " if n else ""
            name = f"part{n % FILES:03d}/image_{n:012d}.jpg"
            file.write(f'{comma}{{"id": {n + 1}, "file_name": "{name}", "height": {SIDE}, "width": {SIDE}}}')
        file.write('], "annotations": [')
        for n in range(images):
            for k, (x, y, w, h) in enumerate(rng.integers(2, SIDE // 2, (ANNOTATIONS, 4)).tolist()):
                outline = f"[[{x}, {y}, {x + w}, {y}, {x + w}, {y + h}, {x}, {y + h}]]"
                ids = f'"id": {n * ANNOTATIONS + k + 1}, "image_id": {n + 1}, "category_id": 1, "iscrowd": 0'
                box = f'"segmentation": {outline}, "bbox": [{x}, {y}, {w}, {h}], "area": {w * h}'
                file.write(f"{', ' if n or k else ''}{{{ids}, {box}}}")
        file.write('], "categories": [{"id": 1, "name": "box"}]}')
    path.with_suffix(".part").rename(path)


def plan(folder: Path, images: int, seed: int) -> None:
    write_json(folder / f"instances_{images}.json", images, seed)
    (folder / "images").mkdir(exist_ok=True)
    paths = [
        f"--annotations={folder}/instances_{images}.json",
        f"--images={folder}/images",
        f"--output={folder}/planned",
    ]
    command = [
        sys.executable,
        "-m",
        "solo_dist",
        "shard",
        "--plan",
        "--config=shapes_tiny",
        "--num_shards=2000",
        *paths,
    ]
    start = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True)
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    size = (folder / f"instances_{images}.json").stat().st_size / 1e9
    print(
        f"{images} images, json of {size:.2f} GB: {time.monotonic() - start:.0f} s, at most {largest:.2f} GB of memory"
    )


# ---- Reading


def write_shards(folder: Path, images: int, shards: int):
    """Makes a folder of `images` records that differ by their id alone. Returns the config that reads it."""
    import io

    import google_crc32c
    import PIL.Image
    import tensorflow as tf

    from solo_dist.config import Config, DataConfig, GridConfig, ModelConfig, TrainConfig
    from solo_dist.data import schema
    from solo_dist.data.sharding.job import ShardJob, shard_coco
    from solo_dist.data.sharding.records import ShardSettings
    from solo_dist.storage.atomic import frame_record

    grid = GridConfig(levels=("p3",), sizes=(4,), scale_ranges=((1, 512),))
    config = Config(data=DataConfig(train=str(folder), canvas=(SIDE, SIDE), max_instances=4, max_positives=16))
    config.model, config.train = ModelConfig(grid=grid), TrainConfig(global_batch=8)
    if (folder / schema.MANIFEST).exists():
        return config
    one = folder.parent / "one_record"
    (one / "images").mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (SIDE, SIDE), (90, 120, 30)).save(one / "images" / "a.jpg", quality=30)
    annotation = {"id": 1, "image_id": FIRST_ID, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
    annotation["segmentation"] = [[4, 4, 24, 4, 24, 24, 4, 24]]
    image = {"id": FIRST_ID, "file_name": "a.jpg", "height": SIDE, "width": SIDE}
    values = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "box"}]}
    (one / "instances.json").write_text(json.dumps(values))
    job = ShardJob(f"{one}/instances.json", f"{one}/images", f"{one}/shards", ShardSettings((SIDE, SIDE), grid))
    manifest = shard_coco(job, 0, False)
    (record,) = tf.data.TFRecordDataset(f"{one}/shards/{manifest.files[0].name}").as_numpy_iterator()
    folder.mkdir(exist_ok=True)
    at = record.index(varint(FIRST_ID))
    length, count = len(frame_record(record)), images // shards
    files = []
    for shard in range(shards):
        ids = range(FIRST_ID + shard * count, FIRST_ID + (shard + 1) * count)
        data = b"".join(frame_record(record[:at] + varint(number) + record[at + 5 :]) for number in ids)
        name = f"shard-{shard:05d}-of-{shards:05d}.tfrecord"
        (folder / name).write_bytes(data)
        files.append(schema.ShardFile(name, count, len(data), f"{google_crc32c.value(data):08x}"))
    index = np.stack([np.repeat(np.arange(shards), count), np.tile(np.arange(count) * length, shards)], axis=1)
    buffer = io.BytesIO()
    np.save(buffer, index)
    (folder / schema.RECORDS).write_bytes(buffer.getvalue())
    (folder / schema.ANNOTATIONS).write_bytes(b"")
    sides = [(schema.RECORDS, buffer.getvalue()), (schema.ANNOTATIONS, b"")]
    side_files = [schema.ShardFile(name, 0, len(data), schema.crc32c(data)) for name, data in sides]
    facts = {"files": files, "side_files": side_files, "num_images": images, "num_instances": images}
    (folder / schema.MANIFEST).write_text(dataclasses.replace(manifest, **facts).to_json())
    return config


def varint(number: int) -> bytes:
    """Five bytes of a number between FIRST_ID and twice it, as protocol buffers write them."""
    return bytes((number >> 7 * place & 127) | (128 if place < 4 else 0) for place in range(5))


def read(folder: Path, images: int, shards: int) -> None:
    target = folder / f"records_{images}"
    config = write_shards(target, images, shards)
    for position in (0, 7 * images + images // 3):
        command = [sys.executable, __file__, "first_batch", f"--folder={target}", f"--position={position}"]
        subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"})
    del config


def first_batch(folder: Path, position: int) -> None:
    import tensorflow as tf

    from solo_dist.data import schema
    from solo_dist.data.input.pipeline import build_dataset
    from solo_dist.data.input.sampler import Sampler

    config = write_shards(folder, 0, 0)
    manifest = schema.load_manifest(str(folder))
    next(iter(tf.data.Dataset.range(2).map(lambda x: x + 1)))
    before = memory()
    start = time.monotonic()
    batches = iter(build_dataset(config, "train", start_position=position))
    batch = next(batches)
    seconds = time.monotonic() - start
    order = Sampler(config, manifest, training=True)
    for _ in range(20):
        numbers = [int(order.record(tf.constant(p, tf.int64))) for p in batch["position"].numpy()]
        assert (batch["image_id"].numpy() - FIRST_ID).tolist() == numbers
        assert batch["position"].numpy().tolist() == list(range(position, position + len(numbers)))
        position += len(numbers)
        batch = next(batches)
    print(f"position {position}: first batch after {seconds:.1f} s; memory {before:.0f} -> {memory():.0f} MB")


def memory() -> float:
    """Resident memory of this process in MB, at its largest since the start."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plan", "read", "first_batch"])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--position", type=int, default=0, help="of first_batch, which read starts")
    options = parser.parse_args()
    folder = Path(options.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if options.what == "plan":
        plan(folder, options.images, options.seed)
    elif options.what == "read":
        read(folder, options.images, options.shards)
    else:
        first_batch(folder, options.position)


if __name__ == "__main__":
    main()
