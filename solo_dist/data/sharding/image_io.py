"""Reading picture files of any kind and fitting them into a canvas, for the shard tool. No TensorFlow graph here.

Convention for orientation: COCO annotations are on the pixels as stored. Where the json gives the size of the
rotated picture instead (annotation tools that honour the EXIF tag do), the picture is rotated. An orientation that
does not exchange the sides (mirrored, upside down) cannot be told from the sizes: the pixels as stored are taken.
"""

import io

import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from solo_dist.data.sharding.coco import CocoImage, Unusable
from solo_dist.errors import StoreError
from solo_dist.storage import file_io

JPEG_QUALITY = 95
_EXIF_ORIENTATION = 0x0112
PIL.Image.MAX_IMAGE_PIXELS = None  # sides are limited by runs.MAX_SIDE, checked against the json before decoding


def read_bytes(path: str) -> bytes:
    """The file's content.

    Raises:
      Unusable: it is missing, empty or cannot be read.
      StoreError: the object store that it is in cannot be read; that is not the picture's fault.
    """
    try:
        data = file_io.read(path)
    except tf.errors.NotFoundError as error:
        raise Unusable("image file is missing") from error
    except StoreError as error:
        if file_io.is_remote(path):
            raise
        raise Unusable("image file cannot be read") from error.__cause__
    if not data:
        raise Unusable("image file is empty")
    return data


def decode(data: bytes, image: CocoImage) -> tuple[PIL.Image.Image, bool]:
    """Decodes a picture as RGB in the size that the json gives.

    Returns:
      The picture, and whether `data` is a JPEG that holds exactly these pixels, so that it need not be encoded again.
    Raises:
      Unusable: does not decode, or has another size.
    """
    try:
        picture: PIL.Image.Image = PIL.Image.open(io.BytesIO(data))
        size = picture.size
        as_stored = picture.format == "JPEG" and picture.mode in ("RGB", "L")
        turned = size != (image.width, image.height)
        if turned:
            sideways = picture.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
            if not sideways or size[::-1] != (image.width, image.height):
                raise Unusable("image size differs from the json")
            picture = PIL.ImageOps.exif_transpose(picture)
        picture = to_rgb(picture)
    except Unusable:
        raise
    except Exception as error:  # the decoders of a dozen formats raise whatever they like
        raise Unusable("image does not decode") from error
    return picture, as_stored and not turned


def cut_and_resize(picture: PIL.Image.Image, window: tuple[int, ...], size: tuple[int, int]) -> PIL.Image.Image:
    """The window (first row, first column, height, width) of a picture, resized to `size`, height and width.

    Bilinear with the filter widened when shrinking (antialiased). The official pipeline uses OpenCV's bilinear
    without antialiasing: the same where pictures grow, as in the official recipes, better where they shrink.
    """
    y, x, height, width = window
    box = (x, y, x + width, y + height)
    return picture.resize((size[1], size[0]), PIL.Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)


def encode_jpeg(picture: PIL.Image.Image) -> bytes:
    """JPEG of an RGB picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def tensorflow_decodes(data: bytes, size: tuple[int, int]) -> bool:
    """Whether the decoder of the input pipeline accepts a JPEG and finds the size, height and width."""
    try:
        return tuple(tf.io.decode_jpeg(data, channels=3).shape[:2]) == size
    except tf.errors.OpError:
        return False


def to_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """8 bits RGB of a picture of any mode; 16 bits are scaled. Raises Unusable for floating point pixels."""
    if picture.mode == "F":
        raise Unusable("image has floating point pixels")
    if picture.mode.startswith("I"):  # 16 bits a pixel; PIL's own conversion would clip instead of scale
        values = np.asarray(picture)
        picture = PIL.Image.fromarray((values >> 8 if values.max() > 255 else values).astype(np.uint8))
    return picture.convert("RGB")
