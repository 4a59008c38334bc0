"""Many images at once, shards of them, index PNGs and videos, against one image after another."""

import concurrent.futures
import io
import json

import numpy as np
import PIL.Image
import pytest

from solo_dist.errors import ConfigError
from solo_dist.inference import predict_files, videos
from solo_dist.inference.detector import Found, load_detector
from solo_dist.inference.image_results import coco_results, draw, index_png, jpeg
from solo_dist.inference.overlap import in_order
from solo_dist.inference.predict_files import Options
from solo_dist.viz.overlay import colour_of
from tests.inference.test_predict import noise, save_run, tiny_config

RESULTS = "coco_instances_results.json"
SIZES = ((80, 120), (60, 90), (101, 77), (64, 96), (33, 200))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_run(folder, tiny_config())
    return load_detector(str(folder), "latest", tiny_config())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five images and a file that is none, by path."""
    folder = tmp_path_factory.mktemp("images")
    made = {}
    for number, size in enumerate(SIZES):
        path = folder / f"{number}.png"
        made[str(path)] = noise(*size, seed=number)
        PIL.Image.fromarray(made[str(path)]).save(path)
    (folder / "2_broken.jpg").write_bytes(b"\xff\xd8 not an image")
    made[f"{folder}/2_broken.jpg"] = None
    return {path: made[path] for path in sorted(made)}


def results_in(path):
    return json.loads(path.read_text())


def expected_results(detector, images, least):
    """One image after another, with every mask pasted, and the low scores left out at the end."""
    results = []
    for number, (path, image) in enumerate(images.items(), start=1):
        if image is not None:
            found = detector.detect_image(image)
            kept = (found.scores >= least) & found.masks.any(axis=(1, 2))
            found = Found(*(values[kept] for values in found))
            results += coco_results(found, number, path, detector.categories)
    return results


def median_score(detector, images):
    return float(np.median([entry["score"] for entry in expected_results(detector, images, 0.0)]))


def test_images_that_overlap_give_what_one_after_another_gives(detector, images, tmp_path):
    least = median_score(detector, images)
    summary = predict_files.predict_files(detector, list(images), str(tmp_path), Options(least, batch=1))
    assert results_in(tmp_path / RESULTS) == expected_results(detector, images, least)
    assert [path for path, _ in summary.unreadable] == [path for path, image in images.items() if image is None]
    assert (summary.images, summary.instances) == (5, len(results_in(tmp_path / RESULTS)))
    path, image = list(images.items())[0]
    found = detector.detect_image(image)
    kept = found.scores >= least
    drawn = jpeg(draw(image, Found(*(values[kept] for values in found)), detector.categories))
    assert kept.any() and (tmp_path / "0.jpg").read_bytes() == drawn
    assert len(list(tmp_path.glob("*.jpg"))) == 5


def test_batches_and_shards_find_the_same(detector, images, tmp_path):
    expected = expected_results(detector, images, 0.0)
    found = []
    for shard in ((1, 2), (2, 2)):
        predict_files.predict_files(detector, list(images), str(tmp_path), Options(0.0, batch=2, shard=shard))
        found += results_in(tmp_path / f"coco_instances_results_{shard[0]}_of_2.json")
    found.sort(key=lambda entry: entry["image_id"])
    assert len({entry["image_id"] for entry in found}) == 5
    # Convolutions of a batch may round otherwise.
    for one, other in zip(found, expected, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        assert {**one, "score": 0, "segmentation": 0} == {**other, "score": 0, "segmentation": 0}
        assert one["segmentation"]["size"] == other["segmentation"]["size"]


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/", "-1/2", ""])
def test_shards_that_there_are_not_are_refused(text):
    with pytest.raises(ConfigError, match=f"--shard={text} must be i/n"):
        predict_files.parse_shard(text)


def test_large_canvases_come_in_small_batches():
    assert [predict_files.default_batch(side) for side in ((256, 256), (512, 768), (800, 1344))] == [8, 5, 1]


def test_results_are_in_order_and_work_ahead_is_bounded():
    costs, started, asked = [3, 1, 1, 9, 2, 2, 2], [], []

    def work(number):
        started.append(number)
        return number

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for number in in_order(pool, work, range(len(costs)), 4, costs.__getitem__):
            asked.append(number)
            ahead = [costs[i] for i in started if i not in asked]
            assert sum(ahead) <= 4 or len(ahead) == 1
        assert asked == list(range(len(costs)))
        with pytest.raises(ZeroDivisionError):
            list(in_order(pool, lambda number: 1 // number, [1, 0, 2], 9, lambda _: 1))


def test_index_pngs_hold_the_number_of_the_best_instance():
    masks = np.zeros([3, 8, 10], bool)
    masks[0, :4], masks[1, 2:6], masks[2, :, 9] = True, True, True
    image = PIL.Image.open(io.BytesIO(index_png(Found(np.zeros(3), np.zeros(3, int), masks), masks.shape[1:])))
    values = np.asarray(image)
    assert image.mode == "P" and image.size == (10, 8)
    assert (values[:4] == 1).all() and (values[4:6] == 2).all() and (values[6:, 9] == 3).all()
    assert not values[6:, :9].any()
    assert image.convert("RGB").getpixel((0, 5)) == colour_of(1)
    many = np.zeros([300, 20, 20], bool)
    many.reshape(300, 400)[np.arange(300), np.arange(300)] = True
    values = np.asarray(
        PIL.Image.open(io.BytesIO(index_png(Found(np.zeros(300), np.zeros(300, int), many), many.shape[1:])))
    )
    assert values.max() == 300 and values.reshape(-1)[270] == 271


def test_index_pngs_are_written_beside_overlays(detector, images, tmp_path):
    path = list(images)[0]
    predict_files.predict_files(detector, [path], str(tmp_path), Options(0.0, index_pngs=True))
    assert PIL.Image.open(tmp_path / "0.png").size == PIL.Image.open(path).size


def test_a_cut_off_gif_is_an_image_or_a_video(tmp_path):
    frames = [PIL.Image.fromarray(noise(21, 31, seed)).quantize(64) for seed in range(3)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    content, path = (tmp_path / "clip.gif").read_bytes(), tmp_path / "cut.gif"
    for length in range(1, len(content), 11):  # Pillow raises five kinds of errors, depending on the place
        path.write_bytes(content[:length])
        videos.is_video(str(path))


# imageio-ffmpeg leaves the pipes of an ffmpeg that has ended to the garbage collector, which runs in our code.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_videos_are_predicted_frame_by_frame(detector, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = [PIL.Image.fromarray(noise(61, 91, seed)).quantize(64) for seed in range(5)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=40, loop=0)
    frames[0].save(tmp_path / "still.gif")
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    paths = predict_files.find_images(str(tmp_path))
    assert len(paths) == 3
    out = tmp_path / "out"
    summary = predict_files.predict_files(detector, paths, str(out), Options(0.0, batch=2))
    assert summary.unreadable == [(f"{tmp_path}/broken.mp4", "video does not decode")]
    assert summary.images == 6
    results = results_in(out / f"clip_{RESULTS}")
    for number, frame in enumerate(frames, start=1):
        scores = [entry["score"] for entry in results if entry["image_id"] == number]
        found = detector.detect_image(np.asarray(frame.convert("RGB")))
        np.testing.assert_allclose(scores, found.scores[found.masks.any(axis=(1, 2))], atol=1e-5)
    written = imageio_ffmpeg.read_frames(str(out / "clip.mp4"))
    about = next(written)
    assert about["fps"] == 25 and len(list(written)) == 5
    assert about["size"][0] % 2 == about["size"][1] % 2 == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([RESULTS, "still.jpg", "clip.mp4", f"clip_{RESULTS}"])
    # An mp4 goes in as well.
    again = predict_files.predict_files(detector, [str(out / "clip.mp4")], str(tmp_path / "again"), Options(0.0))
    assert again.images == 5
