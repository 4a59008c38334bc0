"""Detection in large images: tile by tile, then what several tiles show of one instance is joined.

Two detections of different tiles and of one category are the same instance if their IoU in the area that both tiles
show is above SAME_INSTANCE. An instance that lies whole in a tile is taken from there; any other has the pixels that
most of its pieces have whose tiles show them. A piece is left out if another tile shows all of it and is not cut off
there: that tile shows more of the instance. So objects should be smaller than what neighbouring tiles share, or at
least than a tile.

Memory is bounded: each detection is kept as the bits of its box, and masks of the size of the image are made one at a
time.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from solo_dist.data.tiling import Tiling, Window
from solo_dist.errors import ConfigError, Unusable
from solo_dist.inference.detector import Detector, Found
from solo_dist.solo.nms import SAME_INSTANCE

_EDGE = 0.02
"""Share of a tile's side. A mask that comes so near to the edge is taken to go on beyond it: the edges of predicted
masks are that uncertain."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """A detection in a tile."""

    tile: Window
    score: float
    category: int
    box: Window
    """Around its mask, in pixels of the image."""
    bits: np.ndarray
    """uint8 [box.height, ceil(box.width / 8)], the mask in the box, packed."""
    pixels: int
    """Number of pixels of the mask."""
    is_whole: bool
    """Whether it keeps clear of the edges at which the tile was cut off."""

    @property
    def mask(self) -> np.ndarray:
        """Bool [box.height, box.width]."""
        return self.part(self.box)

    def part(self, area: Window) -> np.ndarray:
        """The pixels of the mask in the part of the area that is in the box."""
        rows, columns = area.pixels_of(self.box)
        return np.unpackbits(self.bits[rows], axis=1, count=self.box.width).view(bool)[:, columns]

    def pixels_in(self, area: Window) -> int:
        """Pixels of the mask in the area."""
        return self.pixels if self.box.common(area) == self.box else np.count_nonzero(self.part(area))


class MasksOfImage(Sequence[np.ndarray]):
    """Masks, bool [H0,W0] each, which are made when they are asked for."""

    def __init__(self, size: tuple[int, int], instances: Sequence[Sequence[Piece]]):
        self._size, self._instances = size, instances

    def __len__(self) -> int:
        return len(self._instances)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        mask = np.zeros(self._size, bool)
        box, pixels = most_agreed(self._instances[index])
        mask[box.pixels] = pixels
        return mask


def most_agreed(pieces: Sequence[Piece]) -> tuple[Window, np.ndarray]:
    """The mask of an instance: the pixels that more than half of the pieces have whose tiles show them.

    A union of the pieces would also collect the mistakes of all of them.

    Returns:
      The box around all pieces, and bool [height, width], the pixels in it.
    """
    tops, lefts, heights, widths = np.array([piece.box for piece in pieces]).T
    y, x = tops.min(), lefts.min()
    box = Window(y, x, (tops + heights).max() - y, (lefts + widths).max() - x)
    votes = np.zeros([box.height, box.width], int)
    for piece in pieces:
        votes[piece.tile.pixels_of(box)] -= 1
        votes[piece.box.pixels_of(box)] += 2 * piece.mask
    return box, votes > 0


def tile_by_tile(
    detector: Detector,
    items: Iterable[Item],
    read: Callable[[Item], np.ndarray],
    finish: Callable[[Item, np.ndarray, Found], Result],
    tiling: Tiling,
    least_score: float,
) -> Iterator[Result | Unusable]:
    """As `overlap.overlapped`, with large images, one at a time, and each of them in tiles."""
    for item in items:
        try:
            image = read(item)
        except Unusable as error:
            yield error
            continue
        yield finish(item, image, detect_in_tiles(detector, image, tiling, least_score))


def detect_in_tiles(detector: Detector, image: np.ndarray, tiling: Tiling, least_score: float = 0.0) -> Found:
    """Detects in an image of any size, uint8 [H0,W0,3] RGB; masks have its size.

    Args:
      detector: the model; it sees each tile fitted into its canvas.
      image: the image.
      tiling: size and overlap of the tiles.
      least_score: instances with lower scores are left out.
    Raises:
      ConfigError: tiles without an overlap, by which pieces could not be joined.
    """
    if not tiling.overlap:
        raise ConfigError("--overlap=0: pieces are joined by what neighbouring tiles share; give 0.2, for example.")
    size = (image.shape[0], image.shape[1])
    pieces: list[Piece] = []
    tiles = tiling.windows(size)
    for tile in tiles:
        fitted = detector.fit(image[tile.pixels])
        (detected,) = detector.detect_batch([fitted], least_score=least_score)
        pieces += pieces_of_tile(detector.paste(fitted, detected), tile, tiles, size)
    instances = join(pieces, detector.config.postprocess.one_category)
    first = [instance[0] for instance in instances]
    return Found(
        scores=np.array([piece.score for piece in first], np.float32),
        classes=np.array([piece.category for piece in first], np.int32),
        masks=MasksOfImage(size, instances),
    )


def pieces_of_tile(found: Found, tile: Window, tiles: Sequence[Window], size: tuple[int, int]) -> list[Piece]:
    """The detections in one of the tiles of an image of `size`, without those that another tile shows more of."""
    pieces = []
    for score, category, mask in zip(found.scores, found.classes, found.masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            continue
        inside = Window(rows[0], columns[0], rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0])
        box = Window(tile.y + inside.y, tile.x + inside.x, inside.height, inside.width)
        is_whole = _is_clear_of_edges(box, tile, size)
        if is_whole or not any(_is_clear_of_edges(box, other, size) for other in tiles):
            part = mask[inside.pixels]
            bits, pixels = np.packbits(part, axis=1), int(np.count_nonzero(part))
            pieces.append(Piece(tile, float(score), int(category), box, bits, pixels, is_whole))
    return pieces


def _is_clear_of_edges(box: Window, tile: Window, size: tuple[int, int]) -> bool:
    """Whether a box is in a tile and not near to an edge of it, unless that is an edge of the image."""
    for axis in (0, 1):
        start, side = tile[axis], tile[axis + 2]
        near = max(1, round(_EDGE * side))
        before, after = box[axis] - start, start + side - (box[axis] + box[axis + 2])
        if before < (near if start > 0 else 0) or after < (near if start + side < size[axis] else 0):
            return False
    return True


def join(pieces: Iterable[Piece], across_categories: bool = False) -> list[list[Piece]]:
    """The pieces of each instance, the best instance first.

    Pieces are taken one by one, those that are whole first, by falling score. If a piece agrees with none of the
    instances so far, it begins another. Otherwise it belongs to the instance that it agrees with most: it is added if
    that one is not whole and has no piece of the same tile yet, and may then connect it with others; if not, it is left
    out.

    Args:
      pieces: of all tiles.
      across_categories: whether pieces of different categories can be the same instance.
    Returns:
      For each instance, its pieces, of which `most_agreed` makes its mask; the first has its score and category.
    """
    pieces = sorted(pieces, key=lambda piece: (not piece.is_whole, -piece.score))
    boxes = np.array([piece.box for piece in pieces], int).reshape(-1, 4)
    tiles = np.array([piece.tile for piece in pieces], int).reshape(-1, 4)
    pixels = np.array([piece.pixels for piece in pieces], int)
    category = np.array([0 if across_categories else piece.category for piece in pieces])
    is_used = np.zeros(len(pieces), bool)
    instance_of: dict[int, list[Piece]] = {}
    """Number of a piece that is used -> its instance."""
    for number, piece in enumerate(pieces):
        near = is_used & (category == category[number]) & _may_agree(number, boxes, tiles, pixels)
        agreement = {
            int(other): value
            for other in np.flatnonzero(near)
            if (value := _iou_where_both_see(piece, pieces[other])) > SAME_INSTANCE
        }
        agreeing = [instance_of[other] for other in sorted(agreement, key=lambda other: -agreement[other])]
        instance = agreeing[0] if agreeing else []
        if instance and (instance[0].is_whole or _have_common_tile(instance, [piece])):
            continue
        instance.append(piece)
        instance_of[number], is_used[number] = instance, True
        for other_instance in agreeing:
            if other_instance is not instance and not other_instance[0].is_whole:
                _connect(instance, other_instance, instance_of)
    found = {id(instance): instance for instance in instance_of.values()}
    return sorted(found.values(), key=lambda instance: -instance[0].score)


def _connect(instance: list[Piece], other: list[Piece], instance_of: dict[int, list[Piece]]) -> None:
    """Makes two instances one, unless a tile shows them as two."""
    if not _have_common_tile(instance, other):
        instance += other
        instance.sort(key=lambda piece: -piece.score)
        instance_of.update({number: instance for number, one in instance_of.items() if one is other})


def _have_common_tile(instance: Sequence[Piece], other: Sequence[Piece]) -> bool:
    return not {piece.tile for piece in instance}.isdisjoint(piece.tile for piece in other)


def _may_agree(number: int, boxes: np.ndarray, tiles: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Which pieces can have an IoU above SAME_INSTANCE with one of them in the area that both tiles show; bool [n].

    It is decided by boxes and numbers of pixels alone, to compare few masks.

    Args:
      number: of the piece.
      boxes: of all pieces, [n, 4].
      tiles: of all pieces, [n, 4].
      pixels: of all masks, [n].
    """
    areas = boxes[:, 2] * boxes[:, 3]
    least = pixels - areas + _common_areas(boxes, tiles[number])  # of each mask in the tile of the one
    least_of_one = pixels[number] - areas[number] + _common_areas(tiles, boxes[number])
    return _common_areas(boxes, boxes[number]) > SAME_INSTANCE * np.maximum(1, np.maximum(least, least_of_one))


def _common_areas(windows: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Pixels that windows [n, 4] have in common with a window [4]; int [n]."""
    start = np.maximum(windows[:, :2], window[:2])
    end = np.minimum(windows[:, :2] + windows[:, 2:], window[:2] + window[2:])
    return np.maximum(0, end - start).prod(axis=1)


def _iou_where_both_see(piece: Piece, other: Piece) -> float:
    """IoU in the area that the tiles of both show; 0 for pieces of one tile."""
    if piece.tile == other.tile:
        return 0.0
    common = piece.box.common(other.box)
    intersection = np.count_nonzero(piece.part(common) & other.part(common))
    if not intersection:
        return 0.0
    return intersection / (piece.pixels_in(other.tile) + other.pixels_in(piece.tile) - intersection)
