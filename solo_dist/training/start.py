"""Where a run starts.

In order of precedence:
1. the checkpoint that --resume chooses (run/resume.py says which): weights, optimizer, and position in the input;
2. model.weights: a whole model, imported or of another run;
3. model.backbone.weights: a pretrained backbone, the rest random;
4. random numbers from the config's seed.
"""

import logging
from typing import Any

from solo_dist.config import Config
from solo_dist.data.schema import Manifest
from solo_dist.distributed import exit_codes
from solo_dist.errors import ConfigError
from solo_dist.run.checkpoint import Checkpoint
from solo_dist.run.resume import ResumePoint
from solo_dist.training.optim import Optimizer
from solo_dist.training.state import RunState
from solo_dist.weights.load import load_backbone_weights, load_model_weights

log = logging.getLogger(__name__)


def initialise(
    start: ResumePoint, config: Config, model: Any, optimizer: Optimizer, state: RunState, manifest: Manifest
) -> tuple[int, int]:
    """Fills the variables of a run, whose weights are random so far.

    Args:
      start: the checkpoint to resume from, if there is one.
      manifest: of the training shards.

    Returns:
      Finished steps, and images seen.
    Raises:
      ConfigError, DataError: checkpoint or weights do not fit the model or the data.
    """
    if start.checkpoint is not None:
        return _resume(start.checkpoint, start.folder, config, state, manifest)
    if config.model.weights:
        load_model_weights(model, config.model.weights, [category["name"] for category in manifest.categories])
        log.info("weights: %s", config.model.weights)
    elif match := load_backbone_weights(model):
        log.info("weights: backbone from %s, the rest random", match.source)
    else:
        log.info("weights: random, seed %d", config.seed)
    optimizer.restart_averages()
    return 0, 0


def _resume(
    checkpoint: Checkpoint, folder: str, config: Config, state: RunState, manifest: Manifest
) -> tuple[int, int]:
    step, images = checkpoint.metadata.step, checkpoint.metadata.images or 0
    state.restore(checkpoint.arrays, folder)
    if checkpoint.metadata.categories != manifest.categories:
        raise ConfigError(f"The categories of {config.data.train} are not those of the checkpoint {folder}.")
    # With a launcher on each machine, only the launcher of the chief has heard of the checkpoints.
    exit_codes.report_progress(step)
    log.info("weights: checkpoint of step %d in %s", step, folder.rpartition("/")[0])
    epoch, image = divmod(images, manifest.num_images)
    log.info("input: continues at image %d of epoch %d; no image is repeated or left out", image + 1, epoch + 1)
    return step, images
