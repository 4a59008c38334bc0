"""Many images at once: reading, the network and what follows overlap, with a bound on the memory they need together.

    def read(path): return read_image(path)                         # in threads
    def finish(path, image, found): return coco_results(found, ...)  # in threads
    for results in overlapped(detector, paths, read, finish, batch=8, least_score=0.3): ...

Results come in the order of the items. The network gets batches and runs in the calling thread.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np

from solo_dist.errors import Unusable
from solo_dist.inference.detector import Detected, Detector, Fitted, Found

_THREADS = min(8, os.cpu_count() or 1)
_FINISHING_BYTES = 1 << 30
"""About as much as all images that are being finished may need together; a single one may need more."""
_PIXEL_BYTES = 40
"""What finishing an image needs for each pixel, besides one byte for each mask: an overlay in float32, and copies."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass
class _Loaded(Generic[Item]):
    """An image that has been read, and later the instances in it."""

    item: Item
    pixels: np.ndarray
    fitted: Fitted
    detected: Detected | None = None


def overlapped(
    detector: Detector,
    items: Iterable[Item],
    read: Callable[[Item], np.ndarray],
    finish: Callable[[Item, np.ndarray, Found], Result],
    batch: int,
    least_score: float,
) -> Generator[Result | Unusable, None, None]:
    """What `finish` returns for each item, or the error of `read`, in order.

    Args:
      detector: the model.
      items: what `read` understands, for example paths.
      read: uint8 [H0,W0,3] of an item; may raise Unusable.
      finish: gets the item, its pixels and the instances in it.
      batch: images that the network gets at once.
      least_score: instances with lower scores are left out.
    """

    def load(item: Item) -> _Loaded[Item] | Unusable:
        try:
            pixels = read(item)
        except Unusable as error:
            return error
        return _Loaded(item, pixels, detector.fit(pixels))

    def complete(image: _Loaded[Item] | Unusable) -> Result | Unusable:
        if isinstance(image, Unusable):
            return image
        assert image.detected is not None
        return finish(image.item, image.pixels, detector.paste(image.fitted, image.detected))

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        loaded = in_order(pool, load, items, batch + _THREADS, lambda _: 1)
        detected = _detected(detector, loaded, batch, least_score)
        yield from in_order(pool, complete, detected, _FINISHING_BYTES, _finishing_bytes)


def _finishing_bytes(image: _Loaded[Item] | Unusable) -> int:
    if isinstance(image, Unusable):
        return 0
    assert image.detected is not None
    height, width = image.fitted.original_size
    return height * width * (_PIXEL_BYTES + len(image.detected.scores))


def in_order(
    pool: concurrent.futures.Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    limit: int,
    cost: Callable[[Item], int],
) -> Iterator[Result]:
    """As `map`, in the threads of a pool. Works ahead as long as the costs stay below a limit."""
    running: collections.deque[tuple[concurrent.futures.Future[Result], int]] = collections.deque()
    spent = 0
    try:
        for item in items:
            while running and spent + cost(item) > limit:
                future, price = running.popleft()
                spent -= price
                yield future.result()
            running.append((pool.submit(function, item), cost(item)))
            spent += cost(item)
        while running:
            yield running.popleft()[0].result()
    finally:
        for future, _ in running:
            future.cancel()


def _detected(
    detector: Detector, images: Iterator[_Loaded[Item] | Unusable], batch: int, least_score: float
) -> Iterator[_Loaded[Item] | Unusable]:
    """Adds the instances to the images."""
    while group := list(itertools.islice(images, batch)):
        readable = [image for image in group if isinstance(image, _Loaded)]
        if readable:
            found = detector.detect_batch([image.fitted for image in readable], batch, least_score)
            for image, detected in zip(readable, found, strict=True):
                image.detected = detected
        yield from group
