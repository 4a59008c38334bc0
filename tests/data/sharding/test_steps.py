"""The shard tool in steps, as on a cluster: plan, tasks, finish. The bytes are those of one machine."""

import dataclasses
import gzip
import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from solo_dist.config import GridConfig
from solo_dist.data import schema
from solo_dist.data.sharding import claims, job, plan, shard_count
from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.data.sharding.job import ShardJob, finish_shards, make_task, plan_shards, shard_coco
from solo_dist.data.sharding.notes import shard_task
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.distributed.array_task import array_task
from solo_dist.errors import ConfigError, UserError
from solo_dist.storage.lease import LockError

SIDE, IMAGES, SHARDS = 64, 10, 5
SETTINGS = ShardSettings((SIDE, SIDE), GridConfig(levels=("p3",), sizes=(4,), scale_ranges=((1, 512),)))


def annotation(number, image, **changes):
    x = 3 + number % 20
    outline = [x, 8, x + 30, 8, x + 30, 38, x, 38]
    values = {"id": number, "image_id": image, "category_id": 1, "segmentation": [outline], "iscrowd": 0}
    return values | {"bbox": [x, 8, 30, 30], "area": 900} | changes


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A COCO data set with an image that does not decode and annotations in no order, and its shards in one/."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = PIL.Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        pixels.resize((SIDE, SIDE)).save(folder / "images" / f"{number}.png")
    (folder / "images" / "6.png").write_bytes(b"x")
    images = [{"id": 90 - n, "file_name": f"{n}.png", "height": SIDE, "width": SIDE} for n in range(IMAGES)]
    owners = rng.permutation(np.repeat([image["id"] for image in images], 2)).tolist()
    annotations = [annotation(number, owner) for number, owner in enumerate(owners)]
    annotations += [annotation(100, 5), annotation(101, 90, iscrowd=1), "no object"]
    images[3] |= {"neg_category_ids": [4, 1], "not_exhaustive_category_ids": [1]}
    categories = [{"id": 1, "name": "box", "frequency": "r"}]
    values = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(values))
    shard_coco(job_of(folder, folder / "one"), 0, False)
    return folder


def job_of(source, output, **changes) -> ShardJob:
    paths = [f"{source}/instances.json", f"{source}/images", str(output)]
    return dataclasses.replace(ShardJob(*paths, SETTINGS, SHARDS), **changes)


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def progress(job_):
    return Path(job_.output, schema.PROGRESS)


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """A folder whose three tasks have made their shards; copy it before changing it."""
    asked = job_of(source, tmp_path_factory.mktemp("made") / "shards")
    assert plan_shards(asked).num_shards == SHARDS
    assert [make_task(asked, index, 3, 0, False) for index in (2, 0, 1)] == [1, 2, 2]
    return asked


@pytest.fixture
def copied(made, tmp_path):
    for path in Path(made.output).rglob("*"):
        if path.is_file():
            target = tmp_path / "shards" / path.relative_to(made.output)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return dataclasses.replace(made, output=f"{tmp_path}/shards")


# ---- The way it should go


@pytest.mark.parametrize("seconds", [0.0, 4e9])
def test_tasks_give_the_bytes_of_one_machine_whatever_the_clocks(source, copied, seconds):
    for path in Path(copied.output).rglob("*"):
        os.utime(path, (seconds, seconds))
    # The last two steps do without the json, which other machines may not see.
    manifest = finish_shards(dataclasses.replace(copied, annotations="elsewhere.json"), 3)
    assert manifest.rejected == {"its image was rejected": 2, "no such image": 1, "crowd": 1} | {
        "annotation is not an object": 1,
        "image does not decode": 1,
    }
    assert content(copied.output) == content(source / "one")
    assert finish_shards(copied) == manifest and make_task(copied, 0, 3) == 0 and plan_shards(copied) is None


def test_tasks_in_a_bucket_give_the_same_bytes(source, made):
    """ram:// stands for a bucket: it is reached through tf.io.gfile only."""
    asked = dataclasses.replace(made, output="ram://steps/shards")
    plan_shards(asked)
    make_task(asked, 0, 1, 0, False)
    finish_shards(asked)
    names = tf.io.gfile.listdir(asked.output)
    assert {name: tf.io.gfile.GFile(f"{asked.output}/{name}", "rb").read() for name in names} == content(source / "one")


