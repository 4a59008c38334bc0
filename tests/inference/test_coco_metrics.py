"""Evaluation: results at the original size, the metrics, and the ceiling of quarter resolution."""

import contextlib
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from solo_dist.data.schema import NO_IMAGE
from solo_dist.inference import coco_metrics, coco_results
from solo_dist.inference.ceiling import ceiling_at_quarter_resolution
from solo_dist.masks.rle import segmentation_to_rle

CATEGORIES = [{"id": 7, "name": "disc"}, {"id": 9, "name": "box"}]


def disc(height, width, y, x, radius):
    rows, columns = np.ogrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_masks_are_encoded_as_pycocotools_does(share):
    generator = np.random.default_rng(0)
    masks = np.stack([generator.random([7, 9]) < share for _ in range(50)])
    masks[25:, :, [0, 1, 5, 8]] &= generator.random([25, 1, 4]) < 0.5  # empty columns
    for mask, rle in zip(masks, coco_results.encode_masks(masks), strict=True):
        expected = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert rle == {"size": [7, 9], "counts": expected["counts"].decode()}


def dataset():
    """Three images of 120x200 with discs of several sizes, a crowd, and one image without an instance."""
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 120, "width": 200} for i in (3, 5, 8)]
    masks = [
        (3, 7, disc(120, 200, 40, 40, 30), 0),
        (3, 9, disc(120, 200, 70, 150, 12), 0),
        (5, 7, disc(120, 200, 60, 100, 55), 0),
        (5, 7, disc(120, 200, 20, 180, 9), 1),
    ]
    annotations = []
    for number, (image, category, mask, crowd) in enumerate(masks, start=1):
        rle = coco_results.encode_masks(mask[None])[0]
        box = coco_mask.toBbox(rle).tolist()
        annotations.append(
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "segmentation": rle,
                "area": float(mask.sum()),
                "bbox": box,
                "iscrowd": crowd,
            }
        )
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}, masks


def perfect_results(annotations, score=0.9):
    return [
        {key: entry[key] for key in ("image_id", "category_id", "segmentation")} | {"score": score}
        for entry in annotations
        if not entry["iscrowd"]
    ]


def test_perfect_results_have_ap_one_and_a_crowd_does_not_count():
    data, _ = dataset()
    evaluator = coco_metrics.CocoEvaluator(data)
    evaluator.add(perfect_results(data["annotations"]), [3, 5, 8])
    # A detection on the crowd is neither right nor wrong.
    crowd = {"image_id": 5, "category_id": 7, "segmentation": data["annotations"][3]["segmentation"], "score": 0.95}
    evaluator.add([crowd], [])
    metrics = evaluator.metrics()
    assert metrics["segm/AP"] == metrics["segm/AP75"] == metrics["segm/AR100"] == pytest.approx(1.0)
    assert metrics["segm/APs"] == pytest.approx(1.0) and metrics["segm/APm"] == pytest.approx(1.0)
    assert set(metrics) == {f"segm/{name}" for name in coco_metrics.METRICS}
    assert "area" not in evaluator.results[0], "results are for the json and must stay as they were given"


def test_ids_of_annotations_may_count_from_0():
    data, _ = dataset()
    for number, annotation in enumerate(data["annotations"]):
        annotation["id"] = number
    evaluator = coco_metrics.CocoEvaluator(data)
    evaluator.add(perfect_results(data["annotations"]), [3, 5, 8])
    assert evaluator.metrics()["segm/AP"] == pytest.approx(1.0)
    assert [annotation["id"] for annotation in data["annotations"]] == list(range(len(data["annotations"])))


