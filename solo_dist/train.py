r"""Trains a model by a recipe, or resumes a training.

Three ways to start:

  solo-dist train
      the demo on this machine's CPU or GPU; makes its own small data set

  solo-dist train --config=solov2_r50_fpn_3x --workdir=runs/mine --strategy=mirrored \
      --config.data.train=data/mine/train --config.data.validation=data/mine/val --config.train.steps=20000
      your own shards, on all GPUs of this machine

  solo-dist launch --workers=2 -- --config=shapes_tiny --workdir=runs/two
      two worker processes; on a cluster see launch/README.md

The same command again resumes the run. Any field of the config can be overridden with --config.a.b=value.
"""

import contextlib
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from solo_dist import cli, recipes
from solo_dist.config import Config
from solo_dist.distributed import exit_codes
from solo_dist.distributed.cluster.cluster import Cluster
from solo_dist.distributed.cluster.resolve import resolve_cluster
from solo_dist.distributed.cluster.wait import wait_for_workers
from solo_dist.distributed.job import JOB_ID_VARIABLE
from solo_dist.errors import ConfigError, Preempted

_CONFIG = config_flags.DEFINE_config_file(
    "config", recipes.find("shapes_tiny"), "Name of a recipe, or a file with get_config().", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Run directory, a path or URL; by default runs/NAME of the recipe.")
_STRATEGY = flags.DEFINE_enum(
    "strategy", "one_device", ["one_device", "mirrored", "multi_worker"], "How to distribute."
)
_RESUME = flags.DEFINE_string(
    "resume", "auto", "auto: continue if there is a checkpoint; never; or a checkpoint's folder."
)
_CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices", 0, "Logical devices to split the CPU into, to try mirrored without GPUs."
)
_NUM_DEVICES = flags.DEFINE_integer("num_devices", 0, "GPUs to use; 0: all that --strategy can use.")
_WORKERS = flags.DEFINE_list("workers", [], "host:port of every worker; by default from the environment.")
_WORKER_INDEX = flags.DEFINE_integer("worker_index", None, "Rank of this worker, with --workers.")

_PROFILE = flags.DEFINE_string("profile", "", "FIRST:LAST, steps to write a TensorBoard profile of, such as 10:15.")

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> None:
    """Builds the strategy, then the run, and leaves with an exit code that launchers understand."""
    del arguments
    config = _CONFIG.value
    workdir = (_WORKDIR.value or f"runs/{config.name}").rstrip("/")
    cluster = (
        resolve_cluster(os.environ, _WORKERS.value, _WORKER_INDEX.value) if _STRATEGY.value == "multi_worker" else None
    )
    if _WORKERS.value and not cluster:
        raise ConfigError("--workers and --worker_index need --strategy=multi_worker.")
    _log_to_stderr(cluster)

    from solo_dist.data.sharding.demo_data import make_missing_shapes
    from solo_dist.distributed.precision import set_determinism, set_precision
    from solo_dist.distributed.strategy import build_strategy, describe
    from solo_dist.distributed.watchdog import Watchdog
    from solo_dist.distributed.xla import start_xla_quietly

    # What follows can wait for other workers endlessly, so the watchdog watches it.
    with Watchdog(config.runtime.watchdog_minutes * 60) as watchdog:
        if cluster:
            log.info("waiting until all workers have started: %s", ", ".join(cluster.workers))
            wait_for_workers(cluster)
        strategy = build_strategy(
            _STRATEGY.value, cluster, config.runtime.communication, _NUM_DEVICES.value, _CPU_DEVICES.value
        )
        start_xla_quietly()
        set_precision(config.runtime.precision)
        set_determinism(config.seed, config.runtime.deterministic)
        log.info("%s", describe(strategy))
        make_missing_shapes(config, cluster is None or cluster.is_chief)
        # Exit without freeing the strategy, which can wait for workers that have ended.
        exit_codes.exit_now(_train(config, workdir, strategy, cluster, watchdog))


def _train(config: Config, workdir: str, strategy: Any, cluster: Cluster | None, watchdog: Any) -> int:
    import tensorflow as tf

    from solo_dist.distributed.strategy import is_peer_loss
    from solo_dist.run.workdir_lock import WorkdirLock
    from solo_dist.training.trainer import Trainer

    try:
        with WorkdirLock(workdir) if cluster is None or cluster.is_chief else contextlib.nullcontext():
            trainer = Trainer(config, workdir, strategy, cluster, _RESUME.value, watchdog, _PROFILE.value)
            trainer.fit()
    except Preempted as stop:
        log.info("%s", f"{stop}. {_how_to_go_on()}".rstrip())
        return exit_codes.EXIT_PREEMPTED
    except tf.errors.OpError as error:
        if not is_peer_loss(error):
            raise
        log.error("Another worker was lost: %s", error.message.splitlines()[0])
        return exit_codes.EXIT_PEER_LOST
    log.info("%s", trainer.directory.summary(trainer.step_number))
    return exit_codes.EXIT_DONE


def _how_to_go_on() -> str:
    if os.environ.get(JOB_ID_VARIABLE):
        return "The launcher's command continues from there."
    if os.environ.get(cli.WITHOUT_NEXT):
        return ""
    arguments = cli.take_flags(sys.argv[1:], "resume")[1]  # the run has a checkpoint of its own now
    command = [Path(sys.executable).name, "-m", "solo_dist.train", *arguments]
    return f"This command continues from there:\n  {shlex.join(command)}"


def _log_to_stderr(cluster: Cluster | None) -> None:
    """Plain lines with the time; workers other than the chief log warnings only."""
    level = logging.INFO if cluster is None or cluster.is_chief else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)


if __name__ == "__main__":
    cli.run(main)
