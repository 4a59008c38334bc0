"""One image and its annotations -> serialized records: what a worker of the shard tool does, image by image."""

import dataclasses
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow as tf

from solo_dist.config import AugmentConfig, GridConfig
from solo_dist.data import augmentation, geometry, image_io
from solo_dist.data.pixel_range import PixelRange
from solo_dist.data.schema import ORIENTATIONS, serialize_record
from solo_dist.data.sharding import tiles
from solo_dist.data.sharding.annotation import NUMBER, Annotation, clean_annotation
from solo_dist.data.sharding.boxes import official_boxes
from solo_dist.data.sharding.classes import Classes
from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.data.sharding.counts import Counts
from solo_dist.data.sharding.image_files import read_image_file
from solo_dist.data.sharding.images import EntryImage, read_entry
from solo_dist.data.sharding.reading import Reading
from solo_dist.data.sharding.rejection import TOO_SMALL_PIECE, Rejection
from solo_dist.data.tiling import Tiling
from solo_dist.errors import Unusable
from solo_dist.masks import rle
from solo_dist.solo.targets import Targets, count_collisions, make_targets


@dataclasses.dataclass(frozen=True)
class ShardSettings:
    """Everything that the bytes of the records depend on, besides the data set."""

    canvas: tuple[int, int]
    grid: GridConfig
    keep_original: bool = False
    """Store images whole, so that the pipeline can scale and crop them at full resolution."""
    augmented_copies: int = 1
    """Above 1: that many records of each image, each of another random crop and scale as `augment` says."""
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    seed: int = 0
    """Seed of the augmented copies."""
    reading: Reading = dataclasses.field(default_factory=Reading)
    pixel_range: PixelRange | None = None
    """What becomes black and white in images of more than 8 bits; None: there are none."""
    tiling: Tiling | None = None
    """How images are cut into tiles, each of which then counts as an image; None: they are not."""


@dataclasses.dataclass
class ImageResult:
    """The records and annotations of an image or of its tiles, or its rejection."""

    records: list[bytes] = dataclasses.field(default_factory=list)
    """One a copy of each part; empty if the image was rejected."""
    parts: list[tuple[CocoImage, list[Annotation]]] = dataclasses.field(default_factory=list)
    """The image with the size that was found, or its tiles, each with all annotations that evaluation can use, crowds
    included."""
    rejected: list[Rejection] = dataclasses.field(default_factory=list)
    notices: list[Rejection] = dataclasses.field(default_factory=list)
    """What seems to be wrong with what is in the records."""
    counts: Counts = dataclasses.field(default_factory=Counts)


