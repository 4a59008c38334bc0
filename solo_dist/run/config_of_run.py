"""The recipe that a run directory holds, as a recipe file: --config=solo_dist/run/config_of_run.py:WORKDIR.

`cli` puts it in where a program that works on a finished run gets --workdir and no --config, so that fields can be
overridden on the command line all the same.
"""

import json

from solo_dist.config import Config
from solo_dist.errors import ConfigError


def get_config(workdir: str) -> Config:
    """Reads config.json of a run directory. Raises ConfigError where there is no run, or the file is damaged."""
    from solo_dist.storage import file_io  # imports TensorFlow: run directories can be in a bucket

    file_io.prepare([workdir])
    path = f"{workdir.rstrip('/')}/config.json"
    if not file_io.exists(path):
        raise ConfigError(f"There is no run in {workdir} (no config.json); give the --workdir of a training run.")
    try:
        return Config.from_json(file_io.read(path).decode())
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is damaged ({error}); give the recipe with --config=RECIPE.") from error
