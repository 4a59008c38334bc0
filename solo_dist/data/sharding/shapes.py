"""A small data set made by this project: textured shapes that overlap and hide each other on cluttered backgrounds.

Written in COCO format, images and an instances.json a split, as if it came from elsewhere. Masks are the visible
parts. Image i of a split is a function of (seed, split, i) alone. Colours and textures say nothing about the
category; only the outline does.
"""

import dataclasses
import io
import json
import math
from collections.abc import Callable

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import tensorflow as tf
import tqdm
from pycocotools import mask as coco_mask

from solo_dist.errors import ConfigError
from solo_dist.storage import file_io

CATEGORIES = ("disc", "square", "triangle", "star")
SPLITS = ("train", "validation")
_SUPERSAMPLING = 4
_ATTEMPTS = 12


@dataclasses.dataclass(frozen=True)
class ShapesSettings:
    """What the images look like."""

    side: int = 128
    """Height and width of the images in pixels."""
    num_categories: int = 3
    """The first so many of CATEGORIES."""
    smallest: float = 0.22
    """Smallest diameter as a share of the side."""
    largest: float = 0.65
    most_shapes: int = 4
    """Shapes an image, at least 1."""
    least_visible: float = 0.3
    """A shape of which a smaller share would remain visible is placed elsewhere or left out."""
    seed: int = 0

    def validate(self) -> None:
        """Raises ConfigError if no such image can be drawn."""
        if not 1 <= self.num_categories <= len(CATEGORIES):
            raise ConfigError(f"num_categories={self.num_categories} must be 1 to {len(CATEGORIES)}.")
        if not 0 < self.smallest <= self.largest <= 1:
            raise ConfigError(f"smallest={self.smallest}, largest={self.largest}: give 0 < smallest <= largest <= 1.")
        if not 32 <= self.side <= 4096:
            raise ConfigError(f"side={self.side} must be 32 to 4096.")
        if self.most_shapes < 1:
            raise ConfigError(f"most_shapes={self.most_shapes} must be at least 1.")


DEFAULT_SETTINGS = ShapesSettings()


def make_shapes(folder: str, split: str, count: int, settings: ShapesSettings) -> bool:
    """Writes `folder`/images/*.jpg and, last, `folder`/instances.json; returns False if that exists already."""
    settings.validate()
    if tf.io.gfile.exists(f"{folder}/instances.json"):
        return False
    tf.io.gfile.makedirs(f"{folder}/images")
    images: list[dict] = []
    annotations: list[dict] = []
    for index in tqdm.trange(count, desc=f"drawing {split}", unit=" images", mininterval=1.0):
        image, instances = draw_image(settings, SPLITS.index(split), index)
        name = f"{index:06d}.jpg"
        with tf.io.gfile.GFile(f"{folder}/images/{name}", "wb") as file:
            file.write(_jpeg(image))
        images.append({"id": index + 1, "file_name": name, "height": settings.side, "width": settings.side})
        for category, mask in instances:
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **_annotation(category, mask)})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CATEGORIES[: settings.num_categories])]
    content = {"images": images, "annotations": annotations, "categories": categories}
    file_io.write(f"{folder}/instances.json", json.dumps(content).encode())
    return True


