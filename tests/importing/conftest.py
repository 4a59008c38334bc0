"""What the tests of the importers draw: images, shapes and COCO files of known masks."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask

from solo_dist.importing.coco_merge import read_coco
from solo_dist.importing.dataset import decode, encode


def save_image(path, height=60, width=80, orientation=1, seed=0):
    """An image file of upright size height x width, stored as the EXIF orientation says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    stored = (width, height) if orientation >= 5 else (height, width)
    image = PIL.Image.fromarray(rng.integers(0, 256, (*stored, 3), np.uint8))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def masks_of(dataset):
    """{image name: [(category, crowd, bool mask), ...]} in the order of the dataset."""
    return {
        Path(image.path).name: [(one.category, one.crowd, decode(one.rle)) for one in image.instances]
        for image in dataset.images
    }


def reasons(dataset):
    """How often each reason was given for leaving something out."""
    return dict(dataset.report.as_json()["left_out"]["counts"])


def changes(dataset):
    """How often each change was made."""
    return dict(dataset.report.as_json()["changed"]["counts"])


def iou(first, second):
    """Of two bool masks."""
    return (first & second).sum() / (first | second).sum()


def least_iou(before, after, crowds=True):
    """The least IoU between an instance of one dataset and the best of its category in the other; all are there."""
    found = {Path(image.path).name: image for image in after.images}
    least = 1.0
    for image in before.images:
        for one in image.instances:
            if one.crowd and not crowds:
                continue
            others = [
                other.rle
                for other in found[Path(image.path).name].instances
                if (other.category, other.crowd) == (one.category, one.crowd)
            ]
            assert others, f"{image.path}: no {one.category}"
            least = min(least, float(coco_mask.iou([one.rle], others, [False] * len(others)).max()))
    return least


def blob(height, width, seed, pieces=1, hole=False):
    """A bool mask of rough discs, with one pixel at least."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(pieces):
        y, x, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, height / 3)
        mask |= (rows - y) ** 2 + (columns - x) ** 2 < r**2 * (1 + 0.3 * np.sin(columns / 3))
    if hole:
        inside = np.argwhere(mask)
        y, x = inside[len(inside) // 2]
        mask &= (rows - y) ** 2 + (columns - x) ** 2 > 4
    mask[tuple(rng.integers(0, (height, width)))] = True
    return mask


def coco_content(images, categories):
    """COCO json of {file name: (height, width, [(category, crowd, mask), ...])}."""
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate(categories, start=1)]
    for number, (name, (height, width, objects)) in enumerate(images.items(), start=1):
        content["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        for category, crowd, mask in objects:
            rle = encode(mask)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": categories.index(category) + 1,
                    "segmentation": {"size": [height, width], "counts": rle["counts"].decode()},
                    "iscrowd": int(crowd),
                }
            )
    return content


@pytest.fixture
def drawn(tmp_path):
    """A folder with images/ and instances.json: objects of several parts, with holes, overlapping, of a pixel."""
    images = {}
    for number in range(4):
        height, width = 48 + 7 * number, 70 - 5 * number
        name = f"sub/{number}.png" if number == 2 else f"{number}.png"
        save_image(tmp_path / "drawn/images" / name, height, width, seed=number)
        objects = [
            ("cat", False, blob(height, width, 10 * number)),
            ("dog", False, blob(height, width, 10 * number + 1, pieces=3)),
            ("dog", False, blob(height, width, 10 * number + 2, pieces=2, hole=True)),
            ("cat", number == 1, blob(height, width, 10 * number + 3, pieces=2)),
        ]
        single = np.zeros((height, width), bool)
        single[number, -1] = True
        images[name] = (height, width, [*objects, ("cat", False, single)])
    folder = tmp_path / "drawn"
    (folder / "instances.json").write_text(json.dumps(coco_content(images, ["cat", "dog"])))
    return folder


@pytest.fixture
def drawn_dataset(drawn):
    """The same, read."""
    return read_coco([str(drawn / "instances.json")], str(drawn / "images"), crowd="auto", boxes="reject")


@pytest.fixture(
    params=[("coco128", 30), ("fruits_nuts18", 18), pytest.param(("coco128", 128), marks=pytest.mark.slow)],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def real_dataset(request, shared_folder):
    """The first images of a folder of photos with masks; skipped if it is absent."""
    name, count = request.param
    folder = shared_folder(name)
    dataset = read_coco([str(folder / "instances.json")], str(folder / "images"), crowd="auto", boxes="reject")
    dataset.images = dataset.images[:count]
    return dataset
