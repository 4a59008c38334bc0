"""Metrics of LVIS, whose images say of some categories only whether they are there (Gupta et al. 2019, section 2).

An image has annotations of the categories that are in it, and lists those that are not (neg_category_ids). Detections
of other categories in it do not count; nor do those without a partner if the annotations of their category are not
complete (not_exhaustive_category_ids). faster-coco-eval computes this; its numbers are those of the lvis package.
A category without a frequency counts as frequent.
"""

from collections.abc import Mapping
from typing import Any

from pycocotools.coco import COCO

from solo_dist.errors import ConfigError

LVIS_METRICS = ("AR300", "APr", "APc", "APf")
"""Metrics that COCO has not: recall with 300 detections an image; AP of rare, common and frequent categories."""
_MOST_DETECTIONS = [1, 10, 100, 300]
_PLACES = {
    **{name: place for place, name in enumerate(("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100"))},
    **{name: place for place, name in enumerate(("AR300", "ARs", "ARm", "ARl"), 9)},
    **{name: place for place, name in enumerate(("APr", "APc", "APf"), 15)},
}
"""Metric -> its place among all metrics of COCOeval_faster with these numbers of detections."""


class FederatedTruth(COCO):
    """Ground truth with the names that faster-coco-eval has for two of the functions."""

    load_imgs = COCO.loadImgs

    def load_cats(self, ids: list[int]) -> list[dict[str, Any]]:
        """As loadCats, each with a frequency."""
        return [{"frequency": "f"} | category for category in self.loadCats(ids)]


def is_federated(annotations: Mapping[str, Any]) -> bool:
    """Whether a json is of LVIS's kind."""
    return any("neg_category_ids" in image for image in annotations["images"])


def federated_evaluation(truth: COCO, results: COCO) -> Any:
    """An evaluation to run. Raises ConfigError if the package for it is missing."""
    try:
        from faster_coco_eval import COCOeval_faster
    except ImportError as error:
        raise ConfigError(
            "The annotations say which categories are absent, as LVIS does; evaluating them needs faster-coco-eval: "
            "pip install faster-coco-eval"
        ) from error
    evaluation = COCOeval_faster(truth, results, "segm", lvis_style=True)
    evaluation.params.maxDets = _MOST_DETECTIONS
    return evaluation


def federated_metrics(evaluation: Any) -> dict[str, float]:
    """The metrics of a finished evaluation by name; AP and ARs, ARm, ARl are those with 300 detections an image."""
    return {name: float(evaluation.all_stats[place]) for name, place in _PLACES.items()}
