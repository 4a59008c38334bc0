"""Errors of weights that a user gave."""

from solo_dist.errors import ConfigError, DataError


class WeightFileError(DataError):
    """A file that holds no weights that can be read; the message names it."""


class WeightsError(ConfigError):
    """Weights that cannot be downloaded, or do not fit the model; the message says what differs."""
