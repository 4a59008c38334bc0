"""The config of a finished run, as a recipe file: --config=solo_dist/run/config_of_run.py:WORKDIR.

`cli` adds this flag if a program that works on a finished run gets --workdir and no --config; that way fields of the
config can be overridden on the command line all the same.
"""

from solo_dist.config import Config
from solo_dist.errors import ConfigError


def get_config(workdir: str) -> Config:
    """Reads config.json of a run directory. Raises ConfigError if there is no run, or the file is damaged."""
    from solo_dist.run.directory import RunDirectory  # imports TensorFlow: run directories can be in a bucket
    from solo_dist.storage import urls

    urls.prepare([workdir])
    config = RunDirectory(workdir).load_config()
    if config is None:
        raise ConfigError(f"There is no run in {workdir} (no config.json); give the --workdir of a training run.")
    return config