def test_metrics_are_those_of_pycocotools():
    data, masks = dataset()
    rng = np.random.default_rng(0)
    results = []
    for image, category, mask, _ in masks:
        for shift in (0, 4, 9):
            rle = coco_results.encode_masks(np.roll(mask, shift, axis=1)[None])[0]
            entry = {"image_id": image, "category_id": category, "segmentation": rle}
            results.append(entry | {"score": float(rng.uniform())})
    evaluator = coco_metrics.CocoEvaluator(data)
    evaluator.add(results, [3, 5, 8, NO_IMAGE])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        truth = COCO()
        truth.dataset = data
        truth.createIndex()
        official = COCOeval(truth, truth.loadRes([dict(result) for result in results]), "segm")
        official.evaluate()
        official.accumulate()
        official.summarize()
    metrics = evaluator.metrics()
    assert list(metrics.values()) == pytest.approx(official.stats.tolist())
    lines = [line for line in printed.getvalue().splitlines() if line.startswith(" Average")]
    for ours, theirs in zip(coco_metrics.format_table(metrics).splitlines(), lines, strict=True):
        assert ours.split() == theirs.split()


def test_only_visited_images_count():
    data, _ = dataset()
    evaluator = coco_metrics.CocoEvaluator(data)
    evaluator.add([r for r in perfect_results(data["annotations"]) if r["image_id"] == 3], [3])
    assert evaluator.metrics()["segm/AP"] == pytest.approx(1.0)
    evaluator.add([], [5])  # visited, and its disc was missed
    assert evaluator.metrics()["segm/AP"] < 0.9


def test_no_detection_at_all_is_zero():
    data, _ = dataset()
    evaluator = coco_metrics.CocoEvaluator(data)
    evaluator.add([], [3, 5, 8])
    metrics = evaluator.metrics()
    assert metrics["segm/AP"] == 0 and metrics["segm/APs"] == 0 and metrics["segm/APl"] == 0
    # The same as one detection that hits nothing.
    nothing = {"image_id": 8, "category_id": 7, "score": 0.1}
    evaluator.add([nothing | {"segmentation": coco_results.encode_masks(np.ones([1, 120, 200], bool))[0]}], [])
    assert evaluator.metrics() == pytest.approx(metrics)


def test_results_of_a_batch_are_at_the_original_size_with_original_category_ids():
    masks = np.stack([disc(32, 64, 12, 20, 8), disc(32, 64, 10, 30, 6)]).astype(np.float32)
    detections = {
        "count": np.array([1, 2, 2]),
        "scores": np.array([[0.8, 0.0], [0.9, 0.7], [0.9, 0.7]], np.float32),
        "categories": np.array([[1, 0], [0, 1], [0, 1]]),
        "mask_probabilities": np.stack([masks, masks, masks]),
    }
    batch = {
        "image_id": np.array([3, 5, NO_IMAGE]),
        "image_size": np.array([[128, 256], [100, 200], [128, 256]]),
        "original_size": np.array([[256, 512], [50, 100], [128, 256]]),
    }
    results = coco_results.results_of_batch(detections, batch, CATEGORIES, 0.5)
    assert [(r["image_id"], r["category_id"]) for r in results] == [(3, 9), (5, 7), (5, 9)]
    first, second = (coco_mask.decode(result["segmentation"]) for result in results[:2])
    assert first.shape == (256, 512) and second.shape == (50, 100)
    # The canvas is 8 (first) and 2 (second) times finer or coarser than the mask.
    np.testing.assert_allclose(first.sum(), masks[0].sum() * 64, rtol=0.05)
    np.testing.assert_allclose(np.argwhere(first).mean(0), np.argwhere(masks[0]).mean(0) * 8 + 3.5, atol=0.5)
    np.testing.assert_allclose(second.sum(), masks[0].sum() * 4, rtol=0.1)
    np.testing.assert_allclose(np.argwhere(second).mean(0), np.argwhere(masks[0]).mean(0) * 2 + 0.5, atol=0.5)


def test_ceiling_falls_with_the_canvas_and_nears_one():
    data, _ = dataset()
    fine = ceiling_at_quarter_resolution(data, (960, 1600))
    coarse = ceiling_at_quarter_resolution(data, (96, 128))
    assert fine["segm/AP"] > 0.99
    assert coarse["segm/AP"] + 0.03 < ceiling_at_quarter_resolution(data, (96, 128), mask_target="coverage")["segm/AP"]
    assert coarse["segm/AP"] < 0.9 and coarse["segm/APm"] > coarse["segm/APs"] and coarse["segm/AP50"] == 1.0


