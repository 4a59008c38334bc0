"""Exports: what is written, that it finds what the model finds, and that a bad one is refused with the figures."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from solo_dist.benchmarks import exports
from solo_dist.config import Config, DataConfig, GridConfig, PostprocessConfig
from solo_dist.data.geometry import letterbox
from solo_dist.data.sharding import job as sharding
from solo_dist.data.sharding import records, shapes
from solo_dist.errors import ConfigError, ExportFailed
from solo_dist.exporting import job, parity
from solo_dist.exporting.description import describe
from solo_dist.exporting.pairs import choose_pairs, most_pairs, with_margin
from solo_dist.exporting.settings import ExportSettings
from solo_dist.exporting.shipped import decode, detect
from solo_dist.exporting.warmup import prediction_log
from solo_dist.inference import detector as inference
from solo_dist.run import checkpoint
from solo_dist.solo.network import build_model
from tests.distributed import tiny
from tests.inference.test_predict import noise

WARMUP = "assets.extra/tf_serving_warmup_requests"
ROOT = Path(__file__).resolve().parents[2]
GRID = GridConfig(levels=("p3", "p4"), sizes=(8, 6), scale_ranges=((1, 48), (32, 2048)))
RUNTIMES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Nine images of shapes, sharded, and a run with random weights that make masks of all sizes."""
    folder = tmp_path_factory.mktemp("export")
    shapes.make_shapes(str(folder / "data"), "validation", 9, shapes.ShapesSettings(side=96))
    settings = records.ShardSettings((64, 96), GRID)
    data, shards = folder / "data", f"{folder}/shards"
    sharding.shard_coco(
        sharding.ShardJob(f"{data}/instances.json", f"{data}/images", shards, settings), processes=0, progress=False
    )
    config = Config(
        name="tiny",
        data=DataConfig(train=shards, validation=shards, canvas=(64, 96), max_instances=8, max_positives=64),
        model=tiny.model(num_categories=3, grid=GRID),
        # Low, so that a model that has learnt nothing finds something.
        postprocess=PostprocessConfig(score_threshold=0.001, update_threshold=0.001, max_detections=6),
    )
    rng = np.random.default_rng(0)
    model = build_model(config.model, config.data.canvas)
    arrays = {f"model/{variable.path}": variable.numpy() for variable in model.variables}
    for name, value in arrays.items():
        if value.ndim == 4:
            arrays[name] = rng.normal(size=value.shape, scale=1.5 / np.sqrt(np.prod(value.shape[:3]))).astype("f4")
    categories = json.loads((folder / "data" / "instances.json").read_text())["categories"]
    (folder / "config.json").write_text(config.to_json())
    checkpoint.save_checkpoint(
        f"{folder}/checkpoints/step_00000030", arrays, checkpoint.CheckpointMetadata(step=30, categories=categories)
    )
    return folder


@pytest.fixture
def detector(folder):
    return inference.load_detector(str(folder), "latest", Config.from_json((folder / "config.json").read_text()))


def export(detector, folder, settings, **options):
    arguments = {"check_images": 4, "max_ap_drop": 0.005, "calibration": 4} | options
    return job.export(detector, settings, str(folder), **arguments)


def assert_finds_the_same(detector, model, run, score_tolerance=1e-4):
    """On images of any size, through the file that travels with an export."""
    for height, width in ((101, 77), (300, 215)):
        image = noise(height, width, seed=height)
        expected, (scores, categories, masks) = detector.detect_image(image), detect.detect(model, run, image)
        assert len(expected.scores) == len(scores) > 1
        np.testing.assert_allclose(scores, expected.scores, atol=score_tolerance)
        assert categories.tolist() == expected.classes.tolist()
        assert (masks != expected.masks).mean() < 1e-3


# --- what travels with a model


@pytest.mark.parametrize("size", [(64, 96), (101, 77), (128, 192), (300, 215), (1000, 1501)])
def test_the_canvas_of_detect_py_is_that_of_training(size):
    image = noise(*size, seed=size[0])
    canvas, fitted = detect.letterbox(image, (64, 96), (124, 116, 104))
    expected, expected_size = letterbox(tf.constant(image), (64, 96))
    assert fitted == expected_size.numpy().tolist()
    differences = np.abs(canvas.astype(int) - expected.numpy().astype(int))
    assert differences.max() <= 1 and (differences > 0).mean() < 1e-3


