"""Reading image files of any kind as RGB, and writing JPEG: for the shard tool and for prediction. No graph here.

Convention for orientation: COCO annotations are on the pixels as stored. If the json gives the size of the rotated
image instead (annotation tools that honour the EXIF tag do), the image is rotated. An orientation that does not
exchange the sides (mirrored, upside down) cannot be seen from the sizes: the pixels as stored are taken. Prediction
has no annotations to agree with, so it shows every image upright.
"""

import contextlib
import io
import threading
from collections.abc import Iterator

import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from solo_dist.errors import StoreError
from solo_dist.storage import file_io, urls

JPEG_QUALITY = 95
DCT_METHOD = "INTEGER_ACCURATE"
"""With it TensorFlow decodes a JPEG to the pixels that PIL gives; its default is up to 23 levels off, and no faster."""
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)

_opening = threading.Lock()


class Unusable(ValueError):
    """Why an entry of a data set cannot be used: a short reason from a fixed list, so that reasons can be counted."""


def read_bytes(path: str) -> bytes:
    """The file's content.

    Raises:
      Unusable: it is missing, empty or cannot be read.
      StoreError: the object store that it is in cannot be read; that is not the image's fault.
    """
    try:
        data = file_io.read(path)
    except tf.errors.NotFoundError as error:
        raise Unusable("image file is missing") from error
    except StoreError as error:
        if urls.is_remote(path):
            raise
        raise Unusable("image file cannot be read") from error.__cause__
    if not data:
        raise Unusable("image file is empty")
    return data


def decode(data: bytes, size: tuple[int, int]) -> tuple[PIL.Image.Image, bool]:
    """Decodes an image as RGB in the size (height, width) that the json gives. PIL's limit of pixels does not apply.

    Returns:
      The image, and whether `data` is a JPEG that holds exactly these pixels, so that it need not be encoded again.
    Raises:
      Unusable: does not decode, or has another size.
    """
    with _decoding():
        image = _open_of_any_size(data)
        as_stored = image.format == "JPEG" and image.mode in ("RGB", "L")
        turned = image.size != size[::-1]
        if turned:
            if image.size != size or image.getexif().get(_EXIF_ORIENTATION, 1) not in _SIDEWAYS:
                raise Unusable("image size differs from the json")
            image = PIL.ImageOps.exif_transpose(image)
        return to_rgb(image), as_stored and not turned


def read_image(path: str) -> np.ndarray:
    """uint8 [H0,W0,3] of an image file of any kind, upright as its EXIF tag says.

    Raises:
      Unusable: it cannot be read, does not decode, or has more pixels than PIL's limit against decompression bombs.
      StoreError: as `read_bytes`.
    """
    data = read_bytes(path)
    with _decoding():
        return np.asarray(to_rgb(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))))


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except Unusable:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise Unusable("image has too many pixels") from error
    except Exception as error:  # the decoders of a dozen formats raise many kinds of errors
        raise Unusable("image does not decode") from error


def _open_of_any_size(data: bytes) -> PIL.Image.Image:
    """Opens without PIL's limit of pixels: the sides are compared with the json before anything is decoded."""
    with _opening:  # the limit is a variable of PIL's module, and threads open images beside each other
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            return PIL.Image.open(io.BytesIO(data))
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit


def encode_jpeg(image: PIL.Image.Image) -> bytes:
    """JPEG of an RGB image."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def tensorflow_decodes(data: bytes, size: tuple[int, int]) -> bool:
    """Whether the decoder of the input pipeline accepts a JPEG and finds the size, height and width."""
    try:
        return tuple(tf.io.decode_jpeg(data, channels=3).shape[:2]) == size
    except tf.errors.OpError:
        return False


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """8 bits RGB of an image of any mode; 16 bits are scaled. Raises Unusable for floating point pixels."""
    if image.mode == "F":
        raise Unusable("image has floating point pixels")
    if image.mode.startswith("I"):  # 16 bits a pixel; PIL's own conversion would clip instead of scale
        values = np.asarray(image)
        image = PIL.Image.fromarray((values >> 8 if values.max() > 255 else values).astype(np.uint8))
    return image.convert("RGB")
