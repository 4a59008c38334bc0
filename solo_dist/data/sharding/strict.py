"""Strict mode: the first image or annotation that is left out for a mistake in the data ends the run."""

from collections.abc import Iterable

from solo_dist.data import schema
from solo_dist.data.schema import Manifest, ShardError
from solo_dist.data.sharding.rejection import TOO_SMALL_PIECE, Rejection

BY_DESIGN = ("crowd", "ignore", TOO_SMALL_PIECE)
"""Reasons that are no mistake in the data: such annotations are kept for evaluation."""


def fail_on(rejected: Iterable[Rejection]) -> None:
    """Raises ShardError for the first that is rejected for a mistake."""
    for rejection in rejected:
        if rejection.reason not in BY_DESIGN:
            raise ShardError(
                f"--strict: {rejection.kind} {rejection.id} ({rejection.file or 'no image'}): {rejection.reason}"
                f"{rejection.detail and f' ({rejection.detail})'}. Correct the data, or run without --strict."
            )


def fail_on_reasons(manifest: Manifest) -> None:
    """Raises ShardError if a finished folder leaves something out for a mistake."""
    for reason, count in manifest.rejected.items():
        if reason not in BY_DESIGN:
            raise ShardError(
                f"--strict: {manifest.folder} was made without it and leaves out {count} for this reason: {reason} "
                f"(see its {schema.REJECTED}). Correct the data, or run without --strict."
            )
