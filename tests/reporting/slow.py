"""Slow, independent versions of what the report computes: dense masks, pycocotools, loops as the definitions read."""

import contextlib
import io

import numpy as np
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIDE = 12
NUM_CATEGORIES = 3
CATEGORIES = [{"id": 10 * (i + 1), "name": f"c{i}"} for i in range(NUM_CATEGORIES)]


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


@st.composite
def rectangles(draw, base=None):
    """A rectangle in the image, or one near `base`, as (top, left, bottom, right)."""
    if base is not None and draw(st.booleans()):
        top, left, bottom, right = (edge + draw(st.integers(-2, 2)) for edge in base)
    else:
        top, left = draw(st.integers(0, SIDE - 2)), draw(st.integers(0, SIDE - 2))
        bottom, right = top + draw(st.integers(1, 8)), left + draw(st.integers(1, 8))
    top, left = min(max(top, 0), SIDE - 1), min(max(left, 0), SIDE - 1)
    return top, left, min(max(bottom, top + 1), SIDE), min(max(right, left + 1), SIDE)


def dense(rectangle):
    mask = np.zeros((SIDE, SIDE), bool)
    top, left, bottom, right = rectangle
    mask[top:bottom, left:right] = True
    return mask


@st.composite
def evaluations(draw, crowds=True):
    """A COCO json of up to three images and results on them, many of which are near a true instance."""
    images = [{"id": i, "file_name": f"{i}.jpg", "height": SIDE, "width": SIDE} for i in range(draw(st.integers(1, 3)))]
    annotations, results = [], []
    category = st.sampled_from([c["id"] for c in CATEGORIES])
    for image in images:
        shapes = draw(st.lists(rectangles(), max_size=4))
        for shape in shapes:
            mask = dense(shape)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": draw(category),
                    "segmentation": encode(mask),
                    "area": float(mask.sum()),
                    "bbox": [0, 0, 1, 1],
                    "iscrowd": int(crowds and draw(st.integers(0, 7)) == 0),
                }
            )
        for _ in range(draw(st.integers(0, 6))):
            base = draw(st.sampled_from(shapes)) if shapes else None
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": draw(category),
                    "score": draw(st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9])),
                    "segmentation": encode(dense(draw(rectangles(base)))),
                }
            )
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}, results


