"""The training run.

Read `Trainer.fit` first. What it is built of is in build.py, what a step does in step.py, where a run starts in
start.py, how long it is in length.py, what happens when in schedule.py, and what a checkpoint is in run/checkpoint.py.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data.input.reader import readable_errors
from solo_dist.distributed.cluster.cluster import Cluster
from solo_dist.distributed.collectives import any_worker
from solo_dist.distributed.job import job_id
from solo_dist.distributed.stop_signals import StopSignals
from solo_dist.distributed.watchdog import Watchdog
from solo_dist.errors import Preempted, RunFailed
from solo_dist.inference.coco_metrics import format_short
from solo_dist.run.best import BestCheckpoint
from solo_dist.run.checkpoint import CheckpointMetadata
from solo_dist.run.directory import RunDirectory
from solo_dist.run.environment import write_environment
from solo_dist.run.metric_writers import MetricWriter, has_line
from solo_dist.run.progress import Progress
from solo_dist.training.build import build_batches, build_run
from solo_dist.training.length import find_length
from solo_dist.training.panels import Panels
from solo_dist.training.profiler import StepProfiler
from solo_dist.training.schedule import Schedule
from solo_dist.training.start import Start, check_same_run, start_run
from solo_dist.training.step import StepOutcome
from solo_dist.training.validation import Validation

log = logging.getLogger(__name__)


class Trainer:
    """One training run in one run directory. `fit` is the whole run; nothing is written before it is called.

    Args:
      config: the config of the run; completed with the number of categories of the data.
      workdir: the run directory; shared by all workers.
      strategy: the distribution strategy.
      cluster: the workers; None if this process is the only one. The chief alone writes shared files.
      resume: auto (continue if there is a checkpoint), never, or the path of a checkpoint folder.
      watchdog: watches that steps finish; None: no watchdog.
      profile: steps to profile, FIRST:LAST; empty: none.
    """

    def __init__(
        self,
        config: Config,
        workdir: str,
        strategy: tf.distribute.Strategy,
        cluster: Cluster | None = None,
        resume: str = "auto",
        watchdog: Watchdog | None = None,
        profile: str = "",
    ):
        self.config, self.strategy, self.resume = config, strategy, resume
        self.is_chief = cluster is None or cluster.is_chief
        self.watchdog, self.stop = watchdog or Watchdog(0), StopSignals()
        self.schedule = Schedule(config.train)
        self.progress = Progress(config.train.global_batch)
        self.directory = RunDirectory(workdir)
        self.checkpoints = self.directory.checkpoints(config.train.keep_checkpoints)
        self.best = BestCheckpoint(self.directory.best())
        self.profiler = StepProfiler(profile, self.directory.tensorboard if self.is_chief else "")
        self.writer: MetricWriter | None = None

        self.parts = build_run(config, strategy)
        self.validation = Validation(config, self.parts, self.directory, cluster) if config.data.validation else None
        self.panels = Panels(config, "train", self.parts.manifest.categories, self.parts.detect)

        self.start = Start()
        self.step_number, self.images_seen = 0, 0
        self._last_save, self._just_saved = 0.0, False

    def fit(self) -> None:
        """Trains to the last step, from wherever the run stands.

        Raises:
          Preempted: after a signal, when everything is saved.
          RunFailed: loss or gradients stay non-finite.
        """
        self.restore()
        self._open_writer()
        outcome: StepOutcome | None = None
        with self.stop, self.checkpoints, self.profiler, readable_errors():
            total_steps = find_length(self.config, self.parts, self.strategy, self.start, self.watchdog.beat)
            self.schedule.total_steps = total_steps
            self.parts.optimizer.set_total_steps(total_steps)
            batches = build_batches(
                self.config, self.strategy, self.parts.plan.replica_batch, self.images_seen, total_steps
            )
            self.progress.start(self.step_number, total_steps)
            self._make_up_evaluation()
            while not self.schedule.is_last(self.step_number):
                self.profiler.update(self.step_number, self.parts.train_step.wait)
                previous, outcome = outcome, self._run_steps(batches)
                self.watchdog.beat()
                # Read the outcome of the previous call: reading that of the current one would wait for the device and
                # leave it idle until the next call. Every worker reads the outcome of the same call, so all of them
                # stop or save after the same step.
                stopping, saving = self._read(previous)
                evaluating = self.validation is not None and self.schedule.evaluates(self.step_number)
                if self.schedule.logs(self.step_number):
                    self._log_metrics()
                if self.schedule.draws_panel(self.step_number):
                    self._draw_panels()
                if stopping or saving or evaluating or self.schedule.saves(self.step_number):
                    arrays = self._save()
                    if stopping:
                        self._leave()
                    if evaluating:
                        self._evaluate(arrays)
                    del arrays  # as large as the whole state
            self._close()

    def restore(self) -> None:
        """Fills the variables with what the run starts from (start.py) and sets its step; changes no file of the run.

        Raises:
          ConfigError, DataError: the run directory, a checkpoint or weights do not fit the config.
          ReplicasDiffer: the workers did not start from the same weights.
        """
        if self.is_chief:
            check_same_run(self.config, self.directory)
        # Barrier: the chief gets here only with the workdir lock, so no earlier process is still saving.
        any_worker(self.strategy, False)
        self.start = start_run(self.config, self.parts, self.directory, self.checkpoints, self.resume, self.is_chief)
        self.step_number, self.images_seen = self.start.step, self.start.images
        self.parts.state.verify_replicas("at the start")
        self._last_save = time.monotonic()

    def _open_writer(self) -> None:
        """Makes the files of the run that only the chief writes; cuts off what is later than the restored step."""
        if self.is_chief:
            self.directory.save_config(self.config)
            write_environment(self.directory.environment_file, self.strategy)
            self.writer = MetricWriter(self.directory, self.step_number, self.start.unpublished)

    def _run_steps(self, batches: Iterator[Any]) -> StepOutcome:
        """Starts the steps up to the next event on the device; does not wait for them."""
        train = self.config.train
        count = self.schedule.steps_to_run(self.step_number, self.profiler.steps_ahead(self.step_number))
        save = bool(train.save_minutes) and time.monotonic() - self._last_save > train.save_minutes * 60
        requests = tf.constant([float(self.stop.requested is not None), float(save)])
        outcome = self.parts.train_step(batches, tf.constant(count), requests)
        self.step_number += count
        self.images_seen += count * train.global_batch
        return outcome

    def _read(self, outcome: StepOutcome | None) -> tuple[bool, bool]:
        """Whether any worker was asked to stop, and whether any asks for a checkpoint.

        Raises:
          RunFailed: too many steps in a row could not be applied.
        """
        if outcome is None:
            return False, False
        run = int(outcome.nonfinite_run)
        if run >= self.config.train.max_nonfinite_steps:
            self._log_metrics()
            images = self.parts.train_step.suspect_images()
            found = (
                f"The loss of a micro-batch of the images {images} was not finite; check these and their annotations. "
                if images
                else "The loss was finite here: another worker's was not (see its log), or a gradient overflowed. "
            )
            raise RunFailed(
                f"Loss or gradients were not finite in {run} steps in a row, up to step {self.step_number}. "
                f"{found}These steps did not change the weights. Try a lower optimizer.learning_rate, a longer "
                "optimizer.warmup_steps, optimizer.clip_norm=10 or runtime.precision=float32."
            )
        stop, save = outcome.requests.numpy() > 0
        # Requests arrive one call late: drop a save request issued before the last save.
        save, self._just_saved = save and not self._just_saved, False
        return bool(stop), bool(save)

    def _log_metrics(self) -> None:
        values = self.parts.train_step.read_metrics()
        values |= self.progress.rates(self.step_number, self.parts.train_step.read_wait_seconds())
        if self.writer:
            self.writer.scalars(self.step_number, "train", values)
            log.info("%s", self.progress.line(self.step_number, values))

    def _draw_panels(self) -> None:
        if self.writer:
            with self.progress.paused():
                self.writer.panels(self.step_number, "train", self.panels.draw())

    def _save(self) -> dict[str, np.ndarray]:
        """Copies the state to host memory and returns the copy; workers other than the chief copy the weights only.

        On the chief, a background thread then writes it as a checkpoint.
        """
        self.parts.train_step.wait()  # waiting for the device is no cost of the checkpoint
        with self.progress.checkpoint():
            copy = self.parts.state.copy_to_host if self.is_chief else self.parts.state.verify_replicas
            arrays = copy(f"at step {self.step_number}")
            self._last_save, self._just_saved = time.monotonic(), True
            if self.writer:
                self.writer.flush()
                self.checkpoints.save(arrays, self._metadata(), self.writer.publish)
        return arrays

    def _metadata(self) -> CheckpointMetadata:
        return CheckpointMetadata(
            step=self.step_number,
            images=self.images_seen,
            total_steps=self.schedule.total_steps if self.config.train.minutes else 0,
            seed=self.config.seed,
            categories=self.parts.manifest.categories,
            pixel_range=self.parts.manifest.pixel_range,
            recipe=self.config.name,
            resumed_from=self.start.resumed_from,
            job=job_id(os.environ),
        )

    def _make_up_evaluation(self) -> None:
        """Evaluates if the run was interrupted at this step between its checkpoint and its evaluation."""
        if self.validation is None or not self.schedule.evaluates(self.step_number):
            return
        left_out = self.is_chief and not has_line(self.directory, self.step_number, "validation")
        if any_worker(self.strategy, left_out):
            self._evaluate(self.parts.state.copy_to_host(f"at step {self.step_number}"))

    def _evaluate(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Mask AP of the weights as they are, or of their moving average.

        Args:
          arrays: the state at this step, which is saved in best/ if its AP is the best so far.
        """
        assert self.validation is not None
        with self.progress.paused():
            images = self.schedule.evaluation_images(self.step_number)
            with self.parts.optimizer.averaged_weights():
                metrics = self.validation.run(self.step_number, images, self._may_continue, self.strategy)
                if self.writer and metrics and self.config.train.panel_every:
                    self.writer.panels(self.step_number, "validation", self.validation.panels.draw())
            if metrics is None:
                self._leave()
            if self.writer:
                every = self.validation.manifest.num_images
                ap, ap_images = metrics["segm/AP"], min(images or every, every)
                self.best.offer(arrays, dataclasses.replace(self._metadata(), ap=ap, ap_images=ap_images))
                standing = self.best.standing(self.step_number)
                log.info("step %d  validation  %s  %s", self.step_number, format_short(metrics), standing)
                self.best.remark(self.step_number, self.config.train.eval_every)
                # Last: this line says that the evaluation is complete and need not be made up for.
                self.writer.scalars(self.step_number, "validation", metrics)
                self.writer.flush()

    def _may_continue(self) -> bool:
        """Asked before each batch of an evaluation."""
        self.watchdog.beat()
        return self.stop.requested is None

    def _leave(self) -> NoReturn:
        """Ends this process's part in the run after a request to stop; everything is saved."""
        self._close()
        reason = self.stop.requested or "another worker was asked to stop"
        raise Preempted(f"{reason}; saved at step {self.step_number}")

    def _close(self) -> None:
        """Returns when everything is in the run directory."""
        self.checkpoints.wait()
        if self.writer:
            self.writer.close()
            self.directory.remove_local_copies()
