"""Calls to stores that are repeated after errors that can be temporary.

If a store does not answer, is overloaded or cannot be reached, the call is repeated with growing pauses, for
SOLO_DIST_STORE_SECONDS (300) in all. Other errors, and the last one, become a StoreError that names a remedy.
"""

import logging
import os
import warnings
from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

from solo_dist.storage.store_errors import cause_of, explained, may_pass, reason
from solo_dist.storage.urls import is_remote

_PATIENCE_VARIABLE = "SOLO_DIST_STORE_SECONDS"
_PATIENCE_SECONDS = 300.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0

T = TypeVar("T")

log = logging.getLogger(__name__)


def with_retries(call: Callable[[], T], path: str) -> T:
    """Repeats a call until it succeeds, fails permanently, or time is over.

    Raises:
      NotFoundError: there is no such file.
      StoreError: any other failure.
    """
    try:
        return _retried(call) if is_remote(path) else call()
    except tf.errors.OpError as error:
        cause = cause_of(error)
        if isinstance(error, tf.errors.NotFoundError) and (cause is None or cause.name != "bucket"):
            raise
        raise explained(error, path) from error


def _retried(call: Callable[[], T]) -> T:
    with warnings.catch_warnings():  # the import warns of Python versions that it will drop in some years
        warnings.simplefilter("ignore", FutureWarning)
        from google.api_core import exceptions, retry

    patience = float(os.environ.get(_PATIENCE_VARIABLE, _PATIENCE_SECONDS))
    policy = retry.Retry(
        predicate=may_pass,
        initial=_FIRST_PAUSE_SECONDS,
        maximum=_LONGEST_PAUSE_SECONDS,
        timeout=patience,
        on_error=lambda error: log.warning("%s. Trying again for up to %g s.", reason(error).rstrip("."), patience),
    )
    try:
        return policy(call)()
    except exceptions.RetryError as error:
        raise error.cause from None
