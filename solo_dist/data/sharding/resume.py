"""What an earlier run of the shard tool left in a folder: whether it can be kept, and files that are not its own."""

import json
import re

import tensorflow as tf

from solo_dist.data import schema
from solo_dist.data.schema import Manifest, ShardError
from solo_dist.data.sharding.coco import Catalogue, Reading, Rejection
from solo_dist.data.sharding.copy import stored
from solo_dist.data.sharding.images import repaired
from solo_dist.storage import file_io
from solo_dist.storage.atomic import PARTIAL


def finished_manifest(
    output: str, fingerprint: str, images: str, catalogue: Catalogue, reading: Reading, strict: bool
) -> Manifest | None:
    """The manifest if the folder is complete, undamaged, and no image that it lacks has been repaired; else None.

    Args:
      output: folder of shards.
      fingerprint: of data and settings.
      images: folder of the images.
      catalogue: what was read from the instances json.
      reading: what was made of it.
      strict: make the folder again only if all images that it lacks have been repaired, as strict mode fails otherwise.
    Raises:
      ShardError: the folder holds shards of other data or settings, or other files.
    """
    if not schema.is_complete(output):
        return None
    _check_manifest_is_ours(output, fingerprint)
    manifest = _undamaged(output)
    if manifest and manifest.fingerprint == fingerprint:
        lacking = {rejection.id for rejection in _rejected_later(output, catalogue) if rejection.kind == "image"}
        usable = list(repaired(images, catalogue.images, lacking, reading))
        if not any(usable) or (strict and not all(usable)):
            return manifest
    return None


def discard_manifest(output: str) -> None:
    """Removes the manifest of a folder, which then counts as unfinished."""
    file_io.remove(f"{output}/{schema.MANIFEST}")


def prepare_folder(output: str, fingerprint: str) -> None:
    """Notes in the folder which data and settings it is for. Raises ShardError if it is for others already."""
    path = fingerprint_file(output)
    try:
        if file_io.read(path).decode() != fingerprint:
            _refuse(output)
    except tf.errors.NotFoundError:
        if strange := _strange_files(output):
            raise _other_files(output, strange[0]) from None
    for name in file_io.names(output):
        if name.endswith(PARTIAL):  # of a process that was killed while it wrote
            file_io.remove(f"{output}/{name}")
    file_io.write(path, fingerprint.encode())


def fingerprint_file(output: str) -> str:
    """The file that says which data and settings an unfinished folder is for."""
    return f"{output}/{schema.PROGRESS}/fingerprint.json"


def _check_manifest_is_ours(output: str, fingerprint: str) -> None:
    text = file_io.read(f"{output}/{schema.MANIFEST}")
    try:
        theirs = json.loads(text)["fingerprint"]
    except (ValueError, KeyError, TypeError):
        names = set(file_io.names(output)) - {schema.MANIFEST}
        if not names or _strange_files(output):
            raise _other_files(output, schema.MANIFEST) from None
        return  # all other files are ours, so the manifest is ours too, and damaged
    if theirs != fingerprint:
        _refuse(output)


def _undamaged(output: str) -> Manifest | None:
    try:
        manifest = schema.load_manifest(output)
    except ShardError:
        return None
    files = [*manifest.files, *manifest.side_files]
    intact = stored(output, files) == {file.name: (file.bytes, file.crc32c) for file in files}
    return manifest if intact else None


def _rejected_later(output: str, catalogue: Catalogue) -> list[Rejection]:
    """The lines of rejected.jsonl after those of the catalogue: rejections found while shards were made."""
    path = f"{output}/{schema.REJECTED}"
    try:
        lines = file_io.read(path).splitlines()
    except tf.errors.NotFoundError:  # a copy of the folder may lack it
        return []
    try:
        return [Rejection(**json.loads(line)) for line in lines[len(catalogue.rejected) :]]
    except (ValueError, TypeError) as error:
        raise ShardError(f"{path} is damaged ({error}); delete the file, then run the same command.") from error


def _strange_files(output: str) -> list[str]:
    """Names in a folder of files that this tool does not write."""
    known = re.compile(
        r"shard-\d+-of-\d+\.tfrecord.*|records\.npy.*|annotations\.json\.gz.*"
        r"|(rejected|notices)\.jsonl.*|manifest\.json.*"
    )
    return [name for name in file_io.names(output) if not known.fullmatch(name) and name != schema.PROGRESS]


def _other_files(output: str, name: str) -> ShardError:
    return ShardError(f"{output} holds other files ({name}); choose an empty --output folder.")


def _refuse(output: str) -> None:
    raise ShardError(f"{output} holds shards of other data or settings; delete the folder, or choose another --output.")
