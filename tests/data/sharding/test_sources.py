"""Data sets of several sources: annotations of more than one file, one json an image, and images in tar files."""

import dataclasses
import gzip
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from solo_dist.config import GridConfig
from solo_dist.data import schema
from solo_dist.data.sharding import tar_files
from solo_dist.data.sharding.categories import merged_categories
from solo_dist.data.sharding.coco_json import CocoError
from solo_dist.data.sharding.job import ShardJob, finish_shards, make_task, plan_shards, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.data.sharding.sources import Source
from solo_dist.data.sharding.tar_files import TarError, read_index, read_member
from solo_dist.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
SIDE, IMAGES, SHARDS = 32, 6, 2
SETTINGS = ShardSettings((SIDE, SIDE), GridConfig(levels=("p3",), sizes=(4,), scale_ranges=((1, 512),)))
CATEGORIES = [{"id": 3, "name": "box", "frequency": "r"}, {"id": 8, "name": "ball", "frequency": "f"}]


def image_of(number):
    return {"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE}


def annotation_of(number, image, category=3):
    outline = [[number % 9, 4, number % 9 + 15, 4, number % 9 + 15, 20]]
    return {"id": number, "image_id": image, "category_id": category, "segmentation": outline, "iscrowd": 0}


def write(path: Path, images, annotations, categories=CATEGORIES) -> Path:
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def pack(path: Path, files, names=lambda path: path.name, **options) -> Path:
    with tarfile.open(path, **{"mode": "w", **options}) as tar:
        for file in files:
            tar.add(file, names(file))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """One json, one folder of images, and the shards of them."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(1, IMAGES + 1):
        small = PIL.Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        small.resize((SIDE, SIDE)).save(folder / "images" / f"{number}.png")
    (folder / "images" / "5.png").write_bytes(b"")
    images = [image_of(number) for number in range(1, IMAGES + 1)]
    images[4] |= {"neg_category_ids": [8], "not_exhaustive_category_ids": []}
    annotations = [annotation_of(number, 1 + number // 2, 3 + 5 * (number % 2)) for number in range(2 * IMAGES)]
    write(folder / "all.json", images, annotations)
    shard_coco(ShardJob(f"{folder}/all.json", f"{folder}/images", f"{folder}/shards", SETTINGS, SHARDS), 0, False)
    return folder


@pytest.fixture
def halves(whole, tmp_path) -> ShardJob:
    """The same data set as two sources; the second one has other ids."""
    values = json.loads((whole / "all.json").read_text())
    for half, numbers in (("a", (1, 2, 3)), ("b", (4, 5, 6))):
        (tmp_path / half).mkdir()
        for number in numbers:
            (tmp_path / half / f"{number}.png").write_bytes((whole / "images" / f"{number}.png").read_bytes())
        own = [entry for entry in values["images"] if entry["id"] in numbers]
        ids = {3: 3, 8: 8} if half == "a" else {3: 8, 8: 1}
        its = [
            entry | {"category_id": ids[entry["category_id"]]}
            for entry in values["annotations"]
            if entry["image_id"] in numbers
        ]
        for entry in own:
            if "neg_category_ids" in entry:
                entry["neg_category_ids"] = [ids[number] for number in entry["neg_category_ids"]]
        write(tmp_path / f"{half}.json", own, its, [entry | {"id": ids[entry["id"]]} for entry in CATEGORIES])
    return ShardJob(
        f"{tmp_path}/a.json",
        f"{tmp_path}/a",
        f"{tmp_path}/shards",
        SETTINGS,
        SHARDS,
        more_sources=(Source(f"{tmp_path}/b.json", f"{tmp_path}/b"),),
    )


def content(folder):
    """All files; the manifest without the fingerprint, which names the annotations."""
    files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    files[schema.MANIFEST] = json.loads(files[schema.MANIFEST]) | {"fingerprint": ""}
    return files


# ---- Several files


def test_a_set_in_two_sources_gives_the_bytes_of_one(whole, halves, tmp_path):
    """One of them has its images in a tar file."""
    tar = pack(tmp_path / "b.tar", sorted((tmp_path / "b").iterdir()))
    job = dataclasses.replace(halves, more_sources=(Source(f"{tmp_path}/b.json", str(tar)),))
    plan_shards(job)
    for path in tmp_path.glob("*.json"):
        path.unlink()  # tasks need the images only
    assert make_task(job, 0, 1, 0, False) == SHARDS
    manifest = finish_shards(job)
    assert content(job.output) == content(whole / "shards")
    assert manifest.rejected == {"its image was rejected": 2, "image file is empty": 1}


def test_flags_are_repeated_or_patterns(halves, tmp_path):
    folder = tmp_path / "b c"
    folder.mkdir()
    tar = pack(folder / "b.tar", sorted((tmp_path / "b").iterdir()))
    images = [f"--images={tmp_path}/a", f"--images={tar}"]
    done = shard(f"--annotations={tmp_path}/?.json", *images, f"--output={tmp_path}/x")
    assert done.returncode == 0, done.stderr
    assert f"{IMAGES - 1} images in" in done.stdout
    done = shard(f"--annotations={tmp_path}/?.json", *images, *images, f"--output={tmp_path}/y")
    assert "There are 2 --annotations and 4 --images; give the images of each annotations" in done.stderr


def shard(*arguments):
    recipe = f"--config={ROOT}/configs/shapes_tiny.py"
    command = [sys.executable, "-m", "solo_dist", "shard", recipe, "--canvas=32x32", "--processes=1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_ids_of_images_are_those_of_their_file(whole, halves, tmp_path):
    """The second file has the image ids of the first: its annotations belong to its own images."""
    values = json.loads((tmp_path / "b.json").read_text())
    for entry in values["images"]:
        entry["id"] -= 3
    for entry in values["annotations"]:
        entry["image_id"] -= 3
    values["annotations"].append(annotation_of(100, 4))
    write(tmp_path / "b.json", *values.values())
    manifest = shard_coco(halves, 0, False)
    assert manifest.rejected.pop("no such image") == 1  # image 4 is one of neither file
    assert manifest.num_instances == schema.load_manifest(f"{whole}/shards").num_instances
    with gzip.open(f"{halves.output}/{schema.ANNOTATIONS}", "rt") as file:
        made = json.load(file)
    assert [(image["id"], image["file_name"]) for image in made["images"]] == [
        (1, "1.png"), (2, "2.png"), (3, "3.png"), (4, "4.png"), (6, "6.png"),
    ]  # fmt: skip
    assert [entry["image_id"] for entry in made["annotations"]] == [1, 1, 2, 2, 3, 3, 4, 4, 6, 6]


def test_categories_are_merged_by_name():
    first = [{"id": 1, "name": "dog"}, {"id": 4, "name": "cat"}]
    second = [{"id": 4, "name": "dog"}, {"id": 1, "name": "cow"}, {"id": 2, "name": "eel"}]
    merged = merged_categories([first, second], ["a.json", "b.json"])
    assert [(entry["id"], entry["name"]) for entry in merged.entries] == [
        (1, "dog"),
        (2, "eel"),
        (4, "cat"),
        (5, "cow"),
    ]
    assert merged.ids == [{1: 1, 4: 4}, {1: 5, 2: 2, 4: 1}]
    few = merged_categories([first, second], ["a.json", "b.json"], [{1}, {2, 9}])
    assert few.entries == [{"id": 1, "name": "dog"}, {"id": 2, "name": "eel"}]
    assert few.ids == [{1: 1}, {2: 2, 4: 1}]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([(1, "cat", "r")], [(1, "Cat ", "r")], "a.json has the category 'cat', and b.json has 'Cat'"),
        ([(1, "cat", "r")], [(1, "dog", "r"), (2, "dog", "r")], "b.json: two categories have the name 'dog'"),
        ([(1, "cat", "r")], [(7, "cat", "c")], "'cat' has the frequency r in a.json and c in b.json; make them equal"),
    ],
)
def test_categories_that_contradict_each_other_are_named(first, second, message):
    first, second = ([{"id": i, "name": n, "frequency": f} for i, n, f in part] for part in (first, second))
    with pytest.raises(CocoError, match=message):
        merged_categories([first, second], ["a.json", "b.json"])


def test_one_name_in_two_folders_is_refused(halves, tmp_path):
    (tmp_path / "b.json").write_text((tmp_path / "b.json").read_text().replace('"4.png"', '"2.png"'))
    with pytest.raises(CocoError, match="/a and .*/b both have an image 2.png, and names have to differ. Rename one"):
        plan_shards(halves)
    same = dataclasses.replace(halves, more_sources=(Source(f"{tmp_path}/b.json", f"{tmp_path}/a"),))
    with pytest.raises(CocoError, match="a.json and .*b.json both have the image 2.png of .*; solo-dist import"):
        plan_shards(same)


def test_another_number_of_sources_is_refused(halves):
    plan_shards(halves)
    with pytest.raises(schema.ShardError, match="holds shards of other data or settings"):
        make_task(dataclasses.replace(halves, more_sources=()), 0, 1)


# ---- One json an image


@pytest.fixture
def jsons(whole, tmp_path) -> Path:
    """The images of `whole` but one, with one json each."""
    folder = tmp_path / "jsons"
    folder.mkdir()
    for number in (1, 2, 3, 4, 6):
        (folder / f"{number}.png").write_bytes((whole / "images" / f"{number}.png").read_bytes())
        mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
        mask[4:20, number : number + 15] = 1
        rle = coco_mask.encode(mask)
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
        image = {"image_id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE}
        entry = {"id": 1, "segmentation": segmentation, "bbox": [number, 4, 15, 16], "area": 240, "predicted_iou": 0.9}
        (folder / f"{number}.json").write_text(json.dumps({"image": image, "annotations": [entry]}))
    return folder


def job_of(source, output, **changes) -> ShardJob:
    return dataclasses.replace(ShardJob(str(source), str(source), str(output), SETTINGS, SHARDS), **changes)


def test_one_json_an_image_in_a_folder_or_a_tar_file(jsons, tmp_path):
    values = [json.loads((jsons / f"{number}.json").read_text()) for number in (1, 2, 3, 4, 6)]
    images = [entry["image"] | {"id": entry["image"]["image_id"]} for entry in values]
    annotations = [e["annotations"][0] | {"image_id": e["image"]["image_id"], "category_id": 1} for e in values]
    one = write(tmp_path / "one.json", images, annotations, [{"id": 1, "name": "object"}])
    plan_shards(ShardJob(str(one), str(jsons), f"{tmp_path}/one", SETTINGS, SHARDS))
    tar = pack(tmp_path / "sa.tar", sorted(jsons.iterdir()), lambda path: f"./{path.name}")
    for source, output in ((jsons, tmp_path / "x"), (tar, tmp_path / "y")):
        plan_shards(job_of(source, output))
        # The keys of annotations may be in another order, and those of a tar file have a place besides.
        assert [*parts_of(output)] == [*parts_of(tmp_path / "one")]
        plan_shards(job_of(source, output))
    (jsons / "6.json").write_text((jsons / "6.json").read_text() + " ")
    with pytest.raises(schema.ShardError, match="holds shards of other data"):
        plan_shards(job_of(jsons, tmp_path / "x"))


def parts_of(output):
    """Images, without their places in a tar file, and annotations of each shard."""
    for path in sorted((Path(output) / schema.PROGRESS).glob("*.part.jsonl")):
        images, *annotations = map(json.loads, path.read_text().splitlines())
        yield [values[:-1] for values in images], annotations


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": {', "2.json is not valid json"),
        (
            "[]",
            "2.json is not the json of one image: it has no image or no annotations",
        ),
        ('{"image": {}, "annotations": [{"category_id": 3}]}', "2.json has annotations with category_id"),
    ],
)
def test_a_bad_json_of_an_image_is_named(jsons, tmp_path, text, message):
    (jsons / "2.json").write_text(text)
    tar = pack(tmp_path / "sa.tar", sorted(jsons.iterdir()))
    for source in (jsons, tar):
        with pytest.raises(CocoError, match=f"{source}/{message}"):
            plan_shards(job_of(source, tmp_path / "x"))


@pytest.mark.parametrize("in_json", ["", "./", "train/images/"])
def test_a_tar_made_of_a_folder(whole, tmp_path, in_json):
    files = sorted((whole / "images").iterdir())
    tar = pack(tmp_path / "images.tar", files, names=lambda path: f"train/images/{path.name}")
    entries = [image_of(number) | {"file_name": f"{in_json}{number}.png"} for number in range(1, IMAGES + 1)]
    path = write(tmp_path / "instances.json", entries, [annotation_of(1, 1)])
    manifest = shard_coco(job_of(path, tmp_path / "shards", images=str(tar)), 0, False)
    assert manifest.rejected == {"image file is empty": 1}  # nothing is missing


def test_jsons_and_images_without_each_other(jsons, tmp_path):
    tar = pack(tmp_path / "sa.tar", [path for path in sorted(jsons.iterdir()) if path.name not in ("3.png", "4.json")])
    manifest = shard_coco(job_of(tar, tmp_path / "shards"), 0, False)
    assert manifest.rejected == {"image is not in the tar file": 1, "its image was rejected": 1}
    assert manifest.num_instances == 3  # 4.json is lacking, and so is its image
    with pytest.raises(CocoError, match="images has no .json file; give a COCO instances json, or"):
        plan_shards(job_of(tmp_path, tmp_path / "x", annotations=_empty(tmp_path / "images")))


def _empty(folder: Path) -> str:
    folder.mkdir()
    return str(folder)


# ---- Tar files


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_and_read_by_offset(tmp_path, format):
    rng = np.random.default_rng(1)
    name = "a/" + 80 * "b" + "/" + 90 * "c"
    wanted = {f"./{n}.jpg": rng.bytes(n) for n in (0, 1, 511, 512, 513, 3000)} | {name: b"long", "ü.png": b"other"}
    path = tmp_path / "some.tar"
    with tarfile.open(path, "w", format=format) as tar:
        for member, data in [("1.jpg", b"replaced below"), *wanted.items()]:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        tar.addfile(_link("link.jpg"))
    for place in (str(path), "ram://tars/some.tar"):  # ram:// is reached like a bucket
        if place != str(path):
            tf.io.gfile.makedirs("ram://tars")
            tf.io.gfile.copy(str(path), place, overwrite=True)
        index = read_index(place)
        assert {n: read_member(place, at) for n, at in index.items()} == {
            n.removeprefix("./"): data for n, data in wanted.items()
        }


def _link(name):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "1.jpg"
    return info


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: path.write_bytes(gzip.compress(path.read_bytes())),
            "is compressed .gzip., so it cannot be",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[: 3 * 512]), "is damaged or truncated at byte 1536"),
        (
            lambda path: _overwrite(path, 1536, b"\x07" * 512),
            "damaged or truncated at byte 1536; copy or make it",
        ),
        (lambda path: path.write_bytes(b"no tar at all" * 100), "is not a tar file, or damaged"),
        (lambda path: path.write_bytes(b""), "is not a tar file, or damaged"),
        (lambda path: path.unlink(), "There is no file .*some.tar"),
    ],
)
def test_damaged_tar_files_are_named(tmp_path, damage, message):
    files = []
    for number in range(9):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_bytes(b"x" * 1000)
    path = pack(tmp_path / "some.tar", files, format=tarfile.USTAR_FORMAT)
    index = read_index(str(path))
    damage(path)
    with pytest.raises(TarError, match=message):
        read_index(str(path))
    with pytest.raises(TarError, match="has changed since it was planned|There is no file"):
        for place in index.values():
            read_member(str(path), place)


def _overwrite(path, at, data):
    text = path.read_bytes()
    path.write_bytes(text[:at] + data + text[at + len(data) :])


def test_a_tar_file_of_images_has_to_be_there(halves, tmp_path):
    job = dataclasses.replace(halves, images=f"{tmp_path}/none.tar")
    with pytest.raises(ConfigError, match="The tar file of images .*none.tar' does not exist"):
        plan_shards(job)
    assert tar_files.is_tar("x.TGZ") and not tar_files.is_tar("tar")
