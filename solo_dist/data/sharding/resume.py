"""What an earlier run of the shard tool left in a folder: whether it can be kept, and files that are not its own."""

import dataclasses
import json
import re

import tensorflow as tf

from solo_dist.data import schema
from solo_dist.data.schema import Manifest, ShardError
from solo_dist.data.sharding.catalogue import read_images
from solo_dist.data.sharding.copy import is_intact
from solo_dist.data.sharding.images import repaired
from solo_dist.data.sharding.plan import plan_for, progress_folder, refuse
from solo_dist.data.sharding.rejection import Rejection
from solo_dist.data.sharding.shard_job import ShardJob, checksum_of, completed, fingerprint
from solo_dist.storage import file_io
from solo_dist.storage.atomic import PARTIAL


def finished_manifest(job: ShardJob) -> Manifest | None:
    """The manifest if the folder is complete, undamaged, and no image that it lacks has been repaired; else None.

    In strict mode, which fails if images are lacking, the folder counts as finished unless all of them are repaired.

    Raises:
      ShardError: the folder holds shards of other data or settings, or other files.
    """
    if not schema.is_complete(job.output):
        return None
    kind = _check_manifest_is_ours(job)
    manifest = _undamaged(job.output)
    if manifest and manifest.fingerprint == kind:
        usable = _usable_now(job)
        if not any(usable) or (job.strict and not all(usable)):
            return manifest
    return None


def reopened(job: ShardJob) -> ShardJob:
    """Removes the manifest of a folder that has to be made again; the job then asks for as many shards as before."""
    path = f"{job.output}/{schema.MANIFEST}"
    try:
        found = str(json.loads(file_io.read(path))["fingerprint"])
    except (tf.errors.NotFoundError, ValueError, KeyError, TypeError):
        found = ""
    file_io.remove(path)
    return dataclasses.replace(job, num_shards=completed(job, found)[0].num_shards)


def check_folder(job: ShardJob) -> None:
    """Raises ShardError if an unfinished folder is for other data or settings, or holds other files."""
    if plan_for(job) is None and (strange := _strange_files(job.output)):
        raise _other_files(job.output, strange[0])


def remove_partial_files(output: str) -> None:
    """Removes what processes left that were killed while they wrote. None may be at work."""
    for folder in (output, progress_folder(output)):
        for name in file_io.names(folder):
            if name.endswith(PARTIAL):
                file_io.remove(f"{folder}/{name}")


def _check_manifest_is_ours(job: ShardJob) -> str:
    """The fingerprint of the data and settings of a job whose output has a manifest."""
    output = job.output
    text = file_io.read(f"{output}/{schema.MANIFEST}")
    try:
        theirs = str(json.loads(text)["fingerprint"])
    except (ValueError, KeyError, TypeError):
        names = set(file_io.names(output)) - {schema.MANIFEST}
        if not names or _strange_files(output):
            raise _other_files(output, schema.MANIFEST) from None
        return ""  # all other files are ours, so the manifest is ours too, and damaged
    whole, _ = completed(job, theirs)
    if fingerprint(whole.settings, checksum_of(job), whole.num_shards) != theirs:
        refuse(output)
    return theirs


def _usable_now(job: ShardJob) -> list[bool]:
    """For each image that was rejected while shards were made, whether it can be used now."""
    path = f"{job.output}/{schema.REJECTED}"
    try:
        lines = file_io.read(path).splitlines()
    except tf.errors.NotFoundError:  # a copy of the folder may lack it
        return []
    try:
        rejected = [Rejection(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise ShardError(f"{path} is damaged ({error}); delete the file, then run the same command.") from error
    if not any(rejection.kind == "image" for rejection in rejected):
        return []
    catalogue = read_images(job.sources)
    # The first lines are entries of annotations that cannot be used, whatever the files are.
    lacking = {rejection.id for rejection in rejected[len(catalogue.rejected) :] if rejection.kind == "image"}
    return list(repaired(job.image_roots, catalogue.images(), lacking, job.settings.reading))


def _undamaged(output: str) -> Manifest | None:
    try:
        manifest = schema.load_manifest(output)
    except ShardError:
        return None
    return manifest if is_intact(output, [*manifest.files, *manifest.side_files]) else None


def _strange_files(output: str) -> list[str]:
    """Names in a folder of files that this tool does not write."""
    known = re.compile(
        r"shard-\d+-of-\d+\.tfrecord.*|(records|image_categories)\.npy.*|annotations\.json\.gz.*"
        r"|(rejected|notices)\.jsonl.*|manifest\.json.*"
    )
    return [name for name in file_io.names(output) if not known.fullmatch(name) and name != schema.PROGRESS]


def _other_files(output: str, name: str) -> ShardError:
    return ShardError(f"{output} holds other files ({name}); choose an empty --output folder.")
