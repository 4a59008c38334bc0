"""Canvases to choose from, with the AP that is possible on each and the sizes of objects on it."""

import dataclasses

import numpy as np

from solo_dist.config import CANVAS_MULTIPLE
from solo_dist.data.cells import Placed
from solo_dist.inference.ceiling import ceiling_at_quarter_resolution
from solo_dist.suggesting.facts import Facts

_LONG_SIDES = (128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280)
_MOST_CANDIDATES = 6
_MOST_ENLARGED = 1.5
"""Enlarged images gain a finer grid of mask pixels, but no detail."""
_FITTING_IMAGES = 0.9
"""Share of the images that a canvas of another shape than a square has to fit without being the smaller for it."""
_CEILING_OBJECTS = 400
"""The ceiling is computed on images with about this many objects."""


@dataclasses.dataclass(frozen=True)
class CanvasFacts:
    """A canvas, and what it does to the data."""

    size: tuple[int, int]
    """H, W."""
    placed: Placed
    ceiling: float
    """AP of perfect masks at a quarter of the resolution: a model on this canvas cannot reach more."""
    ceiling_small: float
    """The same of objects of up to 32 x 32 pixels in the image file; -1: there are none."""
    is_fast: bool
    """Whether the time suffices to train on it; if not, it is shown, not chosen."""

    @property
    def small_side(self) -> float:
        """The size, in pixels of the canvas, that a tenth of the objects is below."""
        return float(np.quantile(self.placed.sizes, 0.1))

    @property
    def median_side(self) -> float:
        """The size that half of the objects are below."""
        return float(np.median(self.placed.sizes))


def candidates(facts: Facts) -> list[tuple[int, int]]:
    """Canvases from small to large, of the shape of the images."""
    sizes = facts.sizes
    longest = np.quantile(sizes.max(axis=1), _FITTING_IMAGES) * _MOST_ENLARGED
    return [_canvas(side, sizes) for side in _LONG_SIDES if side <= max(longest, _LONG_SIDES[0])]


def _canvas(long_side: int, sizes: np.ndarray) -> tuple[int, int]:
    """H, W with that long side; the other as long as nearly all images, scaled to it, need."""
    shares = np.quantile(np.minimum(1, sizes / sizes[:, ::-1]), _FITTING_IMAGES, axis=0)
    height, width = (int(np.ceil(long_side * share / CANVAS_MULTIPLE)) * CANVAS_MULTIPLE for share in shares)
    return height, width


def compare_canvases(facts: Facts, most_pixels: float, mask_target: str) -> list[CanvasFacts]:
    """Some canvases from small to large, the last one larger than the time allows if there is such a one.

    Args:
      facts: of the data.
      most_pixels: more would take too long on this machine; the smallest canvas counts as fast enough in any case.
      mask_target: as in `ceiling_at_quarter_resolution`.
    """
    sizes = candidates(facts)
    fast = max(1, sum(height * width <= most_pixels for height, width in sizes))
    numbers = range(max(0, fast - _MOST_CANDIDATES), min(fast + 1, len(sizes)))
    return [_canvas_facts(facts, sizes[number], number < fast, mask_target) for number in numbers]


def _canvas_facts(facts: Facts, size: tuple[int, int], is_fast: bool, mask_target: str) -> CanvasFacts:
    """Places the objects and computes the ceiling on a sample of the images."""
    ceiling = ceiling_at_quarter_resolution(_coco(facts), size, mask_target=mask_target)
    return CanvasFacts(size, facts.placed_on(size), ceiling["segm/AP"], ceiling["segm/APs"], is_fast)


def _coco(facts: Facts) -> dict:
    """A COCO json of images, evenly spread, that have about _CEILING_OBJECTS objects."""
    step = max(1, round(facts.num_objects / _CEILING_OBJECTS))
    chosen = facts.images[::step]
    if not any(image.objects for image in chosen):
        chosen = facts.images
    images = [
        {"id": number, "height": image.height, "width": image.width, "file_name": ""}
        for number, image in enumerate(chosen)
    ]
    objects = [(number, one) for number, image in enumerate(chosen) for one in image.objects]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": one.category,
            "bbox": list(one.bbox),
            "area": one.area,
            "iscrowd": 0,
            "segmentation": one.rle,
        }
        for number, (image, one) in enumerate(objects, start=1)
    ]
    names = [{"id": number, "name": name} for number, name in enumerate(facts.categories)]
    return {"images": images, "annotations": annotations, "categories": names}
