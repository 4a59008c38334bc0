"""The list of published models from the command line."""

import os
import subprocess
import sys


def test_models_are_listed_with_recipe_and_place(tmp_path):
    (tmp_path / "solov2_r50_fpn_3x_coco_20220512_125856-fed092d4.pth").write_bytes(b"")
    environment = os.environ | {"SOLO_DIST_CACHE": str(tmp_path)}
    command = [sys.executable, "-X", "importtime", "-m", "solo_dist", "models", "--urls"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.startswith("mmdet:")}
    assert len(rows) == 11
    assert rows["mmdet:solov2_r50_fpn_3x"][1:] == ["solov2_r50_fpn_3x", "46,592,912", "37.5", "yes"]
    assert rows["mmdet:solov2_light_r18_fpn_3x"][1:] == ["solov2_light_448_r18_fpn_3x", "18,271,760", "29.7", "no"]
    assert "/solo/solo_r50_fpn_1x_coco/solo_r50_fpn_1x_coco_20210821_035055-2290a6b8.pth" in result.stdout
    assert "| tensorflow" not in result.stderr