def test_annotations_may_come_before_the_images(source, made, tmp_path):
    values = json.loads((source / "instances.json").read_text())
    (tmp_path / "instances.json").write_text(json.dumps({name: values[name] for name in sorted(values)}))
    other = plan_shards(dataclasses.replace(made, annotations=f"{tmp_path}/instances.json", output=f"{tmp_path}/x"))
    here = plan.load_plan(made.output)
    assert (other.parts, other.rejected, other.categories) == (here.parts, here.rejected, here.categories)


def test_a_plan_is_kept_and_a_damaged_one_is_made_again(copied):
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in progress(copied).glob("*part*")}
    plan_shards(copied)
    assert before == {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in progress(copied).glob("*part*")
    }
    (progress(copied) / "00003.part.jsonl").write_bytes(before["00003.part.jsonl"][0][:-5])
    plan_shards(copied)
    assert {name: data for name, (data, _) in before.items()} == {
        path.name: path.read_bytes() for path in progress(copied).glob("*part*")
    }


def test_evaluation_gets_what_lvis_says_of_categories(source):
    with gzip.open(source / "one" / schema.ANNOTATIONS, "rt") as file:
        values = json.load(file)
    assert [set(image) - {"id", "file_name", "height", "width"} for image in values["images"]].count(
        set()
    ) == IMAGES - 2
    (image,) = [image for image in values["images"] if "neg_category_ids" in image]
    assert (image["id"], image["neg_category_ids"], image["not_exhaustive_category_ids"]) == (87, [1], [1])
    assert values["categories"] == [{"id": 1, "name": "box", "frequency": "r"}]
    manifest = schema.load_manifest(f"{source}/one")
    assert manifest.categories == [{"id": 1, "name": "box"}]
    places = schema.load_image_categories(manifest)
    assert places.tolist() == [[image, 0] for image in range(IMAGES - 1)]


# ---- What can go wrong


def test_finish_names_the_tasks_to_run_again(source, copied):
    (progress(copied) / "00001.note.json").unlink()
    shard = Path(copied.output, "shard-00003-of-00005.tfrecord")
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x00")
    (progress(copied) / "00004.annotations.gz").unlink()
    with pytest.raises(schema.ShardError) as error:
        finish_shards(copied, 3)
    assert str(error.value) == (
        f"{copied.output} is not complete: 3 of its 5 shards are not made or are damaged, the first is "
        "shard-00001-of-00005.tfrecord. Run these tasks again, then --finish: --task_count=3 --task_index=0,1."
    )
    with pytest.raises(schema.ShardError, match="Run the same command without a step, which makes them"):
        finish_shards(copied)
    kept = Path(copied.output, "shard-00002-of-00005.tfrecord").stat().st_mtime_ns
    assert make_task(copied, 0, 1, 0, False) == SHARDS  # other tasks than before make what is left
    assert Path(copied.output, "shard-00002-of-00005.tfrecord").stat().st_mtime_ns == kept
    finish_shards(copied)
    assert content(copied.output) == content(source / "one")


def test_steps_need_their_plan(source, tmp_path):
    asked = job_of(source, tmp_path / "x")
    for step in (lambda: make_task(asked, 0, 2), lambda: finish_shards(asked)):
        with pytest.raises(schema.ShardError, match="There is no plan in .*; first run the same command with --plan"):
            step()
    with pytest.raises(ConfigError, match="--task_index=2 must be 0 to 1, as --task_count=2"):
        make_task(asked, 2, 2)


@pytest.mark.parametrize("step", [plan_shards, lambda asked: make_task(asked, 0, 2), finish_shards, shard_coco])
def test_other_settings_and_other_versions_are_refused(copied, step):
    other = dataclasses.replace(copied, settings=dataclasses.replace(SETTINGS, canvas=(SIDE, 96)))
    before = content(progress(copied))
    with pytest.raises(schema.ShardError, match="holds shards of other data or settings; delete the folder"):
        step(other)
    path = progress(copied) / plan.PLAN
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"versions": values["versions"] | {"Pillow": "1.2"}}))
    with pytest.raises(schema.ShardError, match="was begun with Pillow 1.2, and this machine has Pillow .* bytes"):
        step(copied)
    path.write_bytes(before[plan.PLAN])
    assert content(progress(copied)) == before