def test_decode_py_finds_in_raw_outputs_what_the_model_finds(detector):
    canvases = tf.constant(np.stack([letterbox(tf.constant(noise(64, 96, seed)), (64, 96))[0] for seed in range(3)]))
    raw = {name: value.numpy() for name, value in inference.raw_outputs(detector.model, canvases).items()}
    expected = {name: value.numpy() for name, value in detector.detect(canvases).items()}
    found = decode.decode(raw, describe(detector, ExportSettings("tflite", "int8", "raw")))
    assert found["count"].tolist() == expected["count"].tolist() and min(found["count"]) > 1
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
    for i, count in enumerate(expected["count"]):
        assert found["categories"][i, :count].tolist() == expected["categories"][i, :count].tolist()
        masks = (arrays["mask_probabilities"][i, :count] for arrays in (found, expected))
        np.testing.assert_allclose(*masks, atol=1e-4)


def test_decode_py_of_nothing_is_nothing(detector):
    canvases = tf.zeros([1, 64, 96, 3], tf.uint8)
    raw = {name: value.numpy() for name, value in inference.raw_outputs(detector.model, canvases).items()}
    raw["category_logits"][:] = -20
    found = decode.decode(raw, describe(detector, ExportSettings("tflite", "int8", "raw")))
    assert found["count"].tolist() == [0] and not found["scores"].any()


def test_detect_py_can_be_read_in_one_sitting():
    for module in (detect, decode):
        assert len(Path(module.__file__).read_text().splitlines()) <= 150


# --- formats


def test_tflite_finds_what_the_model_finds_with_built_in_operators_only(detector, folder, tmp_path):
    report = export(detector, tmp_path, ExportSettings("tflite", batch=2))
    assert report["images"] == 4 and abs(report["ap_drop"]) < 1e-6
    assert report["largest_differences"]["unmatched"] == 0 and report["largest_differences"]["detections"] > 4
    assert report["largest_differences"]["score"] < 1e-4
    assert report["most_pairs_of_an_image"] <= report["pairs"]
    assert json.loads((tmp_path / "report.json").read_text()) == report
    interpreter = tf.lite.Interpreter(str(tmp_path / "model.tflite"))
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert "TOPK_V2" in operators
    assert not [name for name in operators if name.startswith(("Flex", "CUSTOM", "WHILE", "IF"))]
    inside = json.loads(zipfile.ZipFile(tmp_path / "model.tflite").read("model.json"))
    assert inside == json.loads((tmp_path / "model.json").read_text())
    assert inside["labels"] == detector.categories and inside["step"] == 30 and len(inside["weights_sha256"]) == 64
    assert_finds_the_same(detector, *detect.load_model(tmp_path))


