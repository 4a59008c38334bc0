"""A drawn data set that collides: images of several sizes, objects on top of each other, some of hardly a pixel."""

import json

import numpy as np
import PIL.Image
import pytest

SIZES = ((90, 120), (120, 90), (64, 200), (100, 100))


@pytest.fixture(scope="session")
def crowded(tmp_path_factory):
    """A folder with images/ and instances.json: 12 images, one without objects; a crowd and a broken polygon."""
    folder = tmp_path_factory.mktemp("crowded")
    (folder / "images").mkdir()
    rng = np.random.default_rng(5)
    content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}]}
    for number in range(12):
        height, width = SIZES[number % len(SIZES)]
        PIL.Image.new("RGB", (width, height), (number, 90, 120)).save(folder / f"images/{number}.jpg")
        content["images"].append({"id": number, "file_name": f"{number}.jpg", "height": height, "width": width})
        for index in range(0 if number == 7 else 14):
            side = 1.2 if index == 0 else rng.uniform(3, 50)
            x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
            polygon = [x, y, x + side, y + side / 3, x + side / 2, y + side]
            content["annotations"].append(
                {
                    "image_id": number,
                    "category_id": int(rng.choice([3, 8])),
                    "segmentation": [polygon[:4] if index == 1 else polygon],
                    "iscrowd": int(index == 2 and number == 0),
                }
            )
    (folder / "instances.json").write_text(json.dumps(content))
    return folder
