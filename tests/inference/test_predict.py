"""Prediction, evaluation and export from a run directory, through the command line as a user has it."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask
from tensorflow.core.protobuf import saved_model_pb2

from solo_dist.config import Config, DataConfig, GridConfig, PostprocessConfig
from solo_dist.data.sharding import shapes
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.data.tiling import Tiling
from solo_dist.errors import ConfigError, UserError
from solo_dist.exporting import saved_model
from solo_dist.inference import detector as inference
from solo_dist.inference import predict_files
from solo_dist.inference.tiled_evaluation import evaluate_in_tiles
from solo_dist.inference.tiles import detect_in_tiles
from solo_dist.run import checkpoint
from solo_dist.solo.network import build_model
from tests.distributed import tiny

ROOT = Path(__file__).resolve().parents[2]
CATEGORIES = [{"id": 4, "name": "disc"}, {"id": 9, "name": "square"}, {"id": 2, "name": "triangle"}]


def tiny_config() -> Config:
    return Config(
        name="tiny",
        data=DataConfig(canvas=(64, 96)),
        model=tiny.model(grid=GridConfig(levels=("p3", "p4"), sizes=(8, 6), scale_ranges=((1, 48), (32, 2048)))),
        # Low, so that a model that has learnt nothing finds something.
        postprocess=PostprocessConfig(score_threshold=0.001, update_threshold=0.001, max_detections=6),
    )


def save_run(workdir: Path, config: Config, seed: int = 0) -> None:
    """A run directory as the trainer leaves it, with random weights that make masks of all sizes."""
    tf.keras.utils.set_random_seed(seed)
    config.model.num_categories = len(CATEGORIES)
    model = build_model(config.model, config.data.canvas)
    rng = np.random.default_rng(seed)
    arrays = {}
    for variable in model.variables:
        value = variable.numpy()
        if value.ndim == 4:
            value = rng.normal(size=value.shape, scale=1.5 / np.sqrt(np.prod(value.shape[:3]))).astype(np.float32)
        arrays[f"model/{variable.path}"] = value
        arrays[f"optimizer/momentum/{variable.path}"] = np.zeros_like(value)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(config.to_json())
    metadata = checkpoint.CheckpointMetadata(step=30, categories=CATEGORIES)
    checkpoint.save_checkpoint(f"{workdir}/checkpoints/step_00000030", arrays, metadata)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_run(folder, tiny_config())
    return str(folder)


@pytest.fixture(scope="module")
def detector(workdir):
    return inference.load_detector(workdir, "latest", tiny_config())


def noise(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, [6, 8, 3]).astype(np.uint8)
    return np.asarray(PIL.Image.fromarray(small).resize((width, height), PIL.Image.Resampling.BICUBIC))


def run_program(*arguments: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    environment["CUDA_VISIBLE_DEVICES"] = "-1"
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_detector_finds_the_same_whatever_the_padding_and_at_the_original_size(detector):
    found = detector.detect_image(noise(101, 77))
    assert 1 < len(found.scores) <= 6
    assert found.masks.shape == (len(found.scores), 101, 77) and found.masks.dtype == bool
    assert (np.diff(found.scores) <= 0).all() and found.masks.any()
    assert set(found.classes) <= {0, 1, 2}


def test_a_small_image_is_one_tile(detector):
    image = noise(60, 90)
    found, tiled = detector.detect_image(image), detect_in_tiles(detector, image, Tiling(64, 96, 0.2))
    with_pixels = found.masks.any(axis=(1, 2))
    assert with_pixels.any() and (tiled.scores == found.scores[with_pixels]).all()
    assert (np.stack(tiled.masks) == found.masks[with_pixels]).all()


def test_large_images_in_tiles(detector, tmp_path):
    """Results have the size of the image, and shards of whole images can be evaluated in the same way."""
    PIL.Image.fromarray(noise(150, 200)).save(tmp_path / "large.png")
    tiling = Tiling(80, 120, 0.2)
    options = predict_files.Options(0.0, tiling=tiling, index_pngs=True)
    predict_files.predict_files(detector, [f"{tmp_path}/large.png"], f"{tmp_path}/out", options)
    results = json.loads((tmp_path / "out/coco_instances_results.json").read_text())
    assert results and all(one["segmentation"]["size"] == [150, 200] for one in results)
    assert PIL.Image.open(tmp_path / "out/large.png").size == (200, 150)
    assert PIL.Image.open(tmp_path / "out/large.jpg").size == (400, 300)  # enlarged for the labels

    shapes.make_shapes(str(tmp_path), "validation", 2, shapes.ShapesSettings(side=160))
    grid = tiny_config().model.grid
    for keep_original, output in ((True, "whole"), (False, "fitted")):
        settings = ShardSettings((64, 96), grid, keep_original)
        job = ShardJob(f"{tmp_path}/instances.json", f"{tmp_path}/images", f"{tmp_path}/{output}", settings)
        manifest = shard_coco(job, processes=0, progress=False)
        if keep_original:
            evaluator = evaluate_in_tiles(detector, manifest, tiling, manifest.categories)
            assert len(evaluator.image_ids) == 2 and evaluator.results and evaluator.metrics()["segm/AP"] >= 0
        else:
            with pytest.raises(ConfigError, match="fitted holds images fitted into the canvas; shard .* whole"):
                evaluate_in_tiles(detector, manifest, tiling, manifest.categories)


def test_moving_averages_take_the_place_of_the_weights():
    arrays = {"model/a": 1, "model/b": 2, "average/a": 3, "optimizer/momentum/a": 4, "step/sum/x": 5}
    assert checkpoint.inference_weights(arrays) == {"a": 3, "b": 2}


def test_checkpoint_of_another_architecture_is_refused(workdir):
    config = tiny_config()
    config.model.head_channels = 32
    with pytest.raises(checkpoint.CheckpointError, match="another architecture"):
        inference.load_detector(workdir, "latest", config)


@pytest.mark.parametrize("which", ["best", "/nowhere/step_00000001"])
def test_missing_checkpoint_is_named(workdir, which):
    with pytest.raises(checkpoint.CheckpointError, match=which):
        inference.load_detector(workdir, which, tiny_config())


def test_exported_model_finds_what_prediction_finds(detector, tmp_path):
    saved_model.write_saved_model(detector, str(tmp_path / "saved"))
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    for height, width in ((101, 77), (64, 96), (200, 310)):
        picture = noise(height, width, seed=height)
        found, exported = detector.detect_image(picture), served(image=tf.constant(picture[None]))
        assert len(found.scores) > 1
        np.testing.assert_allclose(exported["scores"][0], found.scores, rtol=1e-5)
        assert exported["categories"][0].numpy().tolist() == [CATEGORIES[i]["id"] for i in found.classes]
        names = [name.decode() for name in exported["names"][0].numpy()]
        assert names == [CATEGORIES[i]["name"] for i in found.classes]
        assert exported["masks"].shape == (1, len(found.scores), height, width)
        # Only pixels at the threshold may differ, by rounding.
        assert (exported["masks"][0].numpy() != found.masks).mean() < 1e-4


@pytest.mark.parametrize(
    ("choice", "compiled"),
    [
        ("auto", False),
        pytest.param("none", False, marks=pytest.mark.slow),
        pytest.param("loss", True, marks=pytest.mark.slow),
    ],
)
def test_exported_model_holds_nothing_for_xla_unless_the_recipe_says_so(workdir, tmp_path, choice, compiled):
    """TensorFlow Serving, for one, cannot run what XLA must compile."""
    config = tiny_config()
    config.runtime.compile = choice
    saved_model.write_saved_model(inference.load_detector(workdir, "latest", config), str(tmp_path / "saved"))
    model = saved_model_pb2.SavedModel.FromString((tmp_path / "saved" / "saved_model.pb").read_bytes())
    functions = model.meta_graphs[0].graph_def.library.function
    must = [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]
    must += [n.name for f in functions for n in f.node_def if n.attr["_XlaMustCompile"].b]
    assert bool(must) == compiled, must


def test_exported_model_of_a_picture_without_instances(tmp_path, workdir):
    config = tiny_config()
    config.postprocess.score_threshold = 1.0
    module = saved_model.ServedDetector(inference.load_detector(workdir, "latest", config))
    found = module(tf.constant(noise(50, 40)[None]))
    assert found["masks"].shape == (1, 0, 50, 40) and found["scores"].shape == (1, 0)


def test_predict_writes_overlays_and_results_and_names_bad_pictures(workdir, tmp_path):
    (tmp_path / "a b").mkdir()
    PIL.Image.fromarray(noise(80, 120)).save(tmp_path / "a b" / "first ä.png")
    PIL.Image.fromarray(noise(80, 120)[..., 0]).save(tmp_path / "a b" / "grey.jpg")
    rotated = PIL.Image.fromarray(noise(60, 90))
    exif = rotated.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    rotated.save(tmp_path / "a b" / "rotated.jpg", exif=exif)
    (tmp_path / "a b" / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (tmp_path / "a b" / "empty.jpg").write_bytes(b"")
    output = tmp_path / "out"
    images = f"--images={tmp_path}/a b/*"
    done = run_program(
        "solo_dist.predict", f"--workdir={workdir}", images, f"--output={output}", "--score_threshold=0.0"
    )
    assert done.returncode == 1, done.stderr
    assert "broken.jpg" in done.stderr and "empty.jpg" in done.stderr and "2 of 5" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in output.iterdir()} == {
        "first ä.jpg",
        "grey.jpg",
        "rotated.jpg",
        "coco_instances_results.json",
    }
    assert PIL.Image.open(output / "rotated.jpg").height > PIL.Image.open(output / "rotated.jpg").width
    results = json.loads((output / "coco_instances_results.json").read_text())
    assert {Path(result["file_name"]).name for result in results} == {"first ä.png", "grey.jpg", "rotated.jpg"}
    for result in results:
        size = (90, 60) if "rotated" in result["file_name"] else (80, 120)
        assert coco_mask.decode(result["segmentation"]).shape == size
        assert result["category_id"] in (4, 9, 2) and 0 <= result["score"] <= 1


def test_overlays_of_equal_names_get_numbers():
    assert predict_files.output_names(["a/x.png", "b/x.jpg", "c/y.jpg"]) == ["x", "x_2", "y"]


@pytest.mark.parametrize("program", ["predict", "evaluate", "export"])
def test_help_comes_without_tensorflow(program):
    code = (
        "import runpy, sys\n"
        "sys.addaudithook(lambda event, names: event == 'import' and names[0] in ('tensorflow', 'keras') and exit(9))\n"
        f"sys.argv = ['x', '--helpshort']; runpy.run_module('solo_dist.{program}', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr  # absl's code after help; 9 would be the hook's
    text = run_program(f"solo_dist.{program}", "--helpshort").stdout
    assert text.count(f"solo-dist {program} --workdir=") >= 3


RECIPE_AND = ["--workdir=x", "--config=configs/shapes_tiny.py"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--workdir=/nowhere/run"], "There is no run in /nowhere/run"),
        (["--workdir=x", "--config.postprocess.max_detektions=3"], "did you mean max_detections"),
        (["--workdir=x", "--config=configs/shapes_tiny.py", "--config.train.steps=x"], "config.train.steps"),
        (["--workdir=x", "--config=configs/absent.py"], "configs/absent.py"),
        (["--workdir=x", "--config=configs/shapes_tiny.py", "--chekpoint=best"], "chekpoint"),
        (RECIPE_AND + ["--config.data.augment.flip", "False"], "unexpected arguments False"),
        (RECIPE_AND + ["--config.data.canvas=448x768"], "must be height, width, for example 448,768"),
        (RECIPE_AND + ["--config.data.augment.scale=0.5"], "0 < smallest <= largest, for example 0.8,1.2"),
        (RECIPE_AND + ["--config.data.augment.short_sides="], "must be lengths"),
        ([], "--workdir must be given"),
    ],
)
def test_mistakes_get_one_line(tmp_path, arguments, message):
    done = run_program("solo_dist.export", *arguments, f"--output={tmp_path}/out")
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) <= 2, done.stderr


def test_pictures_are_not_replaced_by_their_overlays(detector, tmp_path):
    path = tmp_path / "one.jpg"
    PIL.Image.fromarray(noise(40, 50)).save(path)
    before = path.read_bytes()
    (tmp_path.parent / "link").symlink_to(tmp_path)
    for output in (f"{tmp_path}/.", os.path.relpath(tmp_path), str(tmp_path.parent / "link")):
        with pytest.raises(UserError, match=f"has images in it, such as {path}; choose another folder"):
            predict_files.predict_files(detector, [str(path)], output, predict_files.Options())
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_images_of_a_folder_a_file_or_a_pattern(tmp_path):
    folder = tmp_path / "my [best] photos"
    folder.mkdir()
    for name in ("b.JPG", "a.tif", "notes.txt", "c.png.bak"):
        (folder / name).write_bytes(b"x")
    both = [f"{folder}/a.tif", f"{folder}/b.JPG"]
    assert predict_files.find_images(str(folder)) == predict_files.find_images(f"{folder}/") == both
    assert predict_files.find_images(both[0]) == both[:1]
    assert predict_files.find_images(f"{folder}/*.JPG") == both[1:]
    with pytest.raises(UserError, match="is a folder without an image"):
        predict_files.find_images(str(tmp_path))


def test_pattern_without_a_match_is_named(tmp_path):
    with pytest.raises(UserError, match="nothing_here"):
        predict_files.find_images(f"{tmp_path}/nothing_here*.jpg")


def test_a_published_model_needs_no_run(tmp_path, file_server, cache, write_pth):
    """The names and shapes of mmdetection's smallest model, from a local server, over a photo-sized image."""
    lists = gzip.decompress((ROOT / "tests" / "golden" / "mmdet3_state_dict_keys.json.gz").read_bytes())
    shapes = json.loads(lists)["solov2-light_r18_fpn_ms-3x_coco"]["state_dict"]
    generator = np.random.default_rng(0)
    content = write_pth({name: generator.uniform(0, 0.1, shape).astype(np.float32) for name, shape in shapes})
    name = f"light-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (file_server.folder / name).write_bytes(content)
    PIL.Image.fromarray(noise(120, 160)).save(tmp_path / "photo.png")
    outputs = (f"--images={tmp_path}/photo.png", f"--output={tmp_path}/out")
    model = f"--model={file_server.url}/{name}"
    done = run_program("solo_dist.predict", "--config=solov2_light_448_r18_fpn_3x", model, *outputs)
    assert done.returncode == 0, done.stderr
    assert f"downloading {file_server.url}/{name} to {cache}" in done.stderr and (cache / name).exists()
    assert (tmp_path / "out" / "photo.jpg").exists()
    assert f"in 1 images, from {file_server.url}/{name}" in done.stdout


def test_without_network_a_published_model_says_where_its_file_belongs(tmp_path, cache, monkeypatch):
    PIL.Image.fromarray(noise(12, 16)).save(tmp_path / "photo.png")
    monkeypatch.setenv("SOLO_DIST_MMDET_URL", "http://127.0.0.1:9")
    outputs = (f"--images={tmp_path}/photo.png", f"--output={tmp_path}/out")
    done = run_program("solo_dist.predict", "--model=mmdet:solov2_light_r18_fpn_3x", *outputs)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    file = "solov2_light_r18_fpn_3x_coco_20220511_083717-75fa355b.pth"
    assert f"get {file} elsewhere and put it at {cache}/{file}" in done.stderr
    done = run_program("solo_dist.predict", *outputs)
    assert done.returncode == 2 and "give --workdir=RUN" in done.stderr


def test_only_the_images_that_a_json_lists(tmp_path):
    listed = {"images": [{"file_name": name} for name in ("sub/b.jpg", "a c.jpg")], "annotations": [], "categories": []}
    (tmp_path / "validation.json").write_text(json.dumps(listed))
    found = predict_files.listed_images(f"{tmp_path}/validation.json", "photos/")
    assert found == ["photos/a c.jpg", "photos/sub/b.jpg"]