def test_onnx_finds_what_the_model_finds_and_fails_with_the_figures_if_that_is_not_enough(detector, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with pytest.raises(ExportFailed, match=r"on 4 validation images, the model .* above --max_ap_drop=-0\.1"):
        export(detector, tmp_path, ExportSettings("onnx", pairs=300), max_ap_drop=-0.1)
    report = json.loads((tmp_path / "report.json").read_text())
    assert abs(report["ap_drop"]) < 1e-6 and report["largest_differences"]["score"] < 1e-4
    model = onnx.load(tmp_path / "model.onnx")
    assert [opset.version for opset in model.opset_import if not opset.domain] == [17]
    assert {properties.key for properties in model.metadata_props} == {"model.json"}
    assert_finds_the_same(detector, *detect.load_model(tmp_path))


@pytest.mark.slow
def test_saved_model_takes_canvases_in_batches_and_encoded_images(detector, tmp_path):
    shards, detector.config.data.validation = detector.config.data.validation, f"{tmp_path}/nothing"
    assert f"{tmp_path}/nothing" in export(detector, tmp_path, ExportSettings()), "the reason why there is no report"
    detector.config.data.validation = shards
    report = parity.check(detector, ExportSettings(), str(tmp_path), images=4)
    assert abs(report["ap_drop"]) < 1e-6 and report["largest_differences"]["score"] < 1e-4
    assert_finds_the_same(detector, *detect.load_model(tmp_path))
    image = noise(101, 77)
    data = tf.io.encode_jpeg(image, quality=95)
    decoded = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE")
    served = tf.saved_model.load(str(tmp_path)).signatures
    of_bytes, of_pixels = served["jpeg"](image_bytes=data[None]), served["serving_default"](image=decoded[None])
    assert of_bytes["masks"].shape == of_pixels["masks"].shape and of_bytes["scores"].shape[1] > 1
    assert all(np.array_equal(of_bytes[name], of_pixels[name]) for name in of_pixels)
    asked = [warmup_request(record) for record in tf.data.TFRecordDataset(str(tmp_path / WARMUP)).as_numpy_iterator()]
    assert {signature for signature, _ in asked} == set(served)
    for signature, inputs in asked:
        assert "scores" in served[signature](**{name: tf.constant(value) for name, value in inputs.items()})


def warmup_request(record):
    """Signature and inputs of a tensorflow.serving.PredictionLog, read field by field."""
    request = fields(fields(record)[6][0])[1][0]
    (signature,) = fields(fields(request)[1][0])[3]
    inputs = {}
    for entry in fields(request)[2]:
        name, value = fields(entry)[1][0], fields(entry)[2][0]
        inputs[name.decode()] = tf.make_ndarray(tensor_pb2.TensorProto.FromString(value))
    return signature.decode(), inputs


def fields(message):
    """Length-delimited fields of a protobuf message, by number."""
    found, place = {}, 0
    while place < len(message):
        key, place = message[place], place + 1
        assert key & 7 == 2
        length = shift = 0
        while True:
            byte, place = message[place], place + 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        found.setdefault(key >> 3, []).append(message[place : place + length])
        place += length
    return found


def test_requests_that_serving_sends_itself_are_as_its_protocol_says():
    image = np.arange(300, dtype=np.uint8).reshape(1, 10, 10, 3)
    signature, inputs = warmup_request(prediction_log("canvas", {"image": image, "other": b"x" * 200}))
    assert signature == "canvas" and np.array_equal(inputs["image"], image) and inputs["other"].tolist() == [b"x" * 200]


# --- pairs that get a mask


def test_pairs_are_counted_on_the_first_validation_images(detector):
    sizes, threshold = detector.config.model.grid.sizes, detector.config.postprocess.score_threshold
    (canvases,) = job.representative_canvases(detector, 9, 9)  # training and validation shards are the same
    logits = inference.raw_outputs(detector.model, tf.constant(canvases))["category_logits"].numpy()
    counts = [(decode.points_nms(decode.sigmoid(image), sizes) > threshold).sum() for image in logits]
    assert len(counts) == 9 and most_pairs(detector, 9) == max(counts) > 10
    detector.config.data.validation = ""
    assert choose_pairs(detector, 9) == choose_pairs(detector, 0) == 500


def test_pairs_have_a_margin():
    rules = PostprocessConfig(max_candidates=500, max_detections=100)
    assert [with_margin(most, rules) for most in (0, 10, 60, 130, 400, 501)] == [100, 100, 150, 300, 500, 550]


# --- the check


def test_differences_are_those_of_the_same_instances_in_any_order():
    masks = np.zeros([3, 8, 8], np.float32)
    masks[0, :4], masks[1, 4:], masks[2, :, :3] = 0.9, 0.8, 0.7
    ours = {
        "scores": np.float32([0.9, 0.8, 0.5]),
        "categories": np.array([0, 0, 1]),
        "mask_probabilities": masks,
        "count": 3,
    }
    other = masks[[1, 0, 2]].copy()
    other[0, 4, 0] = 0.45
    theirs = {
        "scores": np.float32([0.84, 0.9, 0.3]),
        "categories": np.array([0, 0, 1]),
        "mask_probabilities": other,
        "count": 3,
    }
    found = parity.Differences()
    found.add(ours, theirs, 0.5)
    # The third has another score: one only the model has, and one only the export.
    assert (found.detections, found.unmatched, found.mask_pixels) == (3, 2, 1)
    assert found.score == pytest.approx(0.04, abs=1e-6)
    assert found.mask_probability == pytest.approx(0.35)


@pytest.mark.slow
def test_exports_are_shown_side_by_side(detector, tmp_path):
    kinds = [("savedmodel", "float32", "detections"), ("tflite", "float32", "detections"), ("tflite", "int8", "raw")]
    rows = exports.compare(detector, str(tmp_path), kinds, pairs=500, images=4, rounds=1)
    assert set(rows) == {exports.MODEL, exports.STATIC, "savedmodel", "tflite_float32", "tflite_int8_raw"}
    for name in ("savedmodel", "tflite_float32"):
        assert rows[name]["unmatched"] == 0 and rows[name]["ap"] == pytest.approx(rows[exports.MODEL]["ap"])
    assert set(rows["tflite_float32"]["milliseconds"]) == {"1", "all"}
    assert len(exports.format_rows(rows).splitlines()) == 2 + len(rows)
    detector.config.postprocess.one_category = True
    rows = exports.compare(detector, str(tmp_path), kinds[1:2], pairs=500, images=4, rounds=1)
    assert "one_category needs a loop" in rows["tflite_float32"]["failed"]
    assert "one_category needs a loop" in exports.format_rows(rows)


# --- mistakes


@pytest.mark.parametrize(
    "settings, message",
    [
        (("onnx", "int8", "raw"), "--precision=int8 is not there for --format=onnx; it can be float32, float16"),
        (("tflite", "int8", "detections"), "--precision=int8 needs --outputs=raw"),
        (("savedmodel", "float32", "raw"), "--format=tflite and --format=onnx"),
    ],
)
def test_combinations_that_there_are_not_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ExportSettings(*settings)


def test_raw_outputs_of_another_member_are_refused(detector, tmp_path):
    detector.config.model.head = "solo"
    with pytest.raises(ConfigError, match="--outputs=raw is there for model.head=solov2, not solo"):
        export(detector, tmp_path, ExportSettings("tflite", "float32", "raw"))


def test_int8_without_images_names_the_option(detector, tmp_path):
    detector.config.data.train = ""
    with pytest.raises(ConfigError, match="--config.data.train=SHARDS"):
        list(job.representative_canvases(detector, 1, 4))


def test_a_canvas_that_does_not_fit_gets_one_line(folder):
    done = subprocess.run(
        [sys.executable, "-m", "solo_dist.export", f"--workdir={folder}", "--format=tflite", "--canvas=100x100"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2 and "--canvas=100x100 must be HEIGHTxWIDTH in multiples of 32" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# --- elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tflite-float32", "tflite-int8-raw", "onnx-float32", "onnx-float16-raw"])
def test_exports_run_in_an_environment_without_tensorflow(detector, tmp_path, kind):
    settings = ExportSettings(*kind.split("-"))
    export(detector, tmp_path / "export", settings, max_ap_drop=1.0)
    PIL.Image.fromarray(noise(101, 77)).save(tmp_path / "photo.png")
    python = tmp_path / "venv" / "bin" / "python"
    packages = [RUNTIMES[settings.format], *(["openvino"] if settings.format == "onnx" else []), "numpy", "pillow"]
    for command in (
        [sys.executable, "-m", "venv", str(tmp_path / "venv")],
        [str(python), "-m", "pip", "install", "--quiet", *packages],
    ):
        subprocess.run(command, check=True, timeout=550)
    for runtime in ["", *(["openvino"] if settings.format == "onnx" else [])]:
        done = subprocess.run(
            [python, tmp_path / "export" / "detect.py", "photo.png", "--score_threshold=0", f"--runtime={runtime}"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found, expected = np.load(tmp_path / "photo_instances.npz"), detector.detect_image(noise(101, 77))
        if settings.precision == "float32":
            np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-4)
            assert (found["masks"] != expected.masks).mean() < 1e-3
        assert found["masks"].shape[1:] == (101, 77)
        assert PIL.Image.open(tmp_path / "photo_overlay.png").size == (77, 101)
