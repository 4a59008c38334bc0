"""The contract between the shard tool and the input pipeline: what a record holds, and the manifest of a folder.

A folder of shards holds TFRecord files, `records.npy` (int64 [num_records, 2]: file number and byte offset of each
record), `image_categories.npy` (int32 [P, 2]: image and class of each pair that is trained on; older folders lack it),
`annotations.json.gz` (the COCO json that evaluation uses: original sizes and ids, crowds included),
`rejected.jsonl` and `notices.jsonl` (for people) and `manifest.json`, which is written last: a folder without it is
not complete.

With V augmented copies of each image, record i * V + v is copy v of image i.
"""

import concurrent.futures
import dataclasses
import io
import json
from typing import Any

import google_crc32c
import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, GridConfig
from solo_dist.data.pixel_range import PixelRange
from solo_dist.data.tiling import Tiling
from solo_dist.errors import ConfigError, DataError
from solo_dist.masks.rle import Runs, decode_runs
from solo_dist.solo.targets import Positives, Targets, category_grid
from solo_dist.storage import file_io, store_errors, urls

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
RECORDS = "records.npy"
IMAGE_CATEGORIES = "image_categories.npy"
ANNOTATIONS = "annotations.json.gz"
REJECTED = "rejected.jsonl"
NOTICES = "notices.jsonl"
PROGRESS = ".progress"
NO_IMAGE = -(2**63)
"""image_id of padding in batches of a validation; ids of data sets are above it."""
ORIENTATIONS = ("plain", "flipped")

FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),  # encoded, RGB or gray
    "image_id": tf.io.FixedLenFeature([], tf.int64),  # of the COCO json
    "file_name": tf.io.FixedLenFeature([], tf.string),
    "size": tf.io.FixedLenFeature([2], tf.int64),  # height, width of the stored image; runs and boxes refer to it
    "original_size": tf.io.FixedLenFeature([2], tf.int64),  # height, width in the COCO json
    "canvas_size": tf.io.FixedLenFeature([2], tf.int64),  # height, width it takes on the canvas, multiples of 4
    "category": tf.io.RaggedFeature(tf.int64),  # [m] class 0..C-1, in annotation order
    "boxes": tf.io.FixedLenFeature([], tf.string),  # float32 [m, 4] x1, y1, x2, y2, inclusive
    "run_counts": tf.io.RaggedFeature(tf.int64),  # [m]
    "runs": tf.io.FixedLenFeature([], tf.string),  # zlib of int16 [r, 3]
    **{
        f"{part}_{orientation}": tf.io.FixedLenFeature([], tf.string)
        for orientation in ORIENTATIONS
        # int32 [2, P]: cells and instances; zlib of uint8 [m, h, w / 8]: bit-packed masks. Both on the canvas.
        for part in ("positives", "masks")
    },
    # Bits, one a class, the first in the highest bit: 1 if objects of it may have no annotation. Empty: 0 for all.
    "unknown_categories": tf.io.FixedLenFeature([], tf.string, default_value=b""),
}
_OPTIONAL = {"unknown_categories"}


class ShardError(DataError):
    """A folder of shards that cannot be used; the message names the folder and the remedy."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A parsed record; tensors inside the graph. Legend: m instances, r runs."""

    image: tf.Tensor
    """string, encoded image of `size`."""
    image_id: tf.Tensor
    """int64."""
    file_name: tf.Tensor
    """string."""
    size: tf.Tensor
    """int32 [2], height and width of the stored image."""
    original_size: tf.Tensor
    """int32 [2], height and width of the image in the COCO json."""
    canvas_size: tf.Tensor
    """int32 [2], height and width that it takes on the canvas; equal to `size` unless the original was kept."""
    categories: tf.Tensor
    """int32 [m]."""
    boxes: tf.Tensor
    """float32 [m, 4] x1, y1, x2, y2 in the stored image."""
    runs: Runs
    """Masks in the stored image."""
    features: dict[str, tf.Tensor]
    """As stored; for `precomputed_targets`."""


def parse_record(serialized: tf.Tensor) -> Record:
    """One serialized record (string scalar) -> Record. Fails with InvalidArgumentError if it is not one."""
    features = tf.io.parse_single_example(serialized, FEATURES)
    sizes = {name: tf.cast(features[name], tf.int32) for name in ("size", "original_size", "canvas_size")}
    boxes = tf.reshape(tf.io.decode_raw(features["boxes"], tf.float32), [-1, 4])
    return Record(
        image=features["image"],
        image_id=features["image_id"],
        file_name=features["file_name"],
        **sizes,
        categories=tf.cast(features["category"], tf.int32),
        boxes=boxes,
        runs=decode_runs(features["runs"], tf.cast(features["run_counts"], tf.int32)),
        features=features,
    )


