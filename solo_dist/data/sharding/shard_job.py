"""What is asked of the shard tool, and the text that identifies the data and settings of a folder of shards."""

import dataclasses
import json

from solo_dist.config import check_canvas
from solo_dist.data import schema
from solo_dist.data.sharding.image_files import check_root
from solo_dist.data.sharding.reading import Reading
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.data.sharding.sources import Source
from solo_dist.errors import ConfigError

MOST_SHARDS = 99_999
_NOT_OF_COPIES = ("mosaic", "mosaic_scale", "paste", "off_for_last")


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """What to shard, and where to."""

    annotations: str
    images: str
    output: str
    settings: ShardSettings
    num_shards: int = 0
    """0: as many as `shard_count.default_count` says."""
    strict: bool = False
    """Fail at the first image or annotation that is rejected for a mistake in the data."""
    more_sources: tuple[Source, ...] = ()
    """Further annotations and images of the same data set."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources."""
        return Source(self.annotations, self.images), *self.more_sources

    @property
    def image_roots(self) -> tuple[str, ...]:
        """Folder or tar file of the images of each source."""
        return tuple(source.images for source in self.sources)


def check(job: ShardJob) -> None:
    """Raises ConfigError if the settings are impossible, or there are no such images."""
    settings = job.settings
    settings.grid.validate()
    check_canvas("canvas", settings.canvas)
    if not 0 <= job.num_shards <= MOST_SHARDS:
        raise ConfigError(f"num_shards={job.num_shards} must be 1 to {MOST_SHARDS}, or 0 to choose by the data.")
    if settings.augmented_copies < 1:
        raise ConfigError(f"augmented_copies={settings.augmented_copies} must be at least 1.")
    if settings.augmented_copies > 1 and settings.keep_original:
        raise ConfigError(
            "keep_original keeps whole images, so augmented copies cannot be drawn from them; give one of the two."
        )
    if settings.augmented_copies > 1 and not settings.augment.changes_geometry:
        raise ConfigError(
            "augmented_copies above 1 need a recipe with data.augment.scale, crop or short_sides to draw them by."
        )
    for root in dict.fromkeys(job.image_roots):
        check_root(root)


def check_with_annotations(job: ShardJob) -> None:
    """As `check`; besides raises CocoError if there are no annotations, which only planning reads."""
    check(job)
    for source in job.sources:
        source.check_annotations()


def fingerprint(settings: ShardSettings, annotations_crc32c: str, num_shards: int) -> str:
    """Identifies data and settings, so that shards of another kind are never mixed in."""
    values = dataclasses.asdict(settings)
    if settings.augmented_copies == 1:
        del values["augment"], values["seed"]
    else:
        for option in _NOT_OF_COPIES:
            del values["augment"][option]
    if settings.reading == Reading():
        del values["reading"]
    for option in ("pixel_range", "tiling"):
        if values[option] is None:
            del values[option]
    known = {"schema": schema.SCHEMA_VERSION, "annotations": annotations_crc32c, "num_shards": num_shards}
    return json.dumps(known | values, sort_keys=True)


def checksum_of(job: ShardJob) -> str:
    """CRC-32C of the annotations. Raises CocoError if there are none, TarError, StoreError."""
    checksums = [source.checksum() for source in job.sources]
    return checksums[0] if len(checksums) == 1 else schema.crc32c(" ".join(checksums).encode())


def completed(job: ShardJob, found: str) -> tuple[ShardJob, str]:
    """The job with what it leaves open as in the fingerprint of a folder, and the checksum of its annotations.

    The job is of the folder's kind if `fingerprint` then gives the same text. `found` that is no fingerprint of this
    version leaves the job as it is.
    """
    try:
        values = json.loads(found)
        crc, num_shards, pixel_range = values["annotations"], values["num_shards"], values.get("pixel_range")
    except (ValueError, KeyError, TypeError, AttributeError):
        return job, ""
    settings = job.settings
    if settings.pixel_range is None and pixel_range is not None:
        settings = dataclasses.replace(settings, pixel_range=tuple(pixel_range))
    return dataclasses.replace(job, settings=settings, num_shards=job.num_shards or num_shards), crc
