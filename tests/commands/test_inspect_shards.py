"""What the inspector prints and draws, against shards whose content is known."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from solo_dist.config import GridConfig
from solo_dist.data.input.in_order import read_records
from solo_dist.data.schema import ShardError
from solo_dist.data.sharding import inspection
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.viz.overlay import colour_of

ROOT = Path(__file__).resolve().parent.parent.parent
GRID = GridConfig(levels=("p2", "p3"), sizes=(8, 4), scale_ranges=((1, 40), (30, 512)))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Four white images of 64x96; number i has i boxes of 32x32 in the same place, right of the middle."""
    folder = tmp_path_factory.mktemp("inspect")
    images, annotations = [], []
    for number in range(4):
        PIL.Image.new("RGB", (96, 64), "white").save(folder / f"{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "height": 64, "width": 96})
        for k in range(number):
            mask = [[60, 20, 92, 20, 92, 52, 60, 52]]
            values = {"id": 10 * number + k, "image_id": number, "category_id": 1 + k % 2, "segmentation": mask}
            annotations.append(values | {"bbox": [60, 20, 32, 32], "area": 1024, "iscrowd": 0})
    categories = [{"id": 1, "name": "pear"}, {"id": 2, "name": "quince"}, {"id": 3, "name": "medlar"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    settings = ShardSettings((64, 96), GRID)
    return shard_coco(ShardJob(f"{folder}/instances.json", str(folder), f"{folder}/shards", settings), 0, False)


def test_statistics_count_what_is_there(manifest):
    text = inspection.statistics(manifest, 4)
    assert "4 images x 1 augmented copies in 1 files, fitted into 64x96" in text
    assert "instances: 6, 1.5 an image, at most 3" in text
    # Of two boxes in one place the first loses its cells, of three the first two.
    assert "collisions: 3 instances lose cells to a later one, 3 of them all their cells; 0 instances have no" in text
    rows = {line.split()[0]: line.split()[1] for line in text.splitlines() if line.startswith("  ")}
    assert rows["pear"] == "4" and rows["quince"] == "2" and rows["medlar"] == "0"
    assert text.count("of 6 instances") == 2 and "1 categories have no instance" in text
    assert manifest.statistics["colliding"] == manifest.statistics["lost"] == 3
    assert [int(rows["p2"]), int(rows["p3"])] == manifest.statistics["positives_per_level"]
    assert "instances: 0," in inspection.statistics(manifest, 1)


@pytest.mark.parametrize("flipped", [False, True])
def test_pictures_show_masks_and_cells_where_they_are(manifest, tmp_path, flipped):
    paths = list(inspection.draw_images(manifest, 2, str(tmp_path / "drawn"), flipped))
    assert [Path(path).name for path in paths] == ["record_000000.png", "record_000003.png"]
    records = list(read_records(manifest))
    sheet = inspection.draw_record(records[1], manifest, flipped)
    width = (sheet.width - 8) // 3
    panels = [np.asarray(sheet)[:, i * (width + 4) : i * (width + 4) + width].astype(int) for i in range(3)]
    x, y = (76 if not flipped else 95 - 76) / 96, 36 / 64
    for panel in panels:
        point = panel[int(y * panel.shape[0]) + 3, int(x * width) + 3]
        assert np.abs(point - 255).sum() > 100, "coloured in the middle of the box"
        assert np.argsort(point).tolist() == np.argsort(colour_of(0)).tolist()
        mirrored = panel[int(y * panel.shape[0]) + 3, width - int(x * width) - 3]
        assert np.abs(mirrored - 255).sum() < 60, "white in the mirrored place"


def test_a_damaged_shard_is_named(manifest, tmp_path):
    path = Path(manifest.folder, manifest.files[0].name)
    intact = path.read_bytes()
    try:
        path.write_bytes(intact[:300] + b"\x00" + intact[301:])
        with pytest.raises(ShardError, match=f"{path.name} is damaged"):
            inspection.statistics(manifest, 4)
    finally:
        path.write_bytes(intact)


def test_the_program(manifest, tmp_path):
    command = [sys.executable, "-m", "solo_dist", "inspect", f"--shards={manifest.folder}"]
    done = subprocess.run([*command, f"--output={tmp_path}/o"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "instances by category" in done.stdout, done.stderr
    assert PIL.Image.open(tmp_path / "o" / "record_000000.png").width > 300
    assert len(list((tmp_path / "o").iterdir())) == 4, "all of the four, though eight are the default"
    done = subprocess.run([*command, "--num_images=1"], cwd=ROOT, capture_output=True, text=True)
    message = "error: --num_images needs --output, the folder to write to."
    assert done.returncode == 2 and done.stderr.strip() == message
