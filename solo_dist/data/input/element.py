"""From a record to an element of a batch: the image on its canvas, and its targets."""

from collections.abc import Callable

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data import augmentation, geometry
from solo_dist.data.augmentation import Draws
from solo_dist.data.geometry import Placement
from solo_dist.data.input.fixed_size import Element, fixed_size_targets
from solo_dist.data.schema import Manifest, Record, precomputed_targets, unknown_categories
from solo_dist.masks.rle import Runs
from solo_dist.solo import targets
from solo_dist.solo.family import target_spec
from solo_dist.solo.targets import STORED_TARGETS


def reduction(config: Config, manifest: Manifest, training: bool) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """The factor by which whole images are shrunk while they are decoded, to save time in training; None: 1.

    Evaluation does not use it, so that it sees the same pixels as prediction.
    """
    if not (training and manifest.keep_original):
        return None
    return lambda size: geometry.reduction(size, config.data.canvas, config.data.augment.largest_scale)


class ImageMaker:
    """What becomes of one image of training or validation: resized or cut, mirrored, turned, in other colours."""

    def __init__(self, config: Config, manifest: Manifest, training: bool):
        augment = config.data.augment
        self._config, self._keep_original = config, manifest.keep_original
        # Augmented copies are random crops and scales already: they are taken as they are.
        self._draws_geometry = training and augment.changes_geometry and manifest.augmented_copies == 1
        self._resizes = self._draws_geometry or manifest.keep_original or (training and augment.composes)
        self._flips = training
        self._turns = training and augment.turn
        self._colours = training and augmentation.changes_colour(augment)
        self._reduce = reduction(config, manifest, training)
        self.changes_geometry = self._draws_geometry or self._turns
        """Whether stored targets cannot be used, as more than a flip is drawn."""

    def placement(self, record: Record, draws: Draws) -> Placement:
        """The placement of an image that has a canvas to itself."""
        canvas, augment = self._config.data.canvas, self._config.data.augment
        if self._draws_geometry:
            return augmentation.draw_placement(draws, record.size, canvas, augment)
        flip = augmentation.draw_flip(draws, augment) if self._flips else tf.constant(False)
        return geometry.stored_image(record.size, canvas, self._keep_original, flip)

    def pixels(self, record: Record, image: tf.Tensor, placement: Placement, draws: Draws) -> tf.Tensor:
        """The decoded image, uint8 [height, width, 3], on the canvas: uint8 [h, w, 3] without padding."""
        if self._resizes:
            image = geometry.move_image(image, placement, self._reduce(record.size) if self._reduce else 1)
        else:
            image = geometry.flip_image(image, placement.flip)
        if self._turns:
            image = geometry.turn_image(image, augmentation.draw_turns(draws))
        if self._colours:
            image = augmentation.change_colours(image, draws, self._config.data.augment)
        return geometry.to_uint8(image)

    def instances(self, record: Record, placement: Placement, draws: Draws) -> tuple[Runs, tf.Tensor, tf.Tensor]:
        """Masks and boxes, float32 [m, 4], of the record on the canvas, and the size of its image there, int32 [2]."""
        runs, boxes = geometry.move_instances(record.runs, record.boxes, record.size, placement)
        if not self._turns:
            return runs, boxes, placement.size
        return geometry.turn_instances(runs, boxes, placement.size, augmentation.draw_turns(draws))


def record_to_element(
    config: Config, manifest: Manifest, training: bool
) -> Callable[[Record, tf.Tensor, tf.Tensor], Element]:
    """A function of a record, its decoded image and the position, which returns an element of a batch.

    If the image keeps the geometry of the record, apart from a flip, the stored targets are used. Otherwise targets are
    computed here with `make_targets`, as in the shard tool.
    """
    canvas, grid = config.data.canvas, config.model.grid
    spec = target_spec(config)
    fits = manifest.canvas == canvas and manifest.grid == grid
    make = ImageMaker(config, manifest, training)
    federated = training and config.loss.federated
    make_targets = not fits or make.changes_geometry or spec != STORED_TARGETS

    def build(record: Record, image: tf.Tensor, position: tf.Tensor) -> Element:
        draws = augmentation.draw(config.seed, position)
        placement = make.placement(record, draws)
        if make_targets:
            runs, boxes, size = make.instances(record, placement, draws)
            made = targets.make_targets(runs, boxes, record.categories, canvas, grid, spec)
        else:
            size = placement.size
            made = precomputed_targets(record, placement.flip, canvas, grid.num_cells)
        return {
            "image": geometry.pad_to_canvas(make.pixels(record, image, placement, draws), canvas),
            "image_size": size,
            "image_id": record.image_id,
            "original_size": record.original_size,
            **fixed_size_targets(made, config, position),
            **({"unknown_categories": unknown_categories(record, len(manifest.categories))} if federated else {}),
        }

    return build
