"""Instances joined over the borders of tiles: true masks cut into tiles come back to the pixel."""

import numpy as np
import pytest

from solo_dist.data.tiling import Tiling
from solo_dist.errors import ConfigError
from solo_dist.inference import tiles as module
from solo_dist.inference.detector import Found
from solo_dist.inference.tiles import MasksOfImage, detect_in_tiles, join, pieces_of_tile
from solo_dist.viz.overlay import overlay

SIZE = (300, 420)
TILING = Tiling(128, 128, 0.25)


def disc(y, x, radius):
    rows, columns = np.indices(SIZE)
    return np.hypot(rows - y, columns - x) < radius


def seen(tile, masks, scores, classes):
    """What a perfect model finds in a tile."""
    shown = [mask[tile.pixels] for mask in masks]
    kept = [i for i, mask in enumerate(shown) if mask.any()]
    kept.sort(key=lambda i: -scores[i])
    stacked = np.stack([shown[i] for i in kept]) if kept else np.zeros([0, tile.height, tile.width], bool)
    return Found(np.array([scores[i] for i in kept]), np.array([classes[i] for i in kept], int), stacked)


def joined(masks, scores, classes, tiling=TILING, change=lambda tile, found: found, across=False):
    pieces = []
    tiles = tiling.windows(SIZE)
    for tile in tiles:
        pieces += pieces_of_tile(change(tile, seen(tile, masks, scores, classes)), tile, tiles, SIZE)
    instances = join(pieces, across)
    return [(i[0].score, i[0].category) for i in instances], list(MasksOfImage(SIZE, instances))


@pytest.mark.parametrize("tiling", [TILING, Tiling(100, 140, 0.3), Tiling(512, 512, 0.2)])
def test_perfect_pieces_become_the_instances(tiling):
    """Discs of all sizes, some larger than a tile, some that touch others of their category."""
    masks = [
        disc(40, 40, 20),
        disc(96, 96, 30),
        disc(96, 157, 30),
        disc(150, 290, 100),
        disc(260, 60, 55),
        disc(280, 400, 60),
        disc(20, 250, 9),
        disc(20, 269, 9),
    ]
    scores, classes = np.linspace(0.9, 0.3, len(masks)), [0, 0, 0, 1, 0, 1, 2, 2]
    found, made = joined(masks, scores, classes, tiling)
    assert found == list(zip(scores, classes, strict=True))
    for mask, wanted in zip(made, masks, strict=True):
        assert (mask == wanted).all()


def test_an_instance_that_is_whole_in_a_tile_is_taken_from_there():
    """The other tiles, which see a part only, draw it badly."""
    mask = disc(64, 100, 25)  # whole in the first tile, cut by the second

    def change(tile, found):
        if tile.x == 0:
            return found
        return found._replace(masks=[one & (np.indices(one.shape)[0] > 10) for one in found.masks])

    found, (made,) = joined([mask], [0.5], [0], change=change)
    assert found == [(0.5, 0)] and (made == mask).all()


def test_a_mistake_of_one_of_several_tiles_does_not_count():
    """A large disc, whole in no tile; the network adds a bar to it in one of the tiles that show the place."""
    mask, bar = disc(150, 200, 120), np.zeros(SIZE, bool)
    bar[20:40, 196:204] = True
    tiling = Tiling(128, 128, 0.75)
    showing = [tile for tile in tiling.windows(SIZE) if bar[tile.pixels].sum() == bar.sum()]
    assert len(showing) > 2

    def change(tile, found):
        return found._replace(masks=found.masks | bar[tile.pixels]) if tile == showing[0] else found

    found, (made,) = joined([mask], [0.5], [0], tiling, change)
    assert found == [(0.5, 0)] and (made == mask).all()