def test_annotations_are_read_packed_or_plain_and_errors_name_the_file(tmp_path):
    data, _ = dataset()
    packed = tmp_path / "annotations.json.gz"
    # As the shard tool writes it: several gzip members, one after the other.
    text = json.dumps(data).encode()
    packed.write_bytes(gzip.compress(text[:100]) + gzip.compress(text[100:]))
    assert coco_metrics.load_annotations(str(packed)) == data
    plain = tmp_path / "plain.json"
    plain.write_bytes(text)
    assert coco_metrics.load_annotations(str(plain)) == data
    flipped = bytearray(packed.read_bytes())
    flipped[12] ^= 0xFF  # the kind of the first block
    for content in (b"{}", b"[1, 2", packed.read_bytes()[:50], bytes(flipped)):
        plain.write_bytes(content)
        with pytest.raises(coco_metrics.AnnotationsError, match="plain.json"):
            coco_metrics.load_annotations(str(plain))
    with pytest.raises(coco_metrics.AnnotationsError, match="absent.json"):
        coco_metrics.load_annotations(str(tmp_path / "absent.json"))
    with pytest.raises(coco_metrics.AnnotationsError, match="99"):
        coco_metrics.CocoEvaluator(data).add([], [99])


def test_an_image_that_comes_twice_counts_once():
    visits = coco_metrics.first_visits(np.array([7, 3, 3, NO_IMAGE, 9, -1]), {9})
    assert visits.tolist() == [7, 3, NO_IMAGE, NO_IMAGE, NO_IMAGE, -1]


# --- faster-coco-eval beside pycocotools


def random_evaluation(seed, images=25, categories=4):
    """Images with overlapping discs of all sizes and crowds; results near and far from them, with equal scores."""
    random = np.random.default_rng(seed)
    data = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3 * i + 1, "name": str(i)} for i in range(categories)],
    }
    results = []
    for image in range(images):
        data["images"].append({"id": image, "file_name": f"{image}.jpg", "height": 120, "width": 200})
        for _ in range(random.integers(0, 6)):
            y, x, radius = random.uniform((0, 0, 3), (120, 200, 60))
            category = int(random.choice(data["categories"])["id"])
            rle = coco_results.encode_masks(disc(120, 200, y, x, radius)[None])[0]
            entry = {"image_id": image, "category_id": category, "segmentation": rle}
            area, crowd = float(coco_mask.area(rle)), int(random.random() < 0.1)
            box = coco_mask.toBbox(rle).tolist()
            number = len(data["annotations"]) + 1
            data["annotations"].append(entry | {"id": number, "area": area, "bbox": box, "iscrowd": crowd})
            for _ in range(random.integers(0, 4)):
                near = disc(
                    120, 200, y + random.normal(0, 4), x + random.normal(0, 4), radius * random.uniform(0.7, 1.3)
                )
                score = float(np.float32(random.integers(1, 20) / 20))
                other = category if random.random() < 0.8 else int(random.choice(data["categories"])["id"])
                rle = coco_results.encode_masks(near[None])[0]
                results.append({"image_id": image, "category_id": other, "score": score, "segmentation": rle})
    return data, results


def real_evaluation(folder):
    """Annotations of real photos, and their own masks moved, shrunk and renamed as results."""
    data = json.loads((folder / "instances.json").read_text())
    random, results = np.random.default_rng(0), []
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    ids = [category["id"] for category in data["categories"]]
    for entry in data["annotations"]:
        rle = segmentation_to_rle(entry["segmentation"], *sizes[entry["image_id"]])
        moved = np.roll(coco_mask.decode(rle), random.integers(-6, 7, 2), axis=(0, 1))
        category = entry["category_id"] if random.random() < 0.8 else int(random.choice(ids))
        result = {"image_id": entry["image_id"], "category_id": category, "score": float(np.float32(random.random()))}
        results.append(result | {"segmentation": coco_results.encode_masks(moved[None].astype(bool))[0]})
    return data, results


