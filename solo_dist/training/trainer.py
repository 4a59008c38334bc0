"""The training run: built piece by piece by the build_* methods, then `fit` goes through it.

Read `Trainer.fit` first. What one step does is in step.py, what a checkpoint is in checkpoint.py, how a batch is made
in data/pipeline.py, and how workers find each other in runtime/.
"""

import dataclasses
import logging
import os
import time
from typing import Any

import numpy as np
import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data.input.pipeline import build_dataset, check_manifest
from solo_dist.data.input.reader import readable_errors
from solo_dist.data.schema import Manifest, load_manifest
from solo_dist.distributed import exit_codes
from solo_dist.distributed.collectives import any_worker, gather, verify_equal
from solo_dist.distributed.stop_signals import StopSignals
from solo_dist.distributed.strategy import replicas_on_host
from solo_dist.distributed.watchdog import Watchdog
from solo_dist.errors import ConfigError, Preempted, RunFailed
from solo_dist.inference.coco_metrics import format_short
from solo_dist.inference.detector import detection_function
from solo_dist.run.checkpoint import Checkpoint, CheckpointStore, assign_arrays
from solo_dist.run.environment import write_environment
from solo_dist.run.metric_writers import MetricWriter, has_line
from solo_dist.run.progress import Progress
from solo_dist.run.resume import check_same_run, find_resume_point
from solo_dist.solo.network import build_model
from solo_dist.storage import file_io
from solo_dist.training.batch_plan import BatchPlan, plan_batch
from solo_dist.training.memory import images_that_fit
from solo_dist.training.optim import Optimizer, peak_learning_rate
from solo_dist.training.profiler import StepProfiler
from solo_dist.training.step import FLOAT16_STATE, Signals, TrainStep, compile_scope
from solo_dist.training.validation import Validation
from solo_dist.viz.overlay import training_panel
from solo_dist.weights.load import load_backbone_weights, load_model_weights

log = logging.getLogger(__name__)