def test_each_pixel_is_decided_by_the_pieces_whose_tiles_show_it():
    """Against a count of each pixel on its own."""
    rng = np.random.default_rng(0)
    tiles = Tiling(128, 128, 0.5).windows(SIZE)
    for _ in range(20):
        chosen = [tiles[i] for i in rng.choice(len(tiles), 4, replace=False)]
        whole = [disc(*(rng.uniform(0, side) for side in SIZE), 150) for _ in chosen]
        found = [
            Found(np.ones(1), np.zeros(1, int), mask[tile.pixels][None])
            for mask, tile in zip(whole, chosen, strict=True)
        ]
        pieces = [
            piece for one, tile in zip(found, chosen, strict=True) for piece in pieces_of_tile(one, tile, [tile], SIZE)
        ]
        if not pieces:
            continue
        yes, shown = np.zeros(SIZE, int), np.zeros(SIZE, int)
        for piece in pieces:
            shown[piece.tile.pixels] += 1
            yes[piece.box.pixels] += piece.mask
        (made,) = MasksOfImage(SIZE, [pieces])
        assert (made == (yes > shown / 2)).all()


def test_pieces_that_another_tile_shows_whole_are_left_out():
    """A fragment at an edge, in a place that a neighbour shows too and finds nothing in."""
    first, second = Tiling(128, 128, 0.5).windows(SIZE)[:2]
    fragment = disc(64, 128, 12)[first.pixels]
    found = Found(np.ones(1), np.zeros(1, int), fragment[None])
    assert pieces_of_tile(found, first, [first, second], SIZE) == []
    assert len(pieces_of_tile(found, first, [first], SIZE)) == 1


def test_pieces_that_agree_are_never_left_uncompared():
    """What boxes and numbers of pixels say, beside the masks themselves."""
    rng = np.random.default_rng(0)
    windows = Tiling(128, 128, 0.5).windows(SIZE)
    pieces = []
    for tile in windows[:6]:
        masks = [disc(*rng.uniform((40, 60), (110, 200)), rng.uniform(5, 60)) for _ in range(40)]
        found = Found(np.ones(40), np.zeros(40, int), [mask[tile.pixels] for mask in masks])
        pieces += pieces_of_tile(found, tile, [tile], SIZE)
    boxes, tiles = np.array([piece.box for piece in pieces]), np.array([piece.tile for piece in pieces])
    pixels = np.array([piece.pixels for piece in pieces])
    may = np.array([module._may_agree(number, boxes, tiles, pixels) for number in range(len(pieces))])
    ious = np.array([[module._iou_where_both_see(one, other) for other in pieces] for one in pieces])
    assert may[ious > module.SAME_INSTANCE].all() and (ious > module.SAME_INSTANCE).sum() > 300 and may.mean() < 0.5


def test_instances_that_overlap_in_different_ways_stay_apart():
    one, other = disc(100, 100, 40), disc(100, 150, 40)
    found, made = joined([one, other & ~one], [0.9, 0.8], [0, 0])
    assert len(found) == 2 and (made[0] == one).all() and (made[1] == (other & ~one)).all()


def test_categories_are_joined_only_if_an_instance_has_one():
    mask = disc(100, 110, 70)  # whole in no tile

    def change(tile, found):
        return found._replace(classes=found.classes + tile.x % 2)

    tiling = Tiling(128, 129, 0.25)
    assert {window.x % 2 for window in tiling.windows(SIZE)} == {0, 1}
    assert len(joined([mask], [0.5], [0], tiling, change)[0]) == 2
    found, (made,) = joined([mask], [0.5], [0], tiling, change, across=True)
    assert len(found) == 1 and (made == mask).all()


def test_detections_without_a_pixel_are_left_out():
    tiles = TILING.windows(SIZE)
    nothing = Found(np.ones(1), np.zeros(1, int), np.zeros([1, 128, 128], bool))
    assert pieces_of_tile(nothing, tiles[0], tiles, SIZE) == []
    assert join([]) == []


def test_masks_that_are_made_one_at_a_time_are_drawn_as_an_array_of_masks_is():
    masks = [disc(40, 40, 20), disc(150, 290, 100), np.zeros(SIZE, bool)]
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    labels = ["a", "b", "c"]
    one, other = overlay(image, np.stack(masks), labels), overlay(image, iter(masks), labels)
    assert (np.asarray(one) == np.asarray(other)).all()


def test_prediction_needs_an_overlap():
    with pytest.raises(ConfigError, match="give 0.2, for example"):
        detect_in_tiles(None, np.zeros([300, 420, 3], np.uint8), Tiling(128, 128, 0.0))
