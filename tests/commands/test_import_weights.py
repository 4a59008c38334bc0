"""The import tool from the command line: an official checkpoint becomes one of ours."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from solo_dist.run.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent.parent
OFFICIAL = json.loads((ROOT / "tests" / "golden" / "state_dict_keys.json").read_text())


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "solo_dist", "import-weights", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def light(tmp_path_factory) -> Path:
    generator = np.random.default_rng(0)
    shapes = OFFICIAL["SOLOv2_Light_448_R50_3x"]["state_dict"]
    arrays = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    path = tmp_path_factory.mktemp("weights") / "light.safetensors"
    path.write_bytes(safetensors.numpy.save(arrays))
    return path


def test_official_light_model_is_imported_with_its_table(light, tmp_path):
    config = "--config=solov2_light_448_r50_fpn_3x"
    result = run(config, f"--input={light}", f"--output={tmp_path}/imported")
    assert result.returncode == 0, result.stderr
    assert "left over           0" in result.stdout and "missing             0" in result.stdout
    arrays, metadata = load_checkpoint(f"{tmp_path}/imported")
    assert len(metadata.categories) == 80 and metadata.categories[79] == {"id": 90, "name": "toothbrush"}
    assert sum(array.size for name, array in arrays.items() if "moving_" not in name) == 31_340_560
    theirs = safetensors.numpy.load(light.read_bytes())["bbox_head.solo_kernel.weight"]
    np.testing.assert_array_equal(arrays["model/solov2/head/kernel/kernel"], theirs.transpose(2, 3, 1, 0))
    again = run(config, f"--input={tmp_path}/imported", f"--output={tmp_path}/imported")
    assert again.returncode == 0, again.stderr


def test_a_folder_with_other_files_is_refused_and_kept(light, tmp_path):
    config = "--config=solov2_light_448_r50_fpn_3x"
    (tmp_path / "light.safetensors").write_bytes(light.read_bytes())
    result = run(config, f"--input={tmp_path}/light.safetensors", f"--output={tmp_path}/")
    assert result.returncode == 2
    assert f"error: --output={tmp_path}/ holds other files (light.safetensors), which would" in result.stderr
    assert f"for example --output={tmp_path}/imported." in result.stderr and "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["light.safetensors"]


def test_another_model_ends_with_one_line(light, tmp_path):
    result = run("--config=configs/shapes_tiny.py", f"--input={light}", f"--output={tmp_path}/imported")
    assert result.returncode == 2
    assert "  left over         " in result.stdout and "backbone/stage3/block5/conv3/kernel" in result.stdout
    assert "does not fit the model" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "imported").exists()
