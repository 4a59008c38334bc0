"""Evaluation during training, shared by all workers: each detects in its part of the images, the chief scores.

The results of the parts are lists of masks, not tensors, and reach the chief as files in the run directory. A
collective between writing and reading ensures that all files are complete, and says if any worker was asked to stop.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data.input.pipeline import build_dataset, load_split
from solo_dist.distributed.cluster.cluster import Cluster
from solo_dist.distributed.collectives import any_worker
from solo_dist.inference.coco_metrics import CocoEvaluator, evaluate, write_evaluation
from solo_dist.inference.coco_results import Result
from solo_dist.inference.validation_set import categories_of_classes
from solo_dist.run.directory import RunDirectory
from solo_dist.storage import file_io
from solo_dist.training.build import RunParts
from solo_dist.training.panels import Panels

_PANELS = 4
"""Validation images that TensorBoard shows after each evaluation."""


class Validation:
    """Mask AP on the validation shards.

    Args:
      config: the config of the run.
      parts: what was built from it.
      directory: the run directory; results go to eval/step_N.
      cluster: the workers, which all take part; None if this process is the only one.

    Raises:
      ConfigError, ShardError: the validation shards cannot be used, or have categories that the training shards lack.
    """

    def __init__(self, config: Config, parts: RunParts, directory: RunDirectory, cluster: Cluster | None):
        self._config, self._directory = config, directory
        self._detect, self._batch_size = parts.detect, parts.plan.micro_batch
        self._worker, self._num_workers = (cluster.index, cluster.num_workers) if cluster else (0, 1)
        training = parts.manifest
        self.manifest = load_split(config, "validation")
        self._categories = categories_of_classes(
            self.manifest, training.categories, training.pixel_range, config.data.train
        )
        self.panels = Panels(config, "validation", training.categories, self._detect, _PANELS, self._batch_size)

    def run(
        self, step: int, images: int, may_continue: Callable[[], bool], strategy: tf.distribute.Strategy
    ) -> dict[str, float] | None:
        """Evaluates at a step.

        Args:
          step: names the folder of the results.
          images: about how many images to take; 0: all.
          may_continue: called before each batch; False stops the evaluation.
          strategy: over all workers, which call this together.

        Returns:
          The metrics and the AP of each category on the chief, an empty dict on other workers, None if any worker
          stopped early.
        """
        evaluator = CocoEvaluator(self.manifest.annotations)
        stopped = self._evaluate_own_part(evaluator, images, may_continue)
        folder = self._directory.evaluation(step)
        if self._worker:
            self._write_part(folder, evaluator)
        if any_worker(strategy, stopped):
            return None
        if self._worker:
            return {}
        for worker in range(1, self._num_workers):
            evaluator.add(*self._read_part(folder, worker))
        metrics = evaluator.metrics()
        write_evaluation(folder, metrics, evaluator)
        return metrics | self._ap_by_category(evaluator)

    def _evaluate_own_part(self, evaluator: CocoEvaluator, images: int, may_continue: Callable[[], bool]) -> bool:
        """Detects in this worker's part of the images; returns whether it was stopped before the end."""
        batches = build_dataset(
            self._config,
            "validation",
            worker=self._worker,
            num_workers=self._num_workers,
            batch_size=self._batch_size,
        )
        stopped = False

        def until_stopped() -> Iterator[Any]:
            nonlocal stopped
            for batch in batches:
                if not may_continue():
                    stopped = True
                    return
                yield batch

        evaluate(
            self._detect,
            until_stopped(),
            evaluator,
            self._categories,
            self._config.postprocess.mask_threshold,
            images=-(-images // self._num_workers),
        )
        return stopped

    def _ap_by_category(self, evaluator: CocoEvaluator) -> dict[str, float]:
        """The AP of each category with ground truth in the visited images, as category_AP/NAME."""
        names = {category["id"]: category["name"] for category in self.manifest.categories}
        aps = {number: values["AP"] for number, values in evaluator.by_category().items()}
        return {f"category_AP/{names[number]}": ap for number, ap in aps.items() if ap >= 0}

    def _write_part(self, folder: str, evaluator: CocoEvaluator) -> None:
        part = {"results": evaluator.results, "image_ids": sorted(evaluator.image_ids)}
        file_io.write(_part(folder, self._worker), json.dumps(part).encode())

    def _read_part(self, folder: str, worker: int) -> tuple[list[Result], list[int]]:
        """Reads the part of another worker, then removes it."""
        part = json.loads(file_io.read(_part(folder, worker)))
        file_io.remove(_part(folder, worker))
        return part["results"], part["image_ids"]


def _part(folder: str, worker: int) -> str:
    return f"{folder}/part_{worker}.json"
