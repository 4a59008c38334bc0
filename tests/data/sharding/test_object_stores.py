"""Shards in object stores, against real servers: made there, copied, read and cached, with kills and failures."""

import json
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from solo_dist import stack
from solo_dist.config import Config, DataConfig, GridConfig
from solo_dist.data import schema
from solo_dist.data.input.cache import open_shards
from solo_dist.data.input.pipeline import build_dataset
from solo_dist.data.sharding.copy import copy_shards
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.errors import ConfigError
from tests.stores.fixtures import environment_with
from tests.stores.forks import Forks

IMAGES, SHARDS, SIDE = 24, 6, 64
GRID = GridConfig(levels=("p3",), sizes=(4,), scale_ranges=((1, 512),))
DENIED = {"gs": '{"error": {"code": 403, "message": "denied"}}', "s3": "<Error><Code>AccessDenied</Code></Error>"}
SETUP = f"""
    import os
    from solo_dist.config import Config, DataConfig, GridConfig, ModelConfig, TrainConfig
    from solo_dist.data import schema
    from solo_dist.errors import UserError
    from solo_dist.data.input import pipeline
    from solo_dist.data.sharding.records import ShardSettings
    from solo_dist.data.sharding.job import ShardJob, shard_coco
    from solo_dist.data.sharding.copy import copy_shards
    from solo_dist import errors
    from solo_dist.storage import urls

    GRID = GridConfig(levels=("p3",), sizes=(4,), scale_ranges=((1, 512),))

    def shard(source, output):
        urls.prepare([output])
        settings = ShardSettings(({SIDE}, {SIDE}), GRID)
        job = ShardJob(f"{{source}}/instances.json", f"{{source}}/images", output, settings, {SHARDS})
        return shard_coco(job, processes=0, progress=False)

    def endless(folder, **data):
        config = Config(data=DataConfig(train=folder, canvas=({SIDE}, {SIDE}), **data))
        config.data.max_instances, config.data.max_positives = 4, 16
        config.model.grid, config.train.global_batch = GRID, 4
        return pipeline.build_dataset(config, "train")

    def batches(folder, count=6, **data):
        return list(endless(folder, **data).take(count).as_numpy_iterator())

    def images_of(batches):
        return sorted(int(number) for batch in batches for number in batch["image_id"])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A small COCO data set: instances.json, images/, and shards/ made on the disk."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, IMAGES + 1):
        small = PIL.Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        small.resize((SIDE, SIDE)).save(folder / "images" / f"{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "height": SIDE, "width": SIDE})
        box = [number % 20, 8, 30, 30]
        x, y = box[:2]
        polygon = [x, y, x + 30, y, x + 30, y + 30, x, y + 30]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "area": 900, "iscrowd": 0})
        annotations[-1]["segmentation"] = [polygon]
    values = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
    (folder / "instances.json").write_text(json.dumps(values))
    settings = ShardSettings((SIDE, SIDE), GRID)
    job = ShardJob(f"{folder}/instances.json", f"{folder}/images", f"{folder}/shards", settings, SHARDS)
    shard_coco(job, 0, False)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def objects(bucket, prefix: str) -> dict[str, bytes]:
    return {name.removeprefix(prefix): bucket.get(name) for name in bucket.names() if name.startswith(prefix)}


def fill(bucket, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.put(f"{prefix}{path.relative_to(folder)}", path.read_bytes())


@pytest.fixture(scope="module")
def forks(gcs_server, s3_server, tmp_path_factory):
    """run(bucket) -> processes that can use it."""
    scratch, made = tmp_path_factory.mktemp("scratch"), {}

    def of(bucket) -> Forks:
        if bucket.scheme not in made:
            variables = {
                "TMPDIR": str(scratch),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "GCS_READAHEAD_BUFFER_SIZE_BYTES": "524288",
            }
            made[bucket.scheme] = Forks(environment_with(bucket, **variables))
        return made[bucket.scheme]

    of.scratch = scratch
    yield of
    for running in made.values():
        running.close()


@pytest.fixture(params=["gcs", "s3"])
def bucket(request):
    return request.getfixturevalue(request.param)


# ---- Making and copying


def test_from_a_bucket_into_a_bucket_gives_the_bytes_of_the_disk(bucket, forks, source, tmp_path):
    fill(bucket, source / "images", "coco/images/")
    bucket.put("coco/instances.json", (source / "instances.json").read_bytes())
    bucket.fail(0.05)
    output = forks(bucket).run(
        f"""{SETUP}
    manifest = shard("{bucket.url("coco")}", "{bucket.url("made/train")}")
    print(manifest.folder, manifest.num_images)
    """
    )
    assert output.splitlines()[-1] == f"{bucket.url('made/train')} {IMAGES}"
    assert objects(bucket, "made/train/") == content(source / "shards")
    assert all(name.startswith(("coco/", "made/train/")) for name in bucket.names())
    assert not list(forks.scratch.glob("solo_dist_[0-9]*/**/*.tfrecord"))
    assert not list(forks.scratch.glob(f"solo_dist_[0-9]*/*{bucket.name}*"))

    bucket.heal()
    bucket.forget()
    forks(bucket).run(
        f"""{SETUP}
    shard("{bucket.url("coco")}", "{bucket.url("made/train")}")
    copy_shards("{bucket.url("made/train")}", "{tmp_path}/copy")
    copy_shards("{tmp_path}/copy", "{bucket.url("again")}")
    """
    )
    assert content(tmp_path / "copy") == objects(bucket, "again/") == content(source / "shards")
    assert not [row for row in bucket.requests() if row[0] == "write" and row[1].startswith("made/")]


def test_a_picture_that_is_added_gets_into_a_finished_bucket(gcs, forks, source):
    fill(gcs, source / "images", "coco/images/")
    gcs.put("coco/instances.json", (source / "instances.json").read_bytes())
    gcs.put("coco/images/9.jpg", b"x")
    code = f"""{SETUP}
    print(shard("{gcs.url("coco")}", "{gcs.url("made/train")}").num_images)
    """
    for _ in range(2):
        assert forks(gcs).run(code).splitlines()[-1] == str(IMAGES - 1)
    gcs.put("coco/images/9.jpg", (source / "images" / "9.jpg").read_bytes())
    assert forks(gcs).run(code).splitlines()[-1] == str(IMAGES)
    assert objects(gcs, "made/train/") == content(source / "shards")


def check_kills(bucket, forks, source, kills):
    """Kills sharding into a bucket when the server has seen a random number of requests, and looks as a reader."""
    fill(bucket, source / "images", "coco/images/")
    bucket.put("coco/instances.json", (source / "instances.json").read_bytes())
    bucket.delay(0.01)
    rng, killed, rounds, seen = random.Random(kills), 0, 0, Counter()
    while killed < kills:
        rounds += 1
        target = f"{bucket.url('made')}{rounds}"
        code = f"{SETUP}\n    shard('{bucket.url('coco')}', '{target}')"
        while killed < kills:
            moment = rng.randint(1, 60)
            bucket.forget()
            run = forks(bucket).start(code)
            while run.returncode is None and bucket.requests().total() < moment:
                time.sleep(0.002)
            if run.kill(signal.SIGKILL) == 0:
                break
            assert run.returncode == -signal.SIGKILL, run.output
            killed += 1
            seen[look(bucket, forks, target)] += 1
        forks(bucket).run(code)
        assert objects(bucket, f"made{rounds}/") == content(source / "shards")
        assert look(bucket, forks, target) == "complete"
    assert seen["not complete yet"] and set(seen) <= {"not complete yet", "does not exist", "complete"}, seen


def look(bucket, forks, target: str) -> str:
    """What a reader finds."""
    output = forks(bucket).run(
        f"""{SETUP}
    urls.prepare(["{target}"])
    try:
        assert images_of(batches("{target}")) == list(range(1, {IMAGES} + 1))
        print("complete")
    except schema.ShardError as error:
        print(error)
    """
    )
    return next((known for known in ("not complete yet", "does not exist", "complete") if known in output), output)


def test_a_killed_run_is_repeated_and_nothing_is_left_over(gcs, forks, source):
    check_kills(gcs, forks, source, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [5, 10])
def test_many_kills(bucket, forks, source, kills):
    check_kills(bucket, forks, source, kills)


def test_an_upload_that_stopped_goes_on_and_strangers_are_refused(gcs, forks, source):
    shards = content(source / "shards")
    names = sorted(name for name in shards if name.endswith("tfrecord"))
    gcs.put(f"half/{names[0]}", shards[names[0]])
    gcs.put(f"half/{names[1]}", shards[names[1]][:-1] + b"x")
    code = f"""{SETUP}
    copy_shards("{source}/shards", "{gcs.url("half")}")
    """
    forks(gcs).run(code)
    assert objects(gcs, "half/") == shards
    written = {name for kind, name in gcs.requests() if kind == "write"}
    assert f"half/{names[0]}" not in written and f"half/{names[1]}" in written
    gcs.put("half/thesis.tex", b"x")
    stopped = forks(gcs).start(code)
    assert stopped.wait() == 1
    assert "half holds other files (thesis.tex); choose an empty folder." in stopped.output


def test_a_folder_of_images_that_a_store_refuses_is_told_with_the_reason(bucket, forks, source):
    code = f"""{SETUP}
    urls.prepare(["{bucket.url()}"])
    try:
        job = ShardJob("{source}/instances.json", "IMAGES", "ram://made", ShardSettings(({SIDE}, {SIDE}), GRID))
        shard_coco(job, processes=0, progress=False)
    except UserError as error:
        print("stopped:", error)
    """

    def stopped(images: str) -> str:
        return forks(bucket).run(code.replace("IMAGES", images))

    assert f"stopped: The folder of images '{bucket.url('none')}' does not exist." in stopped(bucket.url("none"))
    missing = f"{bucket.scheme}://no-such-bucket/images"
    assert f"stopped: {missing}: there is no such bucket; create it or correct the path" in stopped(missing)
    bucket.fail(1, 403, body=DENIED[bucket.scheme])
    assert f"stopped: {bucket.url('images')}: no permission; use an account" in stopped(bucket.url("images"))


def test_a_damaged_source_is_not_passed_on(source, tmp_path):
    copy_shards(str(source / "shards"), str(tmp_path / "source"))
    path = sorted((tmp_path / "source").glob("*.tfrecord"))[1]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(schema.ShardError, match=f"{path.name} has CRC-32C .*the source is damaged"):
        copy_shards(str(tmp_path / "source"), str(tmp_path / "target"))
    assert not (tmp_path / "target" / "manifest.json").exists()


# ---- Reading


def test_the_cache_fills_in_the_first_epoch(bucket, forks, source, tmp_path):
    fill(bucket, source / "shards", "shards/")
    cache, epoch = tmp_path / "cache", IMAGES // 4
    code = f"""{SETUP}
    urls.prepare(["{bucket.url()}"])
    got = batches("{bucket.url("shards")}", {epoch}, cache_dir="{cache}")
    assert images_of(got) == list(range(1, {IMAGES} + 1))
    """
    both = [forks(bucket).start(code) for _ in range(2)]
    for run in both:
        assert run.wait() == 0, run.output
    reads = shard_reads(bucket)
    assert len(reads) == SHARDS
    # A store may be asked for a file in several parts, but each file by one process only.
    assert sum(reads.values()) <= 3 * SHARDS
    assert {path.name.split("_", 1)[1]: path.read_bytes() for path in cache.glob("*.tfrecord")} == {
        name: data for name, data in content(source / "shards").items() if name.endswith("tfrecord")
    }

    bucket.forget()
    damaged, gone, *_ = sorted(cache.glob("*.tfrecord"))
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"x" * 9)
    gone.unlink()
    output = forks(bucket).run(
        f"""{SETUP}
    urls.prepare(["{bucket.url()}"])
    want = batches("{source}/shards", {3 * epoch})
    got = batches("{bucket.url("shards")}", {3 * epoch}, cache_dir="{cache}")
    for one, other in zip(want, got, strict=True):
        assert all((one[key] == other[key]).all() for key in one)
    """
    )
    assert output.count("is damaged; it is fetched again") == 1 and "Broken" not in output
    assert {name.split("/")[-1] for name in shard_reads(bucket)} == {p.name.split("_", 1)[1] for p in (damaged, gone)}


def shard_reads(bucket) -> Counter:
    return Counter({name: n for (kind, name), n in bucket.requests().items() if kind == "read" and "tfrecord" in name})


def test_the_cache_is_bounded_and_survives_damage_while_it_is_read(gcs, forks, source, tmp_path):
    fill(gcs, source / "shards", "shards/")
    cache, epoch = tmp_path / "cache", IMAGES // 4
    size = max(path.stat().st_size for path in (source / "shards").glob("*.tfrecord"))
    output = forks(gcs).run(
        f"""{SETUP}
    import shutil
    from pathlib import Path
    config = dict(cache_dir="{cache}", cache_bytes={3 * size + 1000})
    images = images_of(batches("{gcs.url("shards")}", {2 * epoch}, **config))
    assert images == sorted([*range(1, {IMAGES} + 1)] * 2)
    files = sorted(Path("{cache}").glob("*.tfrecord"))
    assert len(files) == 3 and sum(path.stat().st_size for path in Path("{cache}").iterdir()) <= {3 * size + 1000}

    iterator = iter(endless("{gcs.url("shards")}", cache_dir="{cache}"))
    for _ in range(2 * {epoch}):
        next(iterator)
    assert len(list(Path("{cache}").glob("*.tfrecord"))) == {SHARDS}
    for path in Path("{cache}").glob("*.tfrecord"):
        path.write_bytes(b"x" * path.stat().st_size)
    images = [number for _ in range(4 * {epoch}) for number in next(iterator)["image_id"].numpy().tolist()]
    assert len(images) == 4 * {IMAGES} and set(images) == set(range(1, {IMAGES} + 1))
    shutil.rmtree("{cache}")
    images = [number for _ in range(4 * {epoch}) for number in next(iterator)["image_id"].numpy().tolist()]
    assert len(images) == 4 * {IMAGES} and set(images) == set(range(1, {IMAGES} + 1))
    assert len(list(Path("{cache}").glob("*.tfrecord"))) == {SHARDS}
    """
    )
    assert output.count("is full (data.cache_bytes=") == 1
    assert output.count("is damaged; it is fetched again") == SHARDS and "Broken" not in output


@pytest.mark.parametrize("switch", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_s3_is_read_with_and_without_tensorflow_io(switch, s3, forks, source):
    fill(s3, source / "shards", "shards/")
    output = forks(s3).run(
        f"""{SETUP}
    from solo_dist.data.input.reader import readable_errors
    os.environ["SOLO_DIST_TENSORFLOW_IO"] = "{switch}"
    for one, other in zip(batches("{source}/shards"), batches("{s3.url("shards")}"), strict=True):
        assert all((one[key] == other[key]).all() for key in one)
    try:
        with readable_errors():
            batches("{s3.url("shards")}", cache_dir=os.environ["TMPDIR"] + "/small", cache_bytes=1000)
        print("read in the graph")
    except errors.StoreError as error:
        print("stopped:", error)
    """
    )
    in_graph = switch == "1" and stack.has_tensorflow_io()
    assert ("read in the graph" in output) == in_graph
    assert ("itself: shards are copied to" in output) == (not in_graph)
    stopped = re.search("stopped: (.*) could not be copied to .*/small .*; free space, or set data.cache_dir", output)
    assert bool(stopped) == (not in_graph) and (in_graph or stopped[1].startswith(s3.url("shards/shard-")))


def test_a_store_that_is_gone_is_not_taken_for_broken_records(gcs, forks, source):
    fill(gcs, source / "shards", "shards/")
    output = forks(gcs).run(
        f"""{SETUP}
    import urllib.request
    from solo_dist.data.input.reader import readable_errors
    os.environ["SOLO_DIST_STORE_SECONDS"] = "2"
    iterator = iter(endless("{gcs.url("shards")}", max_bad_records=1000))
    next(iterator)
    body = b'{{"fraction": 1, "status": 403, "only": "read", "body": ""}}'
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
    opener.open("{gcs.server.address}/_control/fail", body)
    try:
        with readable_errors():
            for _ in range(100):
                next(iterator)
    except errors.StoreError as error:
        print("stopped:", error)
    """
    )
    assert "stopped: " + gcs.url("shards/shard-0") in output and "no permission" in output
    assert "Broken" not in output


def test_many_requests_wait_at_a_time(gcs, forks, source):
    fill(gcs, source / "shards", "shards/")
    gcs.delay(0.2)
    gcs.forget()
    forks(gcs).run(f"""{SETUP}
    batches("{gcs.url("shards")}", 20)
    """)
    assert gcs.most_at_a_time() >= 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_dir": "gs://mine/cache"}, "data.cache_dir=gs://mine/cache must be a folder on a local disk."),
        ({"cache_dir": "/cache", "service": "grpc://a:1"}, "data.cache_dir has no effect if data.service reads"),
        ({"cache_bytes": 0}, "data.cache_bytes=0 must be at least 1."),
    ],
)
def test_impossible_caches_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Config(data=DataConfig(canvas=(64, 64), **options)).validate()


def test_a_cache_that_cannot_be_made_is_named(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"data.cache_dir={tmp_path}/file cannot be used: File exists"):
        open_shards(schema.load_manifest(f"{source}/shards"), DataConfig(cache_dir=f"{tmp_path}/file"))


def test_a_service_is_refused_where_its_workers_cannot_read(source):
    copy_shards(f"{source}/shards", "ram://shards")
    config = Config(data=DataConfig(train="ram://shards", canvas=(SIDE, SIDE), service="grpc://a:1"))
    config.model.grid = GRID
    with pytest.raises(ConfigError, match="workers of data.service cannot read ram://shards"):
        build_dataset(config, "train")
