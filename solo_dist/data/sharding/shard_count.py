"""How many shards a data set gets if the user does not say."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.data.sharding.image_files import image_file_size
from solo_dist.data.sharding.records import ShardSettings

_IMAGES_A_SHARD = 64
_FEW = 256
_BYTES_A_SHARD = 200e6
_MOST_SAMPLED = 200
_FILES_AT_A_TIME = 32
_BYTES_A_PIXEL = 0.5
"""About that of a JPEG of quality 95. Files with more, such as PNGs, are stored as such JPEGs."""


def default_count(roots: Sequence[str], images: Sequence[CocoImage], settings: ShardSettings) -> int:
    """One shard for every 64 images up to 256 shards; beyond 16,384 images, as many as have about 200 MB each.

    Images that are cut into tiles get one shard for every 64 tiles, at most 256.

    The size of the records is estimated from the sizes of at most 200 image files, spread evenly.

    Args:
      roots: folder or tar file of the images of each source.
      images: of the data set; at least one.
      settings: of the records.
    Raises:
      StoreError: the store of the images does not answer.
    """
    if settings.tiling:
        tiles = sum(len(settings.tiling.windows((image.height, image.width))) for image in images)
        return min(len(images), _FEW, -(-tiles // _IMAGES_A_SHARD))
    if len(images) <= _IMAGES_A_SHARD * _FEW:
        return -(-len(images) // _IMAGES_A_SHARD)
    chosen = images[:: -(-len(images) // _MOST_SAMPLED)]
    with ThreadPoolExecutor(_FILES_AT_A_TIME) as pool:
        sizes = list(pool.map(lambda image: _record_bytes(roots, image, settings), chosen))
    total = sum(sizes) / len(sizes) * len(images) * settings.augmented_copies
    return min(len(images), max(_FEW, math.ceil(total / _BYTES_A_SHARD)))


def _record_bytes(roots: Sequence[str], image: CocoImage, settings: ShardSettings) -> float:
    """Estimated bytes of a record of an image; its masks are small beside it."""
    height, width = settings.canvas
    pixels = float(image.height * image.width)
    fitted = pixels * min(height / image.height, width / image.width) ** 2 if pixels else float(height * width)
    stored = pixels if settings.keep_original and pixels else fitted
    try:
        density = image_file_size(roots, image) / (pixels or stored)
    except tf.errors.NotFoundError:  # counted when its record is made
        density = _BYTES_A_PIXEL
    return stored * (min(density, _BYTES_A_PIXEL) or _BYTES_A_PIXEL)
