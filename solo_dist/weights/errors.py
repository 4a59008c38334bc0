"""What can be wrong with given weights."""

from solo_dist.errors import ConfigError, DataError


class WeightFileError(DataError):
    """A file that holds no weights that can be read; the message names it."""


class WeightsError(ConfigError):
    """Weights that cannot be had, or do not fit the model; the message says what differs."""
