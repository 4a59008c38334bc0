"""Elements of training whose canvas may hold several images: mosaics, and pasted instances.

Which images they are, like everything else about an element, is a function of the seed and the position. An image that
shares a canvas is changed like one that has a canvas to itself, by random numbers of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data import augmentation, composition
from solo_dist.data.augmentation import Draws
from solo_dist.data.composition import Scene
from solo_dist.data.input.element import ImageMaker
from solo_dist.data.input.fixed_size import Element, fixed_size_targets
from solo_dist.data.input.mixture import PartSampler
from solo_dist.data.input.reader import Readings, RecordReader, no_readings
from solo_dist.data.input.sampler import Sampler
from solo_dist.data.schema import Manifest, Record, parse_record, unknown_categories
from solo_dist.errors import ConfigError
from solo_dist.solo import targets
from solo_dist.solo.family import target_spec

_PARTS = 5
_PASTED = 4
"""The number of the part whose instances are pasted."""


def composed_element(
    config: Config, manifest: Manifest, reader: RecordReader, sampler: Sampler | PartSampler
) -> Callable[[tf.Tensor], tuple[Element, Readings]]:
    """A function of a position, which returns its element and what was read for it.

    Raises:
      ConfigError: the shards hold augmented copies, which cannot be scaled for a mosaic.
    """
    if manifest.augmented_copies > 1:
        raise ConfigError(
            f"data.augment.mosaic and paste need whole images, and {manifest.folder} holds augmented copies; shard it "
            "again without --augmented_copies, or set both to 0."
        )
    canvas, grid = config.data.canvas, config.model.grid
    spec = target_spec(config)
    composer = _Composer(config, manifest, reader, sampler)

    def element(position: tf.Tensor) -> tuple[Element, Readings]:
        made = composer.compose(position)
        scene = made.scene
        values = {
            "image": scene.image,
            "image_size": made.image_size,
            "image_id": made.image_id,
            "original_size": made.original_size,
        }
        if config.loss.federated:
            values["unknown_categories"] = made.unknown
        goals = targets.make_targets(scene.runs, scene.boxes, scene.categories, canvas, grid, spec)
        return values | fixed_size_targets(goals, config, position), made.read

    return element


class _Composed(NamedTuple):
    """A canvas to which one image after another is added."""

    scene: Scene
    """On the canvas, padding included."""
    image_size: tf.Tensor
    """int32 [2], height and width of the canvas without padding at its edges."""
    image_id: tf.Tensor
    """int64, of the image at the position."""
    original_size: tf.Tensor
    """int32 [2], of the same image."""
    unknown: tf.Tensor
    """uint8 of bits as of `unknown_categories`: a class is unknown if it is in one of the images of a mosaic. Images
    that instances are pasted from do not count, as all their visible pixels are of annotated instances."""
    read: Readings
    """What was read for each part; zeros for parts that the canvas does not have."""


class _Plan(NamedTuple):
    """What is drawn for a canvas as a whole."""

    position: tf.Tensor
    is_mosaic: tf.Tensor
    center: tf.Tensor
    """int32 [2] y, x of the point at which the images of a mosaic meet; 0, 0 if it is none."""


class _Composer:
    """Reads the images of a position and makes one scene of them.

    The images are added in a loop. TensorFlow would need several times as long for the start if each had operations of
    its own in the graph.
    """

    def __init__(self, config: Config, manifest: Manifest, reader: RecordReader, sampler: Sampler | PartSampler):
        self._seed, self._canvas, self._augment = config.seed, config.data.canvas, config.data.augment
        self._reader, self._sampler = reader, sampler
        self._categories = len(manifest.categories) if config.loss.federated else 0
        self._make = ImageMaker(config, manifest, training=True)
        self._end = _end_of_composing(config)

    def compose(self, position: tf.Tensor) -> _Composed:
        """The canvas at a position, int64 scalar."""
        draws = augmentation.draw(self._seed, position)
        composing = position < self._end
        is_mosaic = composing & (draws.mosaic < self._augment.mosaic)
        is_pasted = composing & (draws.paste < self._augment.paste)
        center = tf.where(is_mosaic, augmentation.draw_center(draws, self._canvas), 0)
        plan = _Plan(position, is_mosaic, center)
        parts = tf.boolean_mask(tf.range(_PARTS), tf.stack([True, *[is_mosaic] * 3, is_pasted]))

        def add(index: tf.Tensor, made: _Composed) -> tuple[tf.Tensor, _Composed]:
            return index + 1, self._add(made, parts[index], plan)

        start = (tf.constant(0), self._nothing())
        _, made = tf.while_loop(
            lambda index, _: index < tf.size(parts), add, start, _shapes(start), parallel_iterations=1
        )
        # If the image is alone, all its instances stay, as in training without mosaics.
        kept = composition.visible(made.scene) | (tf.size(parts) == 1)
        return made._replace(scene=composition.select(made.scene, kept))

    def _nothing(self) -> _Composed:
        sizes, read = tf.zeros([2], tf.int32), no_readings(_PARTS)
        unknown = tf.zeros([-(-self._categories // 8)], tf.uint8)
        return _Composed(composition.empty(self._canvas), sizes, tf.constant(0, tf.int64), sizes, unknown, read)

    def _add(self, made: _Composed, part: tf.Tensor, plan: _Plan) -> _Composed:
        """With one more image: part 0 is the one at the position, 1 to 3 complete a mosaic, the last one is pasted."""
        draws = augmentation.draw(self._seed, plan.position, part)
        number = self._number(part, plan, draws)
        stored, broken = self._reader.read(number)
        record, is_pasted = parse_record(stored.serialized), part == _PASTED
        # An image alone is the lower right tile of a mosaic that meets at the upper left corner.
        tile = tf.where(plan.is_mosaic, part, 3)
        room = tf.where(is_pasted, made.image_size, composition.room_of(tile, plan.center, self._canvas))
        scale = tf.where(
            plan.is_mosaic & ~is_pasted,
            augmentation.draw_scale(draws, self._augment.mosaic_scale),
            augmentation.draw_scale(draws, self._augment.scale),
        )
        scene = self._scene(record, stored.image, draws, scale, room)
        size = tf.shape(scene.image)[:2]

        def pasted() -> Scene:
            chosen = augmentation.draw_pasted(self._seed, plan.position, part, tf.size(scene.categories))
            above = composition.select(scene, chosen & composition.visible(scene))
            return composition.paste(made.scene, above, augmentation.draw_corner(draws, size, room))

        def laid() -> Scene:
            return composition.lay(made.scene, scene, composition.corner_of(tile, plan.center, size))

        read = Readings(
            tf.tensor_scatter_nd_update(made.read.record, [[part]], number[None]),
            tf.tensor_scatter_nd_update(made.read.broken, [[part]], broken[None]),
        )
        is_own = part == 0
        unknown = tf.where(is_pasted, tf.constant(0, tf.uint8), unknown_categories(record, self._categories))
        return _Composed(
            scene=tf.cond(is_pasted, pasted, laid),
            image_size=tf.where(is_own, tf.where(plan.is_mosaic, self._canvas, size), made.image_size),
            image_id=tf.where(is_own, record.image_id, made.image_id),
            original_size=tf.where(is_own, record.original_size, made.original_size),
            unknown=tf.bitwise.bitwise_or(made.unknown, unknown),
            read=read,
        )

    def _number(self, part: tf.Tensor, plan: _Plan, draws: Draws) -> tf.Tensor:
        """The record of a part, int64 scalar; those of a mosaic come from different thirds of the other images."""
        share = tf.cast(draws.partner, tf.float64)
        share = tf.where(part == _PASTED, share, (tf.cast(part - 1, tf.float64) + share) / 3)
        own, partner = self._sampler.record(plan.position), self._sampler.partner(plan.position, share)
        return tf.where(part == 0, own, partner)

    def _scene(self, record: Record, image: tf.Tensor, draws: Draws, scale: tf.Tensor, room: tf.Tensor) -> Scene:
        """An image, at most as large as `room`, int32 [2], and its instances."""
        if self._augment.turn:
            room = tf.where(augmentation.draw_turns(draws) % 2 > 0, room[::-1], room)
        placement = augmentation.draw_part(draws, record.size, self._canvas, self._augment, scale, room)
        runs, boxes, _ = self._make.instances(record, placement, draws)
        areas = composition.whole_areas(record.runs, tf.size(record.categories), placement)
        pixels = self._make.pixels(record, image, placement, draws)
        return Scene(pixels, runs, boxes, record.categories, areas)


def _shapes(values: Any) -> Any:
    """Shapes of the values of a loop: that of an image stays, and the number of instances and of runs changes."""

    def shape(value: tf.Tensor) -> tf.TensorShape:
        return tf.TensorShape([None, *value.shape[1:]]) if 0 in value.shape else value.shape

    return tf.nest.map_structure(shape, values)


def _end_of_composing(config: Config) -> int:
    """The first position of the last part of the schedule, which data.augment.off_for_last describes."""
    if not config.train.steps:  # the speed is being measured, to find how many steps there will be
        return tf.int64.max
    return round(config.train.steps * config.train.global_batch * (1.0 - config.data.augment.off_for_last))