def precomputed_targets(record: Record, flipped: tf.Tensor | bool, canvas: tuple[int, int], num_cells: int) -> Targets:
    """The stored targets for the geometry of the shards, plain or flipped (bool scalar): two decoding ops."""

    def stored(part: str) -> tf.Tensor:
        plain, mirrored = (record.features[f"{part}_{orientation}"] for orientation in ORIENTATIONS)
        return tf.where(flipped, mirrored, plain)

    positives = tf.reshape(tf.io.decode_raw(stored("positives"), tf.int32), [2, -1])
    packed = tf.io.decode_raw(tf.io.decode_compressed(stored("masks"), "ZLIB"), tf.uint8)
    height, width = canvas[0] // MASK_STRIDE, canvas[1] // MASK_STRIDE
    grid = category_grid(positives[0], positives[1], record.categories, num_cells)
    return Targets(Positives(positives[0], positives[1], grid), tf.reshape(packed, [-1, height, width // 8]))


def unknown_categories(record: Record, num_categories: int) -> tf.Tensor:
    """The classes of which objects may have no annotation, uint8 [ceil(C / 8)] of bits, the first in the highest."""
    size = -(-num_categories // 8)
    bits = tf.io.decode_raw(record.features["unknown_categories"], tf.uint8)
    return tf.ensure_shape(tf.pad(bits, [[0, size]])[:size], [size])


def serialize_record(values: dict[str, Any]) -> bytes:
    """Values by the names of FEATURES (bytes, int, or a list of int) -> a serialized tf.train.Example."""
    assert set(values) | _OPTIONAL == set(FEATURES), set(values) ^ set(FEATURES)

    def feature(value: Any) -> tf.train.Feature:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        numbers = [value] if isinstance(value, int) else value
        return tf.train.Feature(int64_list=tf.train.Int64List(value=numbers))

    example = tf.train.Example(features=tf.train.Features(feature={name: feature(v) for name, v in values.items()}))
    return example.SerializeToString(deterministic=True)


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """A file of the folder: a shard, or one of the two side files (num_records 0)."""

    name: str
    num_records: int
    bytes: int
    crc32c: str
    """Eight hexadecimal digits."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds."""

    schema_version: int
    num_images: int
    num_instances: int
    rejected: dict[str, int]
    """Annotations and images that are not in the records, by reason."""
    canvas: tuple[int, int]
    """H, W that the targets were computed for."""
    grid: GridConfig
    categories: list[dict[str, Any]]
    """{"id": id in the COCO json, "name": ...}; the position in the list is the class."""
    files: list[ShardFile]
    augmented_copies: int
    """Records of each image; above 1: each of another random crop and scale."""
    keep_original: bool
    """Whether images are stored whole instead of fitted into the canvas."""
    statistics: dict[str, Any]
    """`solo_dist.data.sharding.counts.Counts`: positives_per_level, colliding, max_positives, image_bytes, ..."""
    side_files: list[ShardFile]
    """records.npy, image_categories.npy and annotations.json.gz."""
    notices: dict[str, int] = dataclasses.field(default_factory=dict)
    """What seems to be wrong with entries that are in the records, by reason."""
    pixel_range: PixelRange | None = None
    """What became black and white in images of more than 8 bits; None: there are none."""
    tiling: Tiling | None = None
    """How images were cut into tiles, which are the images of the folder; None: they were not."""
    fingerprint: str = ""
    """A text that identifies the data and settings that the shards were made from."""
    folder: str = ""
    """Where it was read from; not stored."""

    @property
    def num_records(self) -> int:
        """Images times copies."""
        return self.num_images * self.augmented_copies

    @property
    def is_federated(self) -> bool:
        """Whether some images leave open whether they show some category, as in LVIS."""
        return self.statistics.get("max_unknown_categories", 0) > 0

    @property
    def annotations(self) -> str:
        """Path of the COCO json (gzip) for evaluation."""
        return f"{self.folder}/{ANNOTATIONS}"

    def to_json(self) -> str:
        """The text of manifest.json."""
        values = dataclasses.asdict(self)
        del values["folder"]
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"

    def check_fits(self, canvas: tuple[int, int], grid: GridConfig, num_categories: int = 0, option: str = "") -> None:
        """Raises ConfigError if a recipe needs another canvas, other grids or another number of categories."""
        remedy = f"shard the data again for this recipe, or point {option or 'data.train'} to a folder that fits"
        if canvas != self.canvas:
            raise ConfigError(f"{self.folder} was sharded for canvas {self.canvas}, the recipe has {canvas}: {remedy}.")
        for field in dataclasses.fields(GridConfig):
            mine, wanted = getattr(self.grid, field.name), getattr(grid, field.name)
            if mine != wanted:
                raise ConfigError(
                    f"{self.folder} was sharded for model.grid.{field.name}={mine}, the recipe has {wanted}: {remedy}."
                )
        if num_categories and num_categories != len(self.categories):
            raise ConfigError(
                f"{self.folder} has {len(self.categories)} categories, the recipe has "
                f"model.num_categories={num_categories}: set it to 0 to take the number from the shards."
            )


def is_complete(folder: str) -> bool:
    """Whether a folder holds finished shards: the manifest is written last."""
    return file_io.exists(f"{folder}/{MANIFEST}")


def load_manifest(folder: str) -> Manifest:
    """Reads and checks manifest.json of a folder of shards (a path or a URL).

    Raises:
      ShardError: no such folder, not complete, not a manifest, another version, or a file missing or of another size.
    """
    folder = folder.rstrip("/").removesuffix(f"/{MANIFEST}")
    path = f"{folder}/{MANIFEST}"
    if not urls.is_remote(folder) and file_io.exists(folder) and not file_io.is_folder(folder):
        raise ShardError(f"{folder} is a file; give the folder of shards that `solo-dist shard` made.")
    try:
        text = file_io.read(path)
    except tf.errors.NotFoundError:
        if not file_io.names(folder) and (urls.is_remote(folder) or not tf.io.gfile.isdir(folder)):
            raise ShardError(
                f"The folder of shards {folder!r} does not exist; make it with `solo-dist shard`."
            ) from None
        raise ShardError(
            f"{folder} is not complete yet (no {MANIFEST}); run `solo-dist shard` on it (again)."
        ) from None
    try:
        values = json.loads(text)
        version = values["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{path} is not a manifest of shards ({error}); shard the data again.") from error
    if version != SCHEMA_VERSION:
        raise ShardError(
            f"{path} has schema_version {version}, this program reads {SCHEMA_VERSION}; shard the data again."
        )
    try:
        manifest = _manifest_of(values, folder)
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(f"{path} is damaged ({error!r}); shard the data again.") from error
    _check_files(manifest)
    return manifest


def load_record_index(manifest: Manifest) -> np.ndarray:
    """records.npy, int64 [num_records, 2]: number of the file in manifest.files, byte offset. Raises ShardError."""
    return _load_array(manifest, RECORDS)


def load_image_categories(manifest: Manifest) -> np.ndarray:
    """image_categories.npy, int32 [P, 2]: image and class of each pair that is trained on. Raises ShardError."""
    if not any(side.name == IMAGE_CATEGORIES for side in manifest.side_files):
        raise ShardError(
            f"{manifest.folder} does not say which categories are in which image, which data.repeat_threshold needs: "
            "it was made by an older version. Delete the folder, and shard the data again."
        )
    return _load_array(manifest, IMAGE_CATEGORIES)


def _load_array(manifest: Manifest, name: str) -> np.ndarray:
    path = f"{manifest.folder}/{name}"
    data = file_io.read(path)
    wanted = next(side.crc32c for side in manifest.side_files if side.name == name)
    if crc32c(data) != wanted:
        raise ShardError(
            f"{path} is damaged (checksum {crc32c(data)}, the manifest says {wanted}); shard the data again."
        )
    return np.load(io.BytesIO(data), allow_pickle=False)


def crc32c(data: bytes) -> str:
    """CRC-32C as eight hexadecimal digits."""
    return f"{google_crc32c.value(data):08x}"


def _manifest_of(values: dict[str, Any], folder: str) -> Manifest:
    values = dict(values)
    if "views" in values:  # its name in older folders
        values["augmented_copies"] = values.pop("views")
    values["canvas"] = tuple(values["canvas"])
    values["pixel_range"] = tuple(values.get("pixel_range") or ()) or None
    values["tiling"] = Tiling(**values["tiling"]) if values.get("tiling") else None
    values["grid"] = GridConfig(**{name: _tuples(value) for name, value in values["grid"].items()})
    for name in ("files", "side_files"):
        values[name] = [ShardFile(**file) for file in values[name]]
    manifest = Manifest(**values, folder=folder)
    manifest.grid.validate()
    if sum(file.num_records for file in manifest.files) != manifest.num_records:
        raise ValueError("the files' num_records do not add up to num_images times augmented_copies")
    if {side.name for side in manifest.side_files} - {IMAGE_CATEGORIES} != {RECORDS, ANNOTATIONS}:
        raise ValueError("side_files are not as expected")
    if not all(isinstance(category["name"], str) and "id" in category for category in manifest.categories):
        raise ValueError("categories are not as expected")
    return manifest


def _check_files(manifest: Manifest) -> None:
    present = set(file_io.names(manifest.folder))
    files = [*manifest.files, *manifest.side_files]
    for file in files:
        if file.name not in present:
            path = f"{manifest.folder}/{file.name}"
            raise ShardError(f"{path} is missing, the manifest lists it; run `solo-dist shard` on the folder again.")
    # In threads, as each request to a bucket takes a round trip.
    with concurrent.futures.ThreadPoolExecutor(16) as pool, store_errors.clear_errors(manifest.folder):
        sizes = list(pool.map(lambda file: file_io.size(f"{manifest.folder}/{file.name}"), files))
    for file, size in zip(files, sizes, strict=True):
        if size != file.bytes:
            path = f"{manifest.folder}/{file.name}"
            raise ShardError(f"{path} has {size} bytes, the manifest says {file.bytes}; run `solo-dist shard` again.")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