def by_pycocotools(data, results):
    """The twelve numbers and precision [T,R,C,A,M] of the reference, from the files that it reads itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data | {"annotations": [a | {"id": i} for i, a in enumerate(data["annotations"], start=1)]}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(result) for result in results]), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def check_against_pycocotools(data, results):
    evaluator = coco_metrics.CocoEvaluator(data)
    evaluator.add(results, [image["id"] for image in data["images"]])
    reference = by_pycocotools(data, results)
    assert list(evaluator.metrics().values()) == pytest.approx(reference.stats.tolist(), abs=1e-12)
    by_category = evaluator.by_category()
    precision, recall = reference.eval["precision"][..., 0, -1], reference.eval["recall"][..., 0, -1]
    for place, number in enumerate(reference.params.catIds):
        mine = by_category[number]
        assert mine["AP"] == pytest.approx(precision[:, :, place].mean(), abs=1e-12)
        assert mine["AP50"] == pytest.approx(precision[0, :, place].mean(), abs=1e-12)
        assert mine["AR100"] == pytest.approx(recall[:, place].mean(), abs=1e-12)


def test_metrics_come_from_the_fast_evaluation():
    assert coco_metrics.COCOeval.__module__.startswith("faster_coco_eval")


@pytest.mark.parametrize("seed", range(6))
def test_the_fast_evaluation_gives_the_numbers_of_pycocotools(seed):
    check_against_pycocotools(*random_evaluation(seed))


@pytest.mark.parametrize("name", ["coco128", "fruits_nuts18"])
def test_the_fast_evaluation_gives_the_numbers_of_pycocotools_on_real_masks(shared_folder, name):
    check_against_pycocotools(*real_evaluation(shared_folder(name)))


def test_categories_of_an_evaluation_without_detections():
    data, _ = dataset()
    evaluator = coco_metrics.CocoEvaluator(data | {"categories": [*CATEGORIES, {"id": 11, "name": "ring"}]})
    evaluator.add([], [3, 5, 8])
    assert [values["AP"] for values in evaluator.by_category().values()] == [0, 0, -1]


def test_pycocotools_takes_over_without_the_fast_package():
    code = (
        "import sys; sys.modules['faster_coco_eval'] = None; from solo_dist.inference import coco_metrics; "
        "print(coco_metrics.COCOeval.__module__)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert process.stdout.split() == ["pycocotools.cocoeval"], process.stderr


def test_federated_metrics_are_those_of_the_lvis_package():
    """lvis_random.json.gz: random boxes in 24 images of 9 categories, and what lvis 0.5.3 makes of them."""
    values = json.loads(gzip.decompress((Path(__file__).parent / "lvis_random.json.gz").read_bytes()))
    evaluator = coco_metrics.CocoEvaluator(values["annotations"])
    evaluator.add(values["results"], [image["id"] for image in values["annotations"]["images"]])
    metrics, names = evaluator.metrics(), {"AR@300": "AR300", "ARs@300": "ARs", "ARm@300": "ARm", "ARl@300": "ARl"}
    for name, wanted in values["metrics"].items():
        assert metrics[f"segm/{names.get(name, name)}"] == pytest.approx(wanted, abs=1e-12), name
    assert set(metrics) == {f"segm/{name}" for name in (*coco_metrics.METRICS, *coco_metrics.LVIS_METRICS)}
    assert coco_metrics.format_table(metrics).splitlines()[-1].startswith(" LVIS: AR300 0.331  APr 0.124  APc 0.174")
    # Without the lists, all detections of absent categories count, and AP is another one.
    for image in values["annotations"]["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    plain = coco_metrics.CocoEvaluator(values["annotations"])
    plain.add(values["results"], [image["id"] for image in values["annotations"]["images"]])
    assert plain.metrics()["segm/AP"] < metrics["segm/AP"] and "segm/APr" not in plain.metrics()
