"""The parts of a run, each made from the config and the strategy."""

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data.input.pipeline import build_dataset, load_split
from solo_dist.data.schema import Manifest
from solo_dist.distributed.collectives import gather_from_workers
from solo_dist.distributed.strategy import replicas_on_host
from solo_dist.distributed.xla import compile_scope
from solo_dist.errors import ConfigError
from solo_dist.inference.detector import detection_function
from solo_dist.solo.network import build_model
from solo_dist.training.batch_plan import BatchPlan, plan_batch
from solo_dist.training.memory import images_that_fit
from solo_dist.training.optim import Optimizer, peak_learning_rate
from solo_dist.training.state import RunState
from solo_dist.training.step import TrainStep

log = logging.getLogger(__name__)


class RunParts(NamedTuple):
    """What a run computes with."""

    manifest: Manifest
    """The manifest of the training shards."""
    model: Any
    plan: BatchPlan
    optimizer: Optimizer
    train_step: TrainStep
    state: RunState
    """All variables of model, optimizer and step."""
    detect: Any
    """`inference.detector.detection_function` of the model."""


def build_run(config: Config, strategy: tf.distribute.Strategy) -> RunParts:
    """Builds the parts, with random weights from the config's seed, and completes the config. Writes no file.

    Raises:
      ConfigError, ShardError: config, strategy and shards do not fit together.
    """
    manifest = complete_config(config)
    model = build_network(config, strategy)
    plan = build_plan(config, strategy, model)
    optimizer = build_optimizer(config, strategy, model)
    scope = compile_scope(config.runtime.compile)
    train_step = TrainStep(strategy, model, optimizer, config, plan.micro_batch, plan.accumulation, scope)
    state = RunState(strategy, model, optimizer, train_step)
    return RunParts(manifest, model, plan, optimizer, train_step, state, detection_function(model, config))


def complete_config(config: Config) -> Manifest:
    """Reads the manifest of the training shards; sets the number of categories if the config leaves it to the data.

    Raises:
      ConfigError, ShardError: the shards cannot be used with this config.
    """
    manifest = load_split(config, "train")
    config.model.num_categories = config.model.num_categories or len(manifest.categories)
    return manifest


def build_network(config: Config, strategy: tf.distribute.Strategy) -> Any:
    """The network with random weights from the config's seed, the same on every worker.

    Raises:
      ConfigError: the normalisation would differ between replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if config.model.backbone.norm == "batch" and replicas > 1:
        raise ConfigError(
            f"model.backbone.norm=batch would keep other statistics on each of the {replicas} replicas; use "
            "sync_batch, group or frozen_batch."
        )
    tf.keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        return build_model(config.model, config.data.canvas, config.train.recompute)


def build_plan(config: Config, strategy: tf.distribute.Strategy, model: Any) -> BatchPlan:
    """Cuts the global batch into replicas and micro-batches; a collective if train.micro_batch is auto."""
    train, replicas = config.train, strategy.num_replicas_in_sync
    fitting = 1
    if train.micro_batch == "auto":
        replica_batch = train.global_batch // replicas
        mine = images_that_fit(model, config.data.canvas, replica_batch, replicas_on_host(strategy))
        # All workers use the smallest, since the number of micro-batches decides which variables there are.
        fitting = min(gather_from_workers(strategy, mine))
    plan = plan_batch(train, replicas, fitting)
    log.info("%s", plan.describe())
    return plan


def build_optimizer(config: Config, strategy: tf.distribute.Strategy, model: Any) -> Optimizer:
    """The optimizer over the trainable variables, with the backbone's own learning rate."""
    batch, rate = config.train.global_batch, config.optimizer.learning_rate
    peak = peak_learning_rate(config.optimizer, batch)
    if peak != rate:
        log.info("learning rate %g scaled to %g for global batch %d", rate, peak, batch)
    variables = {variable.path: variable.value for variable in model.trainable_variables}
    backbone = {variable.path for variable in model.backbone.trainable_variables}
    scales = dict.fromkeys(backbone, config.model.backbone.learning_rate_scale)
    return Optimizer(strategy, variables, config.optimizer, peak, config.train.steps, scales)


def build_batches(
    config: Config, strategy: tf.distribute.Strategy, replica_batch: int, images_seen: int, total_steps: int = 0
) -> Iterator[Any]:
    """The distributed training batches that follow the images already seen.

    Args:
      replica_batch: images of one replica in one optimizer step.
      total_steps: of the whole run, for augmentation that ends before it; 0: not known yet, with train.minutes.
    """
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=total_steps))

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        batches = build_dataset(
            config,
            "train",
            start_position=images_seen,
            worker=context.input_pipeline_id,
            num_workers=context.num_input_pipelines,
        )
        if len(strategy.extended.worker_devices) == 1:
            return batches
        return batches.rebatch(replica_batch, drop_remainder=True)

    return iter(strategy.distribute_datasets_from_function(of_worker))
