"""Reading image files: what the header says, and the limit of pixels."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from solo_dist.data.image_io import open_image, read_image
from solo_dist.errors import Unusable
from solo_dist.importing.image_files import image_size


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


def test_an_orientation_may_be_behind_more_pixels_than_are_read_for_the_size(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    PIL.Image.fromarray(noise).save(buffer, "PNG")
    data = buffer.getvalue()
    assert len(data) > 1 << 19
    (tmp_path / "a.png").write_bytes(data[:-12] + chunk + data[-12:])  # IEND takes 12 bytes
    (tmp_path / "b.png").write_bytes(data)
    assert image_size(str(tmp_path / "a.png")).upright == (500, 400)
    assert image_size(str(tmp_path / "b.png")).upright == (400, 500)


def test_a_png_that_was_cut_off_is_unusable():
    with pytest.raises(Unusable, match="does not decode"):
        open_image(png()[:-40])


def test_the_limit_of_pixels_is_for_whole_images(tmp_path, monkeypatch):
    (tmp_path / "large.png").write_bytes(png())
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Unusable, match="too many pixels; --tile"):
        read_image(str(tmp_path / "large.png"))
    assert read_image(str(tmp_path / "large.png"), limited=False).shape == (15, 20, 3)
