"""The shapes data set: seeded, fair masks, COCO format, made and sharded if it is missing."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pycocotools.coco import COCO

from solo_dist.data.sharding import shapes
from solo_dist.data.sharding.shapes import DEFAULT_SETTINGS, ShapesSettings, draw_image, make_shapes
from solo_dist.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent
MANY = ShapesSettings(side=96, num_categories=4, most_shapes=5)


def test_an_image_depends_on_seed_split_and_number_alone():
    first, instances = draw_image(MANY, 0, 3)
    again, same_instances = draw_image(MANY, 0, 3)
    np.testing.assert_array_equal(first, again)
    assert [category for category, _ in instances] == [category for category, _ in same_instances]
    others = [draw_image(MANY, 0, 4), draw_image(MANY, 1, 3), draw_image(dataclasses.replace(MANY, seed=1), 0, 3)]
    assert all((other != first).mean() > 0.5 for other, _ in others)


def test_masks_are_the_visible_parts_of_shapes_of_several_sizes():
    counts, areas, touching, categories = [], [], 0, set()
    for number in range(60):
        image, instances = draw_image(MANY, 0, number)
        masks = np.array([mask for _, mask in instances])
        assert image.shape == (96, 96, 3) and image.dtype == np.uint8
        assert masks.sum(axis=0).max() == 1, "visible parts do not overlap"
        counts.append(len(instances))
        areas += masks.sum(axis=(1, 2)).tolist()
        categories |= {category for category, _ in instances}
        grown = np.array([shifted(mask) for mask in masks])
        touching += int(grown.sum(axis=0).max() > 1)
    assert min(counts) == 1 and max(counts) == 5 and categories == {0, 1, 2, 3}
    assert touching > 30, "half of the images have shapes that hide others"
    # The smallest star, mostly hidden, has 1% of the image; the largest disc a third.
    assert min(areas) > 40 and np.percentile(areas, 90) > 5 * np.percentile(areas, 10)


def shifted(mask):
    grown = mask.copy()
    for axis in (0, 1):
        for step in (-2, 2):
            grown |= np.roll(mask, step, axis)
    return grown


def test_a_shape_differs_from_what_is_around_it():
    # Otherwise nobody could find it: the mean colour inside a mask against that of the ring around it.
    distances = []
    for number in range(30):
        image, instances = draw_image(DEFAULT_SETTINGS, 0, number)
        anything = np.any([mask for _, mask in instances], axis=0)
        for _, mask in instances:
            ring = shifted(mask) & ~anything
            if ring.sum() > 20:
                inside, outside = image[mask].mean(axis=0), image[ring].mean(axis=0)
                distances.append(np.abs(inside - outside).sum())
    assert np.percentile(distances, 5) > 40


def test_the_files_are_coco(tmp_path):
    settings = ShapesSettings(side=64)
    assert make_shapes(str(tmp_path), "train", 5, settings)
    truth = COCO(str(tmp_path / "instances.json"))
    assert [category["name"] for category in truth.loadCats(truth.getCatIds())] == ["disc", "square", "triangle"]
    assert len(truth.getImgIds()) == 5
    for number, image in enumerate(truth.loadImgs(truth.getImgIds())):
        stored = np.asarray(PIL.Image.open(tmp_path / "images" / image["file_name"]), int)
        drawn, instances = draw_image(settings, 0, number)
        assert np.abs(stored - drawn).mean() < 5  # noise and JPEG
        annotations = truth.loadAnns(truth.getAnnIds(imgIds=image["id"]))
        assert [annotation["category_id"] - 1 for annotation in annotations] == [category for category, _ in instances]
        for annotation, (_, mask) in zip(annotations, instances, strict=True):
            np.testing.assert_array_equal(truth.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum()
            ys, xs = np.nonzero(mask)
            assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_what_is_there_is_left_alone(tmp_path):
    make_shapes(str(tmp_path), "train", 2, ShapesSettings(side=32))
    before = (tmp_path / "instances.json").read_bytes()
    assert not make_shapes(str(tmp_path), "train", 3, ShapesSettings(side=64))
    assert (tmp_path / "instances.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"num_categories": 0}, "num_categories=0"),
        ({"num_categories": 5}, "num_categories=5 must be 1 to 4"),
        ({"smallest": 0.9}, "smallest=0.9"),
        ({"side": 8}, "side=8"),
        ({"most_shapes": 0}, "most_shapes=0"),
    ],
)
def test_impossible_settings_name_the_option(tmp_path, changes, option):
    with pytest.raises(ConfigError, match=option):
        make_shapes(str(tmp_path), "train", 1, dataclasses.replace(DEFAULT_SETTINGS, **changes))


ENSURE = """
import sys
from solo_dist import recipes
from solo_dist.data.sharding.demo_data import ensure_shapes

if __name__ == "__main__":
    folders = [ensure_shapes(sys.argv[1], recipes.get("shapes_tiny"), num_train=3, num_validation=2) for _ in range(2)]
    assert folders[0] == folders[1]
    import tensorflow as tf
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    print(len(tf.config.list_logical_devices("CPU")), "devices")
"""


@pytest.mark.slow
def test_the_trainer_gets_shards_and_can_still_configure_tensorflow(tmp_path):
    script = tmp_path / "ensure.py"
    script.write_text(ENSURE)
    run = [sys.executable, str(script), str(tmp_path / "shapes")]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Two trainings are started for the first time: one makes the data, the other waits for it.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(run, env=environment, **pipes) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert all("2 devices" in output for output in outputs), outputs
    for split, count in (("train", 3), ("validation", 2)):
        manifest = json.loads((tmp_path / "shapes" / split / "shards" / "manifest.json").read_text())
        assert manifest["num_images"] == count and manifest["canvas"] == [128, 128] and not manifest["rejected"]
    for stage in ("drawing train", "sharding"):
        assert sum(stage in output for output in outputs) == 1, f"{stage}: one process does it"


def test_the_program_makes_both_splits(tmp_path):
    arguments = [f"--output={tmp_path}/s/", "--num_train=2", "--num_validation=1", "--side=48", "--num_categories=4"]
    command = [sys.executable, "-m", "solo_dist", "make-shapes", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and f"{tmp_path}/s/train: made" in done.stdout, done.stderr
    for split, count in zip(shapes.SPLITS, (2, 1), strict=True):
        values = json.loads((tmp_path / "s" / split / "instances.json").read_text())
        assert len(values["images"]) == count and len(values["categories"]) == 4
        assert len(list((tmp_path / "s" / split / "images").iterdir())) == count