def coco_ap50(annotations, results):
    """AP50 of each category by pycocotools, [C]; -1 without true instances."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        if not results:
            counts = [
                sum(not a["iscrowd"] and a["category_id"] == c["id"] for a in annotations["annotations"])
                for c in annotations["categories"]
            ]
            return np.where(np.array(counts) > 0, 0.0, -1.0)
        evaluation = COCOeval(truth, truth.loadRes([dict(r) for r in results]), "segm")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, -1]  # [recalls, C] of all areas
    return precision.mean(axis=0)


def mean_ap(values):
    values = np.asarray(values)
    return float(values[values > -1].mean()) if (values > -1).any() else float("nan")


class SlowErrors:
    """Matches and kinds by loops over dense masks; detections in the order of the results."""

    def __init__(self, annotations, results):
        self.annotations, self.results = annotations, results
        self.truths = annotations["annotations"]
        self.order = sorted(range(len(results)), key=lambda d: (results[d]["image_id"], -results[d]["score"]))
        self.truth_of = dict.fromkeys(self.order)
        self.ignored = set()
        self.match()
        self.kind, self.target = {}, {}
        for d in self.order:
            self.classify(d)

    def pixels(self, entry):
        return coco_mask.decode(entry["segmentation"]).astype(bool)

    def overlap(self, d, g):
        """IoU; for a crowd the share of the detection on it; None in different images."""
        detection, truth = self.results[d], self.truths[g]
        if detection["image_id"] != truth["image_id"]:
            return -1.0
        a, b = self.pixels(detection), self.pixels(truth)
        common = (a & b).sum()
        return common / a.sum() if truth["iscrowd"] else common / (a | b).sum()

    def same(self, d, g):
        return self.results[d]["category_id"] == self.truths[g]["category_id"]

    def match(self):
        free = [g for g, truth in enumerate(self.truths) if not truth["iscrowd"]]
        crowds = [g for g, truth in enumerate(self.truths) if truth["iscrowd"]]
        for d in self.order:
            near = [g for g in free if self.same(d, g) and self.overlap(d, g) >= 0.5]
            if near:
                best = max(near, key=lambda g: (self.overlap(d, g), g))
                self.truth_of[d] = best
                free.remove(best)
            elif any(self.same(d, g) and self.overlap(d, g) >= 0.5 for g in crowds):
                self.ignored.add(d)

    def classify(self, d):
        plain = [g for g, truth in enumerate(self.truths) if not truth["iscrowd"]]

        def best(candidates):
            return max(((self.overlap(d, g), g) for g in candidates), default=(-1.0, None))

        a, target_a = best([g for g in plain if self.same(d, g)])
        b, target_b = best([g for g in plain if not self.same(d, g)])
        self.target[d] = None
        if self.truth_of[d] is not None:
            self.kind[d] = "correct"
        elif d in self.ignored:
            self.kind[d] = "ignored"
        elif a >= 0.5:
            self.kind[d] = "duplicate"
        elif b >= 0.5:
            self.kind[d], self.target[d] = "category", target_b
        elif a >= 0.1:
            self.kind[d], self.target[d] = "localisation", target_a
        else:
            self.kind[d] = "both" if b >= 0.1 else "background"

    @property
    def missed(self):
        aimed_at = {*self.truth_of.values(), *self.target.values()}
        return [g for g, truth in enumerate(self.truths) if not truth["iscrowd"] and g not in aimed_at]

    def ap_after(self, kind):
        """AP50 by pycocotools of the results in which one kind of error is mended by hand."""
        if kind == "missed":
            return self.ap_without_truths(self.missed)
        found, results = {g for g in self.truth_of.values() if g is not None}, []
        for d in self.order:
            if self.kind[d] != kind:
                results.append(self.results[d])
            elif self.target[d] is not None and self.target[d] not in found:
                found.add(self.target[d])
                truth = self.truths[self.target[d]]
                mended = {key: truth[key] for key in ("category_id", "segmentation")}
                results.append(self.results[d] | mended)
        return mean_ap(coco_ap50(self.annotations, results))

    def ap_of_correct(self):
        return mean_ap(coco_ap50(self.annotations, [self.results[d] for d in self.order if self.kind[d] == "correct"]))

    def ap_without_truths(self, gone):
        before = coco_ap50(self.annotations, self.results)
        left = [truth for g, truth in enumerate(self.truths) if g not in gone]
        after = coco_ap50(self.annotations | {"annotations": left}, self.results)
        return mean_ap(np.where((before > -1) & (after == -1), 1.0, after))

    def confusion(self, threshold):
        """[C+1, C+1] by loops."""
        class_of = {category["id"]: i for i, category in enumerate(self.annotations["categories"])}
        n = len(class_of)
        matrix = np.zeros((n + 1, n + 1), int)
        free = [g for g, truth in enumerate(self.truths) if not truth["iscrowd"]]
        for d in self.order:
            if self.results[d]["score"] < threshold:
                continue
            column = class_of[self.results[d]["category_id"]]
            near = [g for g in free if self.overlap(d, g) >= 0.5]
            if near:
                best = max(near, key=lambda g: (self.overlap(d, g), g))
                free.remove(best)
                matrix[class_of[self.truths[best]["category_id"]], column] += 1
            elif not any(truth["iscrowd"] and self.overlap(d, g) >= 0.5 for g, truth in enumerate(self.truths)):
                matrix[n, column] += 1
        for g in free:
            matrix[class_of[self.truths[g]["category_id"]], n] += 1
        return matrix

    def f1_at(self, threshold):
        """F1 of what is shown at a threshold, counted from scratch."""
        shown = [d for d in self.order if self.results[d]["score"] >= threshold and d not in self.ignored]
        right = sum(self.truth_of[d] is not None for d in shown)
        total = sum(not truth["iscrowd"] for truth in self.truths)
        return 2 * right / (len(shown) + total) if right else 0.0
