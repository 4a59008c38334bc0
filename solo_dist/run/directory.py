"""A run directory: the paths of its files, and which of them have a copy on this machine. README.md lists all files.

    run = RunDirectory("gs://bucket/runs/mine")
    run.find_checkpoint("latest")          # gs://bucket/runs/mine/checkpoints/step_00000100

Objects in a store cannot grow, and a store can become unreachable. A run directory in a store therefore has a local
folder beside it, always the same one on a machine: metrics.jsonl and tensorboard/ grow there and are uploaded, and the
newest checkpoints are written there first.
"""

import json
import re
import shlex

from solo_dist.config import Config
from solo_dist.errors import ConfigError
from solo_dist.run.checkpoint import CheckpointError, load_metadata
from solo_dist.run.checkpoint_store import CheckpointStore
from solo_dist.storage import file_io, urls

STEP_METRICS_FILE = "metrics.jsonl"
"""One JSON object a line: step, split, then tag: value."""
EVALUATION_METRICS_FILE = "metrics.json"
"""One JSON object, tag: value. This file and the next three are in the folder of an evaluation."""
RESULTS_FILE = "coco_instances_results.json"
IMAGE_IDS_FILE = "image_ids.json"
CATEGORY_METRICS_FILE = "category_metrics.json"


class RunDirectory:
    """The paths of a run directory.

    Attributes:
      path: the run directory, a path or URL without a slash at its end.
      local: the folder on this machine for growing files; `path` itself unless the run is in a store.
    """

    def __init__(self, path: str):
        self.path = path.rstrip("/")
        self.is_remote = urls.is_remote(self.path)
        self.local = urls.scratch_folder(self.path) if self.is_remote else self.path

    @property
    def config_file(self) -> str:
        """The config of the run."""
        return f"{self.path}/config.json"

    @property
    def environment_file(self) -> str:
        """Versions and devices of the run; see environment.py."""
        return f"{self.path}/environment.json"

    @property
    def step_metrics_file(self) -> str:
        """Metrics of training and of evaluations, by step."""
        return f"{self.path}/{STEP_METRICS_FILE}"

    @property
    def report(self) -> str:
        """Folder of the report."""
        return f"{self.path}/report"

    @property
    def tensorboard(self) -> str:
        """Folder of curves, panels and profiles."""
        return f"{self.path}/tensorboard"

    def evaluation(self, step: int) -> str:
        """Folder of the metrics and results of the evaluation at a step."""
        return f"{self.path}/eval/step_{step}"

    def evaluated_steps(self) -> list[int]:
        """Steps with the folder of an evaluation that has metrics or results, ascending."""
        names = (EVALUATION_METRICS_FILE, RESULTS_FILE)
        paths = [path for name in names for path in file_io.matches(f"{self.path}/eval/step_*/{name}")]
        found = (re.search(r"/step_(\d+)/[^/]*$", path) for path in paths)
        return sorted({int(match[1]) for match in found if match})

    def checkpoints(self, keep: int = 3) -> CheckpointStore:
        """The store of the newest checkpoints, with local copies if the run is in an object store."""
        return CheckpointStore(f"{self.path}/checkpoints", keep, f"{self.local}/checkpoints" if self.is_remote else "")

    def best(self) -> CheckpointStore:
        """The store of the checkpoint with the best mask AP."""
        return CheckpointStore(f"{self.path}/best", keep=1)

    def find_checkpoint(self, which: str) -> str:
        """Folder of a checkpoint.

        Args:
          which: 'latest', 'best', or the path of a checkpoint folder, of this run or another.
        Raises:
          CheckpointError: there is no such checkpoint.
        """
        which = which.rstrip("/")
        if which not in ("latest", "best"):
            load_metadata(which)
            return which
        store = self.checkpoints() if which == "latest" else self.best()
        steps = store.steps()
        if not steps:
            hint = "train first" if which == "latest" else "the best one appears with the first evaluation; try latest"
            raise CheckpointError(f"{store.folder} holds no complete checkpoint ({hint}, or give --checkpoint=PATH).")
        return store.path(steps[-1])

    def save_config(self, config: Config) -> None:
        """Writes config.json. Raises StoreError."""
        file_io.write(self.config_file, config.to_json().encode())

    def load_config(self) -> Config | None:
        """Reads config.json; None if there is no run here. Raises ConfigError if the file is damaged."""
        path = self.config_file
        if not file_io.exists(path):
            return None
        try:
            return Config.from_json(file_io.read(path).decode())
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"{path} is damaged ({error}); give the recipe with --config=RECIPE, or another --workdir."
            ) from error

    def summary(self, step: int) -> str:
        """What a finished run left in which place, and what to type next."""
        best = self.best().newest_metadata()
        found = f"\n  best mask AP  {best.ap:.3f}, {self.best().folder}" if best else ""
        run = shlex.quote(self.path)
        return (
            f"Finished at step {step}.\n"
            f"  checkpoints   {self.checkpoints().folder}{found}\n"
            f"  curves        tensorboard --logdir={shlex.quote(self.tensorboard)}\n"
            f"  metrics       {self.step_metrics_file}\n"
            "Next:\n"
            f"  solo-dist evaluate --workdir={run}\n"
            f"  solo-dist predict --workdir={run} --images='IMAGES/*.jpg' --output=OVERLAYS\n"
            f"  solo-dist export --workdir={run}"
        )

    def is_local_copy(self, folder: str) -> bool:
        """Whether a folder is in the local folder of a run in a store."""
        return self.is_remote and folder.startswith(f"{self.local}/")

    def remove_local_copies(self) -> None:
        """Removes the local folder of a run in a store; call it when everything has been uploaded."""
        if self.is_remote:
            file_io.remove_folder(self.local)
