"""Reading image files of any kind as RGB of 8 bits, and writing JPEG: for the shard tool and for prediction. No graph.

Orientation: an image is stored in one way, and its EXIF or TIFF tag may say that people are to see it in another.
`open_image` leaves the choice to its caller. Prediction has no annotations to agree with, and takes all upright.

More than 8 bits: values are mapped by one range for a whole data set, so that the same value is the same brightness in
every image; see pixel_range.py.
"""

import contextlib
import dataclasses
import io
import threading
from collections.abc import Iterator

import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from solo_dist.data.pixel_range import FULL_RANGE, PixelRange, to_8_bits
from solo_dist.errors import StoreError, Unusable
from solo_dist.storage import file_io, urls

JPEG_QUALITY = 95
DCT_METHOD = "INTEGER_ACCURATE"
"""With it TensorFlow decodes a JPEG to the pixels that PIL gives; its default is up to 23 levels off, and no faster."""
_EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""Orientations in which height and width are exchanged."""
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
_PNG_TAGS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""What a PNG with an orientation contains."""
_PNG_END = b"IEND"
_PNG_BITS = 24
"""Place of the byte with the bits a value."""
_DEEP_MODES, _COLOURS = ("I", "F"), ("RGB", "RGBA", "LA")
"""Beginnings of Pillow's modes of more than 8 bits, such as I;16; and the modes it gives to colours of 16 bits."""
_TURNED_BACK = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}
"""How an upright image becomes the one that is stored, by orientation."""

_opening = threading.Lock()


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


@dataclasses.dataclass(frozen=True)
class OpenedImage:
    """An image file of which only the header has been read."""

    data: bytes
    image: PIL.Image.Image
    orientation: int
    """EXIF orientation, 1 to 8; 1: stored upright."""
    stored: tuple[int, int]
    """Height, width."""

    @property
    def upright(self) -> tuple[int, int]:
        """Height, width after turning."""
        return self.stored[::-1] if self.orientation in SIDEWAYS else self.stored

    @property
    def is_plain_jpeg(self) -> bool:
        """Whether the file, if it is not turned, is a JPEG that the input pipeline can take as it is."""
        return self.image.format == "JPEG" and self.image.mode in ("RGB", "L")

    @property
    def is_deep(self) -> bool:
        """Whether it has more than 8 bits a value."""
        mode = self.image.mode
        colours = self.image.format == "PNG" and self.data[_PNG_BITS] == 16 and mode in _COLOURS
        return colours or mode.startswith(_DEEP_MODES)

    @property
    def frames(self) -> int:
        """Number of images in the file. Raises Unusable if it cannot be found out."""
        with _decoding():
            return getattr(self.image, "n_frames", 1)

    def pixels(self, upright: bool) -> PIL.Image.Image:
        """The decoded image, in Pillow's mode. Raises Unusable if it does not decode."""
        with _decoding():
            self.image.load()
            # Pillow turns a TIFF while it loads it, and forgets the tag then.
            turned = self.orientation != 1 and _orientation(self.image) == 1
            if upright == turned or self.orientation == 1:
                return self.image
            if upright:
                return PIL.ImageOps.exif_transpose(self.image)
            return self.image.transpose(_TURNED_BACK[self.orientation])


def open_image(data: bytes, limited: bool = False) -> OpenedImage:
    """Reads the header of an image file.

    Args:
      data: the file.
      limited: whether Pillow's limit of pixels applies; without it, compare sizes before decoding.
    Raises:
      Unusable: it is no image, or has too many pixels.
    """
    with _decoding():
        image = PIL.Image.open(io.BytesIO(data)) if limited else _open_of_any_size(data)
        width, height = image.size
        if image.format == "TIFF":  # some versions of Pillow give the size after turning
            tags = image.tag_v2  # type: ignore[attr-defined]
            width, height = tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT]
        # Pillow decodes a PNG to look for its tags, as they can be behind the pixels. Few have any, but only a whole
        # file shows that there is none.
        upright = image.format == "PNG" and _PNG_END in data and not any(name in data for name in _PNG_TAGS)
        return OpenedImage(data, image, 1 if upright else _orientation(image), (height, width))


def _orientation(image: PIL.Image.Image) -> int:
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def read_image(path: str, pixel_range: PixelRange = FULL_RANGE, limited: bool = True) -> np.ndarray:
    """uint8 [H0,W0,3] of an image file of any kind, upright as its EXIF tag says.

    Args:
      path: of the file; a path or URL.
      pixel_range: what becomes black and white in an image of more than 8 bits.
      limited: whether PIL's limit of pixels, against decompression bombs, applies.
    Raises:
      Unusable: it cannot be read, does not decode, or has too many pixels.
      StoreError: as `read_bytes`.
    """
    return np.asarray(to_rgb(open_image(read_bytes(path), limited), True, pixel_range))


def to_rgb(opened: OpenedImage, upright: bool, pixel_range: PixelRange) -> PIL.Image.Image:
    """8 bits RGB of an image of any kind, upright or as stored; `pixel_range` is for one of more than 8 bits.

    Raises:
      Unusable: it does not decode.
    """
    values = deep_values(opened, upright)
    image = opened.pixels(upright) if values is None else PIL.Image.fromarray(to_8_bits(values, pixel_range))
    with _decoding():
        return image.convert("RGB")


def deep_values(opened: OpenedImage, upright: bool = False) -> np.ndarray | None:
    """Values [H, W] or [H, W, 3] of an image of more than 8 bits a value; None: it has 8 bits or fewer.

    Raises:
      Unusable: it does not decode.
    """
    if not opened.is_deep:
        return None
    if opened.image.mode.startswith(_DEEP_MODES):
        return np.asarray(opened.pixels(upright))
    # Pillow would cut the values of colours to 8 bits. A PNG with an orientation tag, which no known tool writes, is
    # not turned.
    with _decoding():
        values = tf.io.decode_png(opened.data, dtype=tf.uint16).numpy()
    return values[..., :3] if values.shape[-1] > 2 else values[..., 0]


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except Unusable:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise Unusable("image has too many pixels; --tile takes images of any size") from error
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
