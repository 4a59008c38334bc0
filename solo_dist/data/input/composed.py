"""Elements of training whose canvas may hold several images: mosaics, and pasted instances.

Which images they are, like everything else about an element, is a function of the seed and the position. An image that
shares a canvas is changed like one that has a canvas to itself, by random numbers of its own.
"""

from collections.abc import Callable

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data import augmentation, composition, geometry
from solo_dist.data.augmentation import Draws
from solo_dist.data.composition import Scene
from solo_dist.data.input.element import ImageMaker
from solo_dist.data.input.fixed_size import Element, fixed_size_targets
from solo_dist.data.input.reader import Readings, RecordReader, no_readings
from solo_dist.data.input.sampler import Sampler
from solo_dist.data.schema import Manifest, Record, parse_record
from solo_dist.errors import ConfigError
from solo_dist.solo import targets
from solo_dist.solo.family import find_member

_PASTED_PART = 4
_INTERVALS = {1: (0, 3), 2: (1, 3), 3: (2, 3), _PASTED_PART: (0, 1)}
"""By part: its interval of the other images of the epoch, and how many there are, so that a mosaic has four images."""

Make = Callable[[], tuple[Scene, Readings]]


def composed_element(
    config: Config, manifest: Manifest, reader: RecordReader, sampler: Sampler
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
    spec = find_member(config.model).target_spec(grid)
    composer = _Composer(config, manifest, reader, sampler)

    def element(position: tf.Tensor) -> tuple[Element, Readings]:
        record, scene, readings = composer.compose(position)
        made = targets.make_targets(scene.runs, scene.boxes, scene.categories, canvas, grid, spec)
        values = {
            "image": geometry.pad_to_canvas(scene.image, canvas),
            "image_size": tf.shape(scene.image)[:2],
            "image_id": record.image_id,
            "original_size": record.original_size,
            **fixed_size_targets(made, config, position),
        }
        return values, readings

    return element


class _Composer:
    """Reads the images of a position and makes one scene of them."""

    def __init__(self, config: Config, manifest: Manifest, reader: RecordReader, sampler: Sampler):
        self._seed, self._canvas, self._augment = config.seed, config.data.canvas, config.data.augment
        self._reader, self._sampler = reader, sampler
        self._make = ImageMaker(config, manifest, training=True)
        self._end = _end_of_composing(config)

    def compose(self, position: tf.Tensor) -> tuple[Record, Scene, Readings]:
        """The record at a position, int64 scalar, the scene, and what was read for it."""
        draws = augmentation.draw(self._seed, position)
        record, image, own = self._read(self._sampler.record(position))

        def alone() -> tuple[Scene, Readings]:
            return self._scene(record, image, draws, tf.constant(self._canvas), self._augment.scale), no_readings(3)

        def mosaic() -> tuple[Scene, Readings]:
            center = augmentation.draw_center(draws, self._canvas)
            rooms, scale = composition.rooms(center, self._canvas), self._augment.mosaic_scale
            partners = [self._partner(position, part, rooms[part], scale) for part in (1, 2, 3)]
            scenes = [self._scene(record, image, draws, rooms[0], scale), *(scene for scene, _ in partners)]
            return composition.mosaic(scenes, center, self._canvas), _joined([read for _, read in partners])

        def pasted() -> tuple[Scene, Readings]:
            return self._paste(scene, position)

        scene, others = self._if_drawn(position, draws.mosaic, self._augment.mosaic, mosaic, alone)
        unchanged = scene, no_readings(1)
        scene, other = self._if_drawn(position, draws.paste, self._augment.paste, pasted, lambda: unchanged)
        return record, scene, _joined([own, others, other])

    def _if_drawn(
        self, position: tf.Tensor, number: tf.Tensor, probability: float, composed: Make, otherwise: Make
    ) -> tuple[Scene, Readings]:
        """What `composed` makes, if the number says so and the last part of the schedule has not begun."""
        if not probability:
            return otherwise()
        return tf.cond((position < self._end) & (number < probability), composed, otherwise)

    def _paste(self, below: Scene, position: tf.Tensor) -> tuple[Scene, Readings]:
        """Some instances of another image over a scene."""
        room = tf.shape(below.image)[:2]
        above, readings = self._partner(position, _PASTED_PART, room, self._augment.scale)
        chosen = augmentation.draw_pasted(self._seed, position, _PASTED_PART, tf.size(above.categories))
        above = composition.select(above, chosen & composition.visible(above))
        corner = augmentation.draw_corner(
            augmentation.draw(self._seed, position, _PASTED_PART), tf.shape(above.image)[:2], room
        )
        return composition.paste(below, above, corner), readings

    def _partner(
        self, position: tf.Tensor, part: int, room: tf.Tensor, scale: tuple[float, float]
    ) -> tuple[Scene, Readings]:
        """Another image of the epoch, within `room`, int32 [2] height, width."""
        draws = augmentation.draw(self._seed, position, part)
        interval, intervals = _INTERVALS[part]
        share = (interval + tf.cast(draws.partner, tf.float64)) / intervals
        record, image, readings = self._read(self._sampler.partner(position, share))
        return self._scene(record, image, draws, room, scale), readings

    def _scene(
        self, record: Record, image: tf.Tensor, draws: Draws, room: tf.Tensor, scale: tuple[float, float]
    ) -> Scene:
        """An image, at most as large as `room`, int32 [2], and its instances."""
        size_before_turn = tf.where(augmentation.draw_turns(draws) % 2 > 0, room[::-1], room)
        room = size_before_turn if self._augment.turn else room
        placement = augmentation.draw_part(draws, record.size, self._canvas, self._augment, scale, room)
        runs, boxes, _ = self._make.instances(record, placement, draws)
        areas = composition.whole_areas(record.runs, tf.size(record.categories), placement)
        pixels = self._make.pixels(record, image, placement, draws)
        return Scene(pixels, runs, boxes, record.categories, areas)

    def _read(self, number: tf.Tensor) -> tuple[Record, tf.Tensor, Readings]:
        """Record, decoded image."""
        stored, broken = self._reader.read(number)
        return parse_record(stored.serialized), stored.image, Readings(number[None], broken[None])


def _end_of_composing(config: Config) -> int:
    """The first position of the last part of the schedule, which data.augment.off_for_last describes."""
    if not config.train.steps:  # the speed is being measured, to find how many steps there will be
        return tf.int64.max
    return round(config.train.steps * config.train.global_batch * (1.0 - config.data.augment.off_for_last))


def _joined(readings: list[Readings]) -> Readings:
    return Readings(*(tf.concat(parts, axis=0) for parts in zip(*readings, strict=True)))