class RecordMaker:
    """Makes the records of images. One a process: it holds a traced TensorFlow function."""

    def __init__(self, settings: ShardSettings, classes: Classes):
        self._settings, self._classes = settings, classes
        self._draw = _traced(self._draw_placement, _spec(2), _spec(dtype=tf.int64))
        self._resize = _traced(_resize, _spec(None, None, 3, dtype=tf.uint8), _PLACEMENT)
        self._place = _traced(geometry.move_instances, *_INSTANCES, _spec(2), _PLACEMENT)
        self._targets = _traced(self._make_targets, *_INSTANCES, _spec(None), _spec(2), _PLACEMENT)

    def make(
        self, image: CocoImage, index: int, roots: Sequence[str], raw_annotations: list[dict[str, Any]]
    ) -> ImageResult:
        """Records of image number `index` of the data set. Never raises for bad input.

        Args:
          image: as planned.
          index: of it.
          roots: folder or tar file of the images of each source.
          raw_annotations: of the image.
        Raises:
          TarError: the tar file has changed. StoreError: the store of the images does not answer.
        """
        image = self._classes.with_ids_of_set(image)
        try:
            data = read_image_file(roots, image)
            read = read_entry(image, data, self._settings.reading, self._settings.pixel_range, raw_annotations)
        except Unusable as error:
            rejected = [Rejection("image", image.id, image.file_name, str(error), _cause(error))]
            rejected += [_reject(raw, image, "its image was rejected") for raw in raw_annotations]
            return ImageResult(rejected=rejected)
        made, annotations = self._clean(read, raw_annotations)
        unknown = self._classes.unknown(image, {annotation.category for annotation in annotations})
        made.counts.add(Counts(max_unknown_categories=int(unknown.sum())))
        if not self._settings.tiling:
            self._add_records(made, read, annotations, unknown, index)
        else:
            for tile, pieces in tiles.cut(read, annotations, self._settings.tiling, index):
                self._add_records(made, tile, pieces, unknown, tile.entry.id)
                made.rejected += [_reject_piece(p, tile.entry) for p in pieces if p.untrainable == TOO_SMALL_PIECE]
        return made

    def _add_records(
        self, made: ImageResult, read: EntryImage, annotations: list[Annotation], unknown: np.ndarray, index: int
    ) -> None:
        """Adds the records of an image or a tile. The random numbers of its copies depend on `index`."""
        trained = [annotation for annotation in annotations if not annotation.untrainable]
        instances = _Instances(
            np.array([annotation.category for annotation in trained], np.int64),
            official_boxes(annotation.bbox for annotation in trained),
            [rle.rle_to_runs(annotation.rle) for annotation in trained],
        )
        by_category = np.bincount(instances.categories, minlength=len(self._classes.ids)).tolist()
        made.counts.add(Counts(instances=len(trained), instances_of_category=by_category))
        made.parts.append((read.entry, annotations))
        for copy in range(self._settings.augmented_copies):
            size = tf.constant([read.entry.height, read.entry.width])
            placement = self._draw(size, index * self._settings.augmented_copies + copy)
            record, more = self._record(read, instances, unknown, placement)
            made.records.append(record)
            made.counts.add(more)

    def _clean(self, read: EntryImage, raw_annotations: list[dict[str, Any]]) -> tuple[ImageResult, list[Annotation]]:
        """The usable annotations of an image, and a result with what was found about them, without records."""
        image = read.entry
        made, annotations = ImageResult(), []
        made.notices += [Rejection("image", image.id, image.file_name, notice) for notice in read.notices]
        for raw in raw_annotations:
            try:
                annotation = clean_annotation(raw, image, self._classes.of_source[image.source], self._settings.reading)
            except Unusable as error:
                made.rejected.append(_reject(raw, image, str(error), error.detail))
                continue
            annotations.append(annotation)
            made.notices += [_reject(raw, image, notice) for notice in annotation.notices]
            if annotation.untrainable:
                made.rejected.append(_reject(raw, image, annotation.untrainable))
        return made, annotations

    def _draw_placement(self, size: tf.Tensor, number: tf.Tensor) -> geometry.Placement:
        settings = self._settings
        if settings.augmented_copies == 1:
            return geometry.whole_image(size, settings.canvas)
        # No flip, as both orientations are stored; no mosaic and no pasting, as each copy shows one image.
        augment = dataclasses.replace(settings.augment, flip=False, mosaic=0.0, paste=0.0)
        return augmentation.draw_placement(augmentation.draw(settings.seed, number), size, settings.canvas, augment)

    def _record(
        self, read: EntryImage, instances: "_Instances", unknown: np.ndarray, placement: geometry.Placement
    ) -> tuple[bytes, Counts]:
        image, decoded, encoded = read.entry, read.rgb, read.jpeg
        size = (image.height, image.width)
        canvas_size = tuple(placement.size.numpy().tolist())
        if not self._settings.keep_original:
            window = tuple(placement.window.numpy().tolist())
            if window != (0, 0, *size) or canvas_size != size:
                pixels = self._resize(tf.constant(np.asarray(decoded)), placement)
                decoded, encoded = PIL.Image.fromarray(pixels.numpy()), b""
            instances = instances.moved(self._place, size, placement)
            if self._settings.augmented_copies > 1:
                instances = instances.with_pixels()
            size = canvas_size
        if not encoded or not image_io.tensorflow_decodes(encoded, size):
            encoded = image_io.encode_jpeg(decoded)
        run_bytes, run_counts = rle.encode_runs(instances.runs)
        values = {
            "image": encoded,
            "image_id": image.id,
            "file_name": image.file_name.encode("utf-8", "surrogatepass"),
            "size": list(size),
            "original_size": [image.height, image.width],
            "canvas_size": list(canvas_size),
            "category": instances.categories.tolist(),
            "boxes": instances.boxes.astype("<f4").tobytes(),
            "run_counts": run_counts,
            "runs": run_bytes,
        }
        if unknown.any():
            values["unknown_categories"] = np.packbits(unknown).tobytes()
        counts = Counts(image_bytes=len(encoded), max_instances=len(instances.runs))
        for orientation in ORIENTATIONS:
            made = self._canvas_targets(instances, size, orientation == "flipped")
            cells, owners = made.positives.cell.numpy(), made.positives.instance.numpy()
            values[f"positives_{orientation}"] = np.stack([cells, owners]).astype("<i4").tobytes()
            values[f"masks_{orientation}"] = zlib.compress(made.masks.numpy().tobytes())
            if orientation == "plain":
                _count_positives(counts, cells, owners, len(instances.runs), self._settings.grid)
        record = serialize_record(values)
        counts.record_bytes = len(record)
        return record, counts

    def _canvas_targets(self, instances: "_Instances", size: tuple[int, ...], flipped: bool) -> Targets:
        placement = geometry.stored_image(
            tf.constant(size), self._settings.canvas, self._settings.keep_original, flipped
        )
        return self._targets(
            rle.from_numpy(instances.runs),
            tf.constant(instances.boxes),
            tf.constant(instances.categories, tf.int32),
            tf.constant(size),
            placement,
        )

    def _make_targets(
        self,
        instance_runs: rle.Runs,
        boxes: tf.Tensor,
        categories: tf.Tensor,
        size: tf.Tensor,
        placement: geometry.Placement,
    ) -> Targets:
        moved, boxes = geometry.move_instances(instance_runs, boxes, size, placement)
        return make_targets(moved, boxes, categories, self._settings.canvas, self._settings.grid)