class Trainer:
    """One training run in one run directory.

    Args:
      config: the recipe; completed with the number of categories of the data.
      workdir: the run directory; shared by all workers.
      strategy: the distribution strategy.
      worker: index of this worker; worker 0 is the chief, the only one that writes shared files.
      num_workers: number of workers.
      resume: auto (continue where there is a checkpoint), never, or the path of a checkpoint folder.
      watchdog: hears of every step; none by default.
    """

    def __init__(
        self,
        config: Config,
        workdir: str,
        strategy: tf.distribute.Strategy,
        worker: int = 0,
        num_workers: int = 1,
        resume: str = "auto",
        watchdog: Watchdog | None = None,
        profile: str = "",
    ):
        self.config, self.workdir, self.strategy = config, workdir.rstrip("/"), strategy
        self.worker, self.num_workers, self.is_chief = worker, num_workers, worker == 0
        self.watchdog = watchdog or Watchdog(0)
        self.profiler = StepProfiler(profile, f"{self.workdir}/tensorboard" if self.is_chief else "")
        self.step_number, self.images_seen = 0, 0
        self._last_save, self._just_saved = time.monotonic(), False
        # What a run in an object store keeps on this machine; see storage.scratch_folder.
        self.scratch = file_io.scratch_folder(self.workdir) if file_io.is_remote(self.workdir) else ""
        copy = self.scratch and f"{self.scratch}/checkpoints"
        self.checkpoints = CheckpointStore(f"{self.workdir}/checkpoints", config.train.keep_checkpoints, copy)
        self.best = CheckpointStore(f"{self.workdir}/best", keep=1)
        self.manifest = self.build_data_contract()
        if self.is_chief:
            check_same_run(config, self.workdir)
        if num_workers > 1:
            any_worker(strategy, False)  # The chief is here once it has the lock: nobody else saves any more.
        resumed = find_resume_point(self.checkpoints, self.workdir, resume, self.is_chief)
        self.model = self.build_model()
        self.plan = self.build_plan()
        self.optimizer = self.build_optimizer()
        self.train_step = self.build_step()
        self.detect = detection_function(self.model, config.model, config.postprocess)
        self.validation = self.build_validation()
        self._initialise(resumed)
        before = resumed.metadata.get("resumed_from", "") if resumed else ""
        self._resumed_from = before if resume in ("auto", "never") else resume.rstrip("/")
        from_scratch = bool(self.scratch) and resume.startswith(f"{self.scratch}/")
        self.writer = self.build_writer(unpublished=from_scratch and before != self._resumed_from)

    def fit(self) -> None:
        """Trains to the last step of the recipe, from wherever the run stands.

        Raises:
          Preempted: after a signal, when everything is saved.
          RunFailed: where loss or gradients stay non-finite.
        """
        train = self.config.train
        current: Signals | None = None
        with StopSignals() as self.stop, self.checkpoints, self.profiler, readable_errors():
            batches = self.build_input()
            self.progress = Progress(self.step_number, train.steps, train.global_batch)
            self._evaluate_if_left_out()
            while self.step_number < train.steps:
                self.profiler.update(self.step_number, self.train_step.wait)
                previous, current = current, self._run_steps(batches)
                self.watchdog.beat()
                # The signals of the call before are at hand without waiting, and the same on every worker.
                stopping, saving = self._read(previous)
                evaluating = self._evaluation_due()
                if self._due(train.log_every):
                    self._log_metrics()
                if train.picture_every and self._due(train.picture_every):
                    self._write_pictures()
                if stopping or saving or evaluating or self._due(train.save_every):
                    self._save()
                if stopping:
                    self._leave()
                if evaluating:
                    self._evaluate()
            self._close()

    # ---------------------------------------------------------------- what a run is built of

    def build_data_contract(self) -> Manifest:
        """Reads the manifest of the training shards and completes the recipe's number of categories."""
        manifest = load_manifest(self.config.data.train)
        check_manifest(manifest, self.config)
        if not self.config.model.num_categories:
            self.config.model.num_categories = len(manifest.categories)
        return manifest

    def build_plan(self) -> BatchPlan:
        """Cuts the global batch into replicas and micro-batches."""
        train, replicas = self.config.train, self.strategy.num_replicas_in_sync
        fitting = 1
        if train.micro_batch == "auto":
            share = train.global_batch // replicas
            mine = images_that_fit(self.model, self.config.data.canvas, share, replicas_on_host(self.strategy))
            # Workers that do not agree would not even make the same variables.
            fitting = min(gather(self.strategy, [mine] * len(self.strategy.extended.worker_devices)))
        plan = plan_batch(train, replicas, fitting)
        log.info("%s", plan.describe())
        return plan

    def build_model(self) -> Any:
        """The network with random weights from the recipe's seed, the same on every worker."""
        replicas = self.strategy.num_replicas_in_sync
        if self.config.model.backbone.norm == "batch" and replicas > 1:
            raise ConfigError(
                f"model.backbone.norm=batch would keep other statistics on each of the {replicas} replicas; use "
                "sync_batch, group or frozen_batch."
            )
        tf.keras.utils.set_random_seed(self.config.seed)
        with self.strategy.scope():
            return build_model(self.config.model, self.config.data.canvas, self.config.train.recompute)

    def build_optimizer(self) -> Optimizer:
        """The optimizer over the trainable variables, with the backbone's own learning rate."""
        config = self.config.optimizer
        peak = peak_learning_rate(config, self.config.train.global_batch)
        if peak != config.learning_rate:
            log.info(
                "learning rate %g scaled to %g for global batch %d",
                config.learning_rate,
                peak,
                self.config.train.global_batch,
            )
        variables = {variable.path: variable.value for variable in self.model.trainable_variables}
        backbone = {variable.path for variable in self.model.backbone.trainable_variables}
        scales = dict.fromkeys(backbone, self.config.model.backbone.learning_rate_scale)
        return Optimizer(self.strategy, variables, config, peak, self.config.train.steps, scales)

    def build_step(self) -> TrainStep:
        """The compiled step."""
        plan, scope = self.plan, compile_scope(self.config.runtime)
        return TrainStep(
            self.strategy, self.model, self.optimizer, self.config, plan.micro_batch, plan.accumulation, scope
        )

    def build_input(self) -> Any:
        """Iterator over the batches that follow the images already seen."""

        def per_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            batches = build_dataset(
                self.config,
                "train",
                start_position=self.images_seen,
                worker=context.input_pipeline_id,
                num_workers=context.num_input_pipelines,
            )
            if len(self.strategy.extended.worker_devices) == 1:
                return batches
            return batches.rebatch(self.plan.replica_batch, drop_remainder=True)

        return iter(self.strategy.distribute_datasets_from_function(per_worker))

    def build_validation(self) -> Validation | Any:
        """The evaluation, where the recipe has validation shards; all workers take part in it."""
        if not self.config.data.validation:
            return None
        validation = Validation(
            self.config, self.detect, self.plan.micro_batch, self.workdir, self.worker, self.num_workers
        )
        if validation.manifest.categories != self.manifest.categories:
            raise ConfigError(
                f"The categories of data.validation={self.config.data.validation} are not those of "
                f"data.train={self.config.data.train}; shard both from jsons with the same categories."
            )
        return validation

    def build_writer(self, unpublished: bool) -> MetricWriter | Any:
        """Files that only the chief writes: config.json, environment.json, metrics.jsonl and TensorBoard."""
        if not self.is_chief:
            return None
        file_io.write(f"{self.workdir}/config.json", self.config.to_json().encode())
        write_environment(self.workdir, self.strategy)
        return MetricWriter(self.workdir, self.step_number, unpublished)

    # ---------------------------------------------------------------- where a run starts

    def _initialise(self, resumed: Checkpoint | None) -> None:
        """Fills weights and state; the order of precedence is in starting_point.py."""
        if resumed is not None:
            state, arrays = self._state(), dict(resumed.arrays)
            for name in FLOAT16_STATE:  # the precision may have changed
                if (name in state) != (name in arrays):
                    (state if name in state else arrays).pop(name)
            assign_arrays(state, arrays, f"Checkpoint of step {resumed.step} in {self.workdir}")
            self.step_number, self.images_seen = resumed.step, resumed.metadata["images"]
            if resumed.metadata["categories"] != self.manifest.categories:
                raise ConfigError(
                    f"The categories of {self.config.data.train} are not those of the run in {self.workdir}."
                )
            exit_codes.report_progress(
                resumed.step
            )  # where each machine has a launcher, only the chief's knows of saves
            log.info("weights: checkpoint of step %d in %s", resumed.step, self.workdir)
            epoch, image = divmod(self.images_seen, self.manifest.num_images)
            log.info("input: goes on at image %d of epoch %d; none is repeated or skipped", image + 1, epoch + 1)
        elif self.config.model.weights:
            load_model_weights(
                self.model, self.config.model.weights, [category["name"] for category in self.manifest.categories]
            )
            log.info("weights: %s", self.config.model.weights)
        elif match := load_backbone_weights(self.model):
            log.info("weights: backbone from %s, the rest random", match.source)
        else:
            log.info("weights: random, seed %d", self.config.seed)
        if resumed is None:
            self.optimizer.restart_averages()
        verify_equal(self.strategy, self._weights(), "at the start")

    def _weights(self) -> list[tf.Variable]:
        return [variable.value for variable in self.model.variables]

    def _state(self) -> dict[str, Any]:
        """Every variable of a checkpoint by name."""
        model = {f"model/{variable.path}": variable.value for variable in self.model.variables}
        return model | self.optimizer.state() | self.train_step.state()

    # ---------------------------------------------------------------- what happens on the way

    def _run_steps(self, batches: Any) -> Signals:
        """Dispatches the steps up to the next event."""
        train = self.config.train
        events = [
            every for every in (train.log_every, train.save_every, train.eval_every, train.picture_every) if every
        ]
        ahead = [every - self.step_number % every for every in events] + self.profiler.steps_ahead(self.step_number)
        count = min(train.steps_per_call, train.steps - self.step_number, *ahead)
        save = bool(train.save_minutes) and time.monotonic() - self._last_save > train.save_minutes * 60
        requests = tf.constant([float(self.stop.requested is not None), float(save)])
        signals = self.train_step(batches, tf.constant(count), requests)
        self.step_number += count
        self.images_seen += count * train.global_batch
        return signals

    def _read(self, signals: Signals | None) -> tuple[bool, bool]:
        """Whether any worker was asked to stop, or asks for a checkpoint.

        Raises:
          RunFailed: after too many steps that could not be applied.
        """
        if signals is None:
            return False, False
        run = int(signals.nonfinite_run)
        if run >= self.config.train.max_nonfinite_steps:
            self._log_metrics()
            images = self.train_step.suspect_images() or "none whose own loss was not finite"
            raise RunFailed(
                f"Loss or gradients were not finite in {run} steps in a row, up to step {self.step_number}. "
                f"Images of the last ones: {images}. Nothing broken was saved. Look at these images "
                "(solo-dist inspect), or try a lower optimizer.learning_rate, a longer optimizer.warmup_steps, "
                "optimizer.clip_norm=10 or runtime.precision=float32."
            )
        stop, save = signals.requests.numpy() > 0
        # Requests arrive one call late: drop a save request issued before the last save.
        save, self._just_saved = save and not self._just_saved, False
        return bool(stop), bool(save)

    def _due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return bool(every) and self.step_number % every == 0 or self.step_number == self.config.train.steps

    def _evaluation_due(self) -> bool:
        return self.validation is not None and self.step_number > 0 and self._due(self.config.train.eval_every)

    def _evaluate_if_left_out(self) -> None:
        """Makes up for the evaluation that a run did not come to before it was interrupted at this step."""
        if not self._evaluation_due():
            return
        left_out = self.is_chief and not has_line(self.workdir, self.step_number, "validation")
        if any_worker(self.strategy, left_out):
            self._evaluate()

    def _evaluate(self) -> None:
        """Mask AP of the weights as they are, or of their moving average; the best so far is kept."""
        self.progress.pause()
        last = self.step_number == self.config.train.steps
        images = 0 if last else self.config.train.eval_images
        with self.optimizer.averaged_weights():
            metrics = self.validation.run(
                self.step_number, images, self._go_on_evaluating, lambda mine: any_worker(self.strategy, mine)
            )
        if metrics is None:
            self._leave()
        if metrics:
            log.info("step %d  validation  %s", self.step_number, format_short(metrics))
            # A mask AP of more images counts more; only those of equally many can be compared.
            every = self.validation.manifest.num_images
            score = {"ap": metrics["segm/AP"], "ap_images": min(images or every, every)}
            best = {"ap_images": score["ap_images"], "ap": -1.0} | self.best.newest_metadata()
            if score["ap"] >= 0 and (score["ap_images"], score["ap"]) > (best["ap_images"], best["ap"]):
                self.best.save(self.step_number, self._host_copy(), self._metadata() | score)
                self.best.wait()
            # At the end, since the line says that the evaluation is done and nothing of it has to be made again.
            self.writer.scalars(self.step_number, "validation", metrics)
            self.writer.flush()
        self.progress.resume()

    def _go_on_evaluating(self) -> bool:
        self.watchdog.beat()
        return self.stop.requested is None

    def _write_pictures(self) -> None:
        """A panel of the next training picture: the picture, its target masks, and the masks found."""
        if not self.is_chief:
            return
        self.progress.pause()
        # Without the service, which is another's to feed, and may be gone.
        config = dataclasses.replace(self.config, data=dataclasses.replace(self.config.data, service=""))
        batch = next(iter(build_dataset(config, "train", start_position=self.images_seen, batch_size=1)))
        found = self.detect(batch["image"])
        picture = training_panel(batch, found, self.manifest.categories, self.config.postprocess.mask_threshold)
        self.writer.picture(self.step_number, "train", "panel", picture)
        self.progress.resume()

    def _log_metrics(self) -> None:
        values = self.train_step.read_metrics()
        values |= self.progress.rates(self.step_number, self.train_step.read_wait_seconds())
        if self.is_chief:
            self.writer.scalars(self.step_number, "train", values)
            log.info("%s", self.progress.line(self.step_number, values))

    def _save(self) -> None:
        """Hands a copy of the state to the checkpoint writer; only the chief writes."""
        # The step may still be running; waiting for it is no cost of the checkpoint.
        self.strategy.experimental_local_results(self._weights()[0])[0].numpy()
        with self.progress.checkpoint():
            verify_equal(self.strategy, self._weights(), f"at step {self.step_number}")
            self._last_save, self._just_saved = time.monotonic(), True
            if self.is_chief:
                self.writer.flush()
                self.checkpoints.save(self.step_number, self._host_copy(), self._metadata(), self.writer.publish)

    def _host_copy(self) -> dict[str, np.ndarray]:
        local = self.strategy.experimental_local_results
        return {name: np.array(local(variable)[0].numpy()) for name, variable in self._state().items()}

    def _metadata(self) -> dict[str, Any]:
        return {
            "images": self.images_seen,
            "seed": self.config.seed,
            "categories": self.manifest.categories,
            "recipe": self.config.name,
            "resumed_from": self._resumed_from,
            "job": exit_codes.job_id(os.environ),
        }

    def _leave(self) -> None:
        """Ends this process's part in the run after a signal, everything saved."""
        self._close()
        reason = self.stop.requested or "another worker was asked to stop"
        raise Preempted(f"{reason}; saved at step {self.step_number}")

    def _close(self) -> None:
        self.checkpoints.wait()
        if self.writer:
            self.writer.close()
            if self.scratch:
                file_io.remove_folder(self.scratch)  # all of it is in the run directory

    def summary(self) -> str:
        """Where everything is and what to type next."""
        metadata = self.best.newest_metadata()
        best = f"\n  best mask AP  {metadata['ap']:.3f}, {self.best.folder}" if metadata else ""
        return (
            f"Finished at step {self.step_number}.\n"
            f"  checkpoints   {self.checkpoints.folder}{best}\n"
            f"  curves        tensorboard --logdir={self.workdir}/tensorboard\n"
            f"  metrics       {self.workdir}/metrics.jsonl\n"
            "Next:\n"
            f"  python -m solo_dist.evaluate --workdir={self.workdir}\n"
            f"  python -m solo_dist.predict --workdir={self.workdir} --images='PICTURES/*.jpg' --output=OVERLAYS\n"
            f"  python -m solo_dist.export --workdir={self.workdir}"
        )
