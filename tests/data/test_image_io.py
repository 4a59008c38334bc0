"""Reading image files: what the header says, and the limit of pixels."""

import io

import numpy as np
import PIL.Image
import pytest

from solo_dist.data.image_io import open_image, read_image
from solo_dist.errors import Unusable


def png(**options) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.arange(15 * 20 * 3, dtype=np.uint8).reshape(15, 20, 3)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_the_header_of_a_png_is_read_without_its_pixels():
    opened = open_image(png())
    assert opened.upright == (15, 20) and opened.image.tile  # what is left to decode


def test_a_png_may_have_an_orientation():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    opened = open_image(png(exif=exif))
    assert opened.orientation == 6 and opened.upright == (20, 15)


def test_the_limit_of_pixels_is_for_whole_images(tmp_path, monkeypatch):
    (tmp_path / "large.png").write_bytes(png())
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Unusable, match="too many pixels; --tile"):
        read_image(str(tmp_path / "large.png"))
    assert read_image(str(tmp_path / "large.png"), limited=False).shape == (15, 20, 3)