def test_other_annotations_are_refused_when_planning(copied, source, tmp_path):
    (tmp_path / "other.json").write_text((source / "instances.json").read_text() + " ")
    with pytest.raises(schema.ShardError, match="holds shards of other data or settings"):
        plan_shards(dataclasses.replace(copied, annotations=f"{tmp_path}/other.json"))


def test_a_task_of_an_earlier_plan_stops(copied, source, tmp_path):
    earlier = plan.load_plan(copied.output)
    for path in sorted(Path(copied.output).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    other = dataclasses.replace(copied, settings=dataclasses.replace(SETTINGS, canvas=(SIDE, 96)))
    plan_shards(other)
    with pytest.raises(schema.ShardError, match="The plan of .* was replaced while this task was at work"):
        list(job.make_shards([shard_task(earlier, 0, (copied.images,))], SETTINGS, earlier.classes, 0, int))
    assert not (progress(copied) / "00000.note.json").exists()


@pytest.mark.parametrize(("name", "words"), [("00000.part.jsonl", "is lost"), ("plan.json", "is damaged")])
def test_a_lost_or_damaged_plan_is_named(copied, name, words):
    path = progress(copied) / name
    (progress(copied) / "00000.note.json").unlink()
    path.unlink() if words == "is lost" else path.write_text(path.read_text()[:-40])
    with pytest.raises(schema.ShardError, match=f"{name} {words}.*--plan"):
        make_task(copied, 0, 3, 0, False)


def test_tasks_with_shards_in_common_are_not_at_work_together(tmp_path):
    output = str(tmp_path)
    with claims.claimed(output, 1, 4):
        for index, count in ((1, 4), (0, 1), (1, 2), (3, 6)):
            refused = pytest.raises(LockError, match=r"is in use by process \d+ on .* Wait for it, or stop it")
            with refused, claims.claimed(output, index, count):
                pass
        for index, count in ((0, 4), (0, 2), (2, 6)):
            with claims.claimed(output, index, count):
                pass
    with claims.claimed(output):
        pass
    assert not list((tmp_path / schema.PROGRESS).iterdir())


# ---- Numbers of tasks and shards


@pytest.mark.parametrize(
    ("environ", "index", "count", "wanted"),
    [
        ({}, None, None, None),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, None, None, None),
        ({}, 2, 4, (2, 4)),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "2"}, None, 8, (3, 8)),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, 3, None, (3, 8)),
        ({"JOB_COMPLETION_INDEX": "0"}, None, 8, (0, 8)),
        ({"JOB_COMPLETION_INDEX": "1"}, 0, 8, (0, 8)),
        ({}, None, 8, "--task_count=8 needs --task_index"),
        ({"JOB_COMPLETION_INDEX": "1"}, 1, None, "--task_index=1 needs --task_count"),
    ],
)
def test_the_task_comes_from_flags_or_the_scheduler(environ, index, count, wanted):
    if isinstance(wanted, str):
        with pytest.raises(UserError, match=wanted):
            array_task(environ, index, count)
    else:
        assert array_task(environ, index, count) == wanted


def test_shards_are_at_most_of_about_200_megabytes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x" * 160_000)
    (tmp_path / "b.png").write_bytes(b"x" * 4_000_000)
    whole = dataclasses.replace(SETTINGS, keep_original=True)

    def count(number, file="a.jpg", settings=whole):
        return shard_count.default_count([str(tmp_path)], [CocoImage(1, file, 1000, 800)] * number, settings)

    assert [count(number) for number in (1, 64, 65, 16_384, 16_385, 118_000)] == [1, 1, 2, 256, 256, 256]
    assert count(500_000) == 400  # 160 kB each
    assert count(500_000, "b.png") == count(500_000, "missing.jpg") == 1000  # as JPEGs of half a byte a pixel
    assert count(500_000, settings=SETTINGS) == 256  # fitted into the small canvas