def draw_image(settings: ShapesSettings, split: int, index: int) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Image number `index`: uint8 [side, side, 3] and its instances, (category, visible mask bool [side, side])."""
    random = np.random.default_rng([settings.seed, split, index])
    pixels = _background(random, settings.side)
    placed: list[_Placed] = []
    for _ in range(random.integers(1, settings.most_shapes + 1)):
        category = int(random.integers(settings.num_categories))
        coverage = _place(random, settings, category, placed)
        if coverage is not None:
            pixels = _paint(random, pixels, coverage)
            opaque = coverage >= 0.5
            for below in placed:
                below.visible &= ~opaque
            placed.append(_Placed(category, opaque, int(opaque.sum())))
    pixels += random.normal(0.0, random.uniform(1.0, 6.0), pixels.shape)
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8), [(shape.category, shape.visible) for shape in placed]


@dataclasses.dataclass
class _Placed:
    category: int
    visible: np.ndarray
    area: int
    """Pixels when nothing hid it."""


# ---- Outlines


def _place(
    random: np.random.Generator, settings: ShapesSettings, category: int, placed: list[_Placed]
) -> np.ndarray | None:
    """Coverage, float32 [side, side] in 0..1, of a shape that leaves enough of those below; None if none was found."""
    for _ in range(_ATTEMPTS):
        # Logarithmic, so that small ones are as frequent as large ones.
        diameter = settings.side * math.exp(random.uniform(math.log(settings.smallest), math.log(settings.largest)))
        center = random.uniform(diameter * 0.3, settings.side - diameter * 0.3, size=2)
        coverage = _rasterise(center + diameter / 2 * _outline(random, category), settings.side)
        opaque = coverage >= 0.5
        if all((below.visible & ~opaque).sum() >= settings.least_visible * below.area for below in placed):
            return coverage
    return None


def _outline(random: np.random.Generator, category: int) -> np.ndarray:
    """Points x, y, float [p, 2], of a shape of diameter 2 about the origin, turned and somewhat distorted."""
    turn = random.uniform(0, 2 * math.pi)
    name = CATEGORIES[category]
    if name == "disc":
        angles, radii = np.linspace(0, 2 * math.pi, 72, endpoint=False), np.ones(72)
    elif name == "star":
        angles = turn + np.arange(10) * math.pi / 5
        radii = np.where(np.arange(10) % 2, random.uniform(0.4, 0.5), 1.0)
    else:
        corners = 4 if name == "square" else 3
        angles, radii = turn + np.arange(corners) * 2 * math.pi / corners, np.ones(corners)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    squeeze = np.eye(2)
    squeeze[1, 1] = random.uniform(0.8, 1.0)
    turned = _rotation(turn) @ squeeze @ _rotation(-turn)
    return points @ turned.T


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _rasterise(points: np.ndarray, side: int) -> np.ndarray:
    """Coverage of each pixel by a polygon, float32 [side, side] in 0..1."""
    canvas = PIL.Image.new("L", (side * _SUPERSAMPLING, side * _SUPERSAMPLING))
    PIL.ImageDraw.Draw(canvas).polygon([tuple(point) for point in points * _SUPERSAMPLING], fill=255)
    return np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / 255


# ---- Colours and textures


def _paint(random: np.random.Generator, pixels: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """The shape over the image, with a soft shadow beside it."""
    below = pixels[coverage > 0].mean(axis=0)
    if random.random() < 0.7:
        shift = tuple(random.integers(-4, 5, size=2))
        shadow = PIL.Image.fromarray((np.roll(coverage, shift, axis=(0, 1)) * 255).astype(np.uint8))
        soft = np.asarray(shadow.filter(PIL.ImageFilter.GaussianBlur(random.uniform(1, 3))), np.float32)
        pixels = pixels * (1 - 0.5 * soft[..., None] / 255)
    surface = _texture(random, len(coverage), _colour_unlike(random, below))
    return pixels + coverage[..., None] * (surface - pixels)


def _texture(random: np.random.Generator, side: int, colour: np.ndarray) -> np.ndarray:
    """A surface, float32 [side, side, 3]: shaded plain, striped, dotted or chequered in two tones."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    angle, period = random.uniform(0, math.pi), random.uniform(6, 16)
    u = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / period)
    v = (y * math.cos(angle) - x * math.sin(angle)) * (2 * math.pi / period)
    waves: list[Callable[[], np.ndarray]] = [
        lambda: np.zeros_like(u),
        lambda: np.sin(u),
        lambda: np.cos(u) + np.cos(v) - 0.8,
        lambda: np.sin(u) * np.sin(v) * 2,
    ]
    share = np.clip(waves[random.integers(len(waves))]() * 2 + 0.5, 0, 1)[..., None]  # the slope softens the edges
    other = np.clip(colour * random.uniform(0.45, 0.8), 0, 255) if random.random() < 0.6 else _colour(random)
    light = 1 + 0.25 * np.sin(u / 16 + v / 24 + random.uniform(0, 6))[..., None]
    return (colour + share * (other - colour)) * light


def _background(random: np.random.Generator, side: int) -> np.ndarray:
    """Smooth patches of colour with thin lines and small specks, none as thick as a shape; float32 [side, side, 3]."""
    cells = int(random.integers(2, 7))
    base = _colour(random) * 0.6 + random.uniform(0, 100)
    patches = np.clip(base + random.normal(0, 35, (cells, cells, 3)), 0, 255).astype(np.uint8)
    image = PIL.Image.fromarray(patches).resize((side, side), PIL.Image.Resampling.BICUBIC)
    draw = PIL.ImageDraw.Draw(image)
    for _ in range(random.integers(4, 16)):
        colour = tuple(int(value) for value in _colour(random))
        start = random.uniform(0, side, 2)
        if random.random() < 0.5:
            end = start + random.normal(0, side / 3, 2)
            draw.line([*start, *end], fill=colour, width=int(random.integers(1, 4)))
        else:
            draw.ellipse([*start, *(start + random.uniform(2, 8, 2))], fill=colour)
    return np.asarray(image.filter(PIL.ImageFilter.GaussianBlur(0.6)), np.float32)


def _colour(random: np.random.Generator) -> np.ndarray:
    """A colour, float [3] in 0..255, of any hue, neither black nor grey."""
    hue, saturation, value = random.uniform(0, 6), random.uniform(0.35, 0.95), random.uniform(100, 250)
    weight = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation * (1 - weight))


def _colour_unlike(random: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """A random colour that differs visibly from another one, if a few draws find it."""
    colours = [_colour(random) for _ in range(4)]
    return max(colours, key=lambda colour: min(float(np.abs(colour - other).sum()), 150.0))


# ---- Files


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _annotation(category: int, mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "category_id": category + 1,
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode()},
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": float(mask.sum()),
        "iscrowd": 0,
    }