@dataclasses.dataclass(frozen=True)
class _Instances:
    """Instances that are trained on, in annotation order."""

    categories: np.ndarray
    boxes: np.ndarray
    runs: list[np.ndarray]

    def moved(self, place: Callable[..., Any], size: tuple[int, int], placement: geometry.Placement) -> "_Instances":
        """The instances on the canvas. Some may have no pixel left."""
        moved, boxes = place(rle.from_numpy(self.runs), tf.constant(self.boxes), tf.constant(size), placement)
        triples = np.stack([moved.row, moved.start, moved.end], axis=1).astype(np.int16)
        counts = np.bincount(moved.instance, minlength=len(self.runs))
        parts = np.split(triples, np.cumsum(counts)[:-1]) if len(self.runs) else []
        return _Instances(self.categories, boxes.numpy(), parts)

    def with_pixels(self) -> "_Instances":
        """Those that are not cut off entirely."""
        kept = np.flatnonzero([len(triples) for triples in self.runs])
        return _Instances(self.categories[kept], self.boxes[kept], [self.runs[i] for i in kept])


def _traced(function: Callable[..., Any], *signature: Any) -> Callable[..., Any]:
    # Control flow is written out; AutoGraph would only add seconds to the start of each process.
    return tf.function(function, input_signature=signature, autograph=False)


def _spec(*shape: int | None, dtype: tf.DType = tf.int32) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype)


_INSTANCES = (rle.Runs(*[_spec(None)] * 4), _spec(None, 4, dtype=tf.float32))
_PLACEMENT = geometry.Placement(_spec(4), _spec(2), _spec(dtype=tf.float64), _spec(dtype=tf.bool))


def _resize(image: tf.Tensor, placement: geometry.Placement) -> tf.Tensor:
    return geometry.to_uint8(geometry.move_image(image, placement))


def _count_positives(
    counts: Counts, cells: np.ndarray, instances: np.ndarray, num_instances: int, grid: GridConfig
) -> None:
    counts.positives_per_level = np.histogram(cells, [*grid.first_cells, grid.num_cells])[0].tolist()
    counts.max_positives = len(cells)
    collisions = count_collisions(cells, instances, num_instances, grid.num_cells)
    counts.colliding, counts.lost, counts.without_positives = collisions


def _reject(raw: dict[str, Any], image: CocoImage, reason: str, detail: str = "") -> Rejection:
    return Rejection("annotation", raw.get("id"), image.file_name, reason, detail, raw.get(NUMBER, 0))


def _reject_piece(piece: Annotation, tile: CocoImage) -> Rejection:
    place = tiles.place_in_file(piece.id)
    return Rejection("annotation", place, tile.file_name, TOO_SMALL_PIECE, number=place)


def _cause(error: Unusable) -> str:
    """What was found, or the first line of the decoder's message, without addresses of objects.

    So every run writes the same file.
    """
    if error.detail:
        return error.detail
    lines = str(error.__cause__ or "").splitlines()
    return re.sub(r"\s*<[^>]*>", "", lines[0])[:200] if lines else ""
