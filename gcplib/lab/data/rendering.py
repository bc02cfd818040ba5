"""Draw words in a typeface: a `Scene` holds everything but the typeface, so two families can share one scene."""

from __future__ import annotations

import colorsys
import io
import math
import string
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from gcplib.lab.data.fonts import WEIGHTS, Family, open_font, x_height
from gcplib.lab.data.readers import SPLITS

# Part of every cache file's name: raise it whenever a change here changes an image.
RENDERER = 1
_MARGIN = 0.03  # of the image's side, left free on every side
_X_HEIGHTS = (16.0, 28.0)  # pixels at 224: below it, letters of neighboring families are the same pixels
_SUPERSAMPLING = 2
_LEAST_CONTRAST = 4.5  # the WCAG ratio asked of large text

# Common English words, a list for each split, so that a model that reads words instead of shapes gains nothing. They
# are dealt out like cards: every split has first letters (the capitals) from the whole alphabet.
_DEAL = ("train", "test", "train", "validation", "train", "test", "train")
_LIST = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
WORDS: dict[str, tuple[str, ...]] = {
    split: tuple(word for place, word in enumerate(_LIST) if _DEAL[place % len(_DEAL)] == split) for split in SPLITS
}


@dataclass(frozen=True, eq=False)
class Scene:
    """All that is random in an image except its typeface. Lengths are in x-heights, drawn numbers in [0, 1]."""

    text: str  # the words in reading order; each line is one of the image
    anchor: str
    spacing: float
    size: float
    place: tuple[float, float]
    angle: float
    shear: float
    weight: float
    ink: float
    blur: float
    color: tuple[int, int, int]
    background: np.ndarray
    noise: np.ndarray


def scene_rng(seed: int, split: str, family: Family, index: int) -> np.random.Generator:
    """Return the generator of one image: the same whatever the number of images, families or processes."""
    return np.random.default_rng([seed, SPLITS.index(split), zlib.crc32(family.name.encode()), index])


def _draw_text(rng: np.random.Generator, split: str) -> str:
    """Draw four to eight words of a split, at times with digits, and set them in lines."""
    words = [str(word) for word in rng.choice(WORDS[split], size=rng.integers(4, 9), replace=False)]
    case = rng.choice(["lower", "title", "upper", "first"], p=[0.45, 0.25, 0.05, 0.25])
    words = list(map({"upper": str.upper, "title": str.capitalize}.get(case, str), words))
    if case == "first":
        words[0] = words[0].capitalize()
    if rng.random() < 0.2:
        digits = "".join(rng.choice(list(string.digits), size=rng.integers(1, 4)))
        words.insert(int(rng.integers(len(words) + 1)), digits)
    # Short neighbors share a line; a longer line would make every text small.
    return textwrap.fill(" ".join(words), width=14, break_long_words=False)


def _draw_background(rng: np.random.Generator, pixels: int, light: bool) -> np.ndarray:
    """Return a smooth gradient with texture and a few shapes: (H, W, 3) float32 in [0, 255]."""

    def color() -> np.ndarray:
        value = rng.uniform(0.62, 1.0) if light else rng.uniform(0.03, 0.42)
        return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.25 if light else 0.7), value))

    def field(shape: tuple[int, int]) -> np.ndarray:
        grid = rng.standard_normal(shape).astype(np.float32)
        return np.asarray(Image.fromarray(grid).resize((pixels, pixels), Image.Resampling.BICUBIC))[..., None]

    first = color()
    change = (rng.uniform(0.1, 0.6) * (color() - first)).astype(np.float32)
    blend = np.clip(0.5 + 0.35 * field((int(rng.integers(2, 5)), int(rng.integers(2, 5)))), 0, 1)
    image = first.astype(np.float32) + blend * change
    for _ in range(int(rng.integers(0, 2))):
        # Unequal sides of the grid give grain, as of wood, cloth or brushed metal.
        shape = tuple(int(side) for side in np.exp2(rng.uniform(2, 7, size=2)))
        image += field(shape) * (rng.uniform(1, 5) * rng.uniform(0.7, 1.3, size=3)).astype(np.float32)
    if rng.random() < 0.25:
        layer = Image.new("L", (pixels, pixels))
        pen = ImageDraw.Draw(layer)
        for _ in range(int(rng.integers(1, 4))):
            box = np.sort(rng.uniform(-0.2, 1.2, size=(2, 2)), axis=0).ravel() * pixels
            [pen.rectangle, pen.ellipse][int(rng.integers(2))]([int(side) for side in box], fill=255)
        layer = layer.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 4)))
        tint = (rng.uniform(-35, 35, size=3) / 255).astype(np.float32)
        image += np.asarray(layer, dtype=np.float32)[..., None] * tint
    # The bounds leave black (or white) text a contrast of more than 3.9 everywhere, where no color reaches the wish.
    return np.clip(image, *((108, 255) if light else (0, 127)))


def _luminance(color: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB color in [0, 255], as WCAG defines it."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (float(v) / 255 for v in color)]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def bounds(background: np.ndarray) -> list[tuple[int, ...]]:
    """Return the lowest and the highest value of each channel of a background (H, W, 3)."""
    # Pillow finds them ten times faster than NumPy, whose reductions over the first axes are slow.
    return list(zip(*Image.fromarray(np.rint(background).astype(np.uint8)).getextrema(), strict=True))


def contrast(color: Sequence[int], low: Sequence[int], high: Sequence[int]) -> float:
    """Return the smallest WCAG contrast ratio that a text color can have on a background with these `bounds`."""
    own, darkest, lightest = (_luminance(values) + 0.05 for values in (color, low, high))
    return own / lightest if own > lightest else darkest / own if own < darkest else 1.0


def _draw_color(rng: np.random.Generator, background: np.ndarray, light: bool) -> tuple[int, int, int]:
    low, high = bounds(background)
    wanted = rng.uniform(_LEAST_CONTRAST, 9)
    for _ in range(20):
        value = rng.uniform(0, 0.6) if light else rng.uniform(0.6, 1)
        drawn = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.9 if light else 0.5), value)
        color = tuple(round(255 * channel) for channel in drawn)
        if contrast(color, low, high) >= wanted:
            return color
    return (0, 0, 0) if light else (255, 255, 255)


def draw_scene(rng: np.random.Generator, split: str, pixels: int) -> Scene:
    """Draw a scene with words of ``split`` for an image of ``pixels`` on a side; nothing in it depends on a family."""
    light = bool(rng.random() < 0.6)
    background = _draw_background(rng, pixels, light)
    return Scene(
        text=_draw_text(rng, split),
        anchor=str(rng.choice(["ls", "ms", "rs"])),
        spacing=float(rng.uniform(2.3, 2.9)),
        size=float(rng.random()),
        place=(float(rng.random()), float(rng.random())),
        angle=math.radians(rng.uniform(-5, 5)),
        shear=float(rng.uniform(-0.05, 0.05)),
        weight=float(rng.uniform(*WEIGHTS)),
        ink=float(rng.uniform(0.85, 1.2)),
        blur=float(rng.uniform(0, 0.6)) * pixels / 224,
        color=_draw_color(rng, background, light),
        background=background,
        noise=rng.standard_normal((pixels, pixels, 3), dtype=np.float32) * np.float32(rng.uniform(1, 5)),
    )


def place_text(scene: Scene, families: Sequence[Family]) -> list[np.ndarray]:
    """Return the ink of the scene's text in each family, (H, W) uint8, at one x-height and from one origin.

    The size is drawn from what fits the largest of the families, so no text leaves the image.
    """
    side = scene.background.shape[0]
    lines = scene.text.split("\n")
    # The ink of all lines of all families, in x-heights about the origin of the first baseline.
    boxes = []
    for family in families:
        font = open_font(family, 100 / x_height(family), scene.weight)
        for number, line in enumerate(lines):
            down = number * scene.spacing
            boxes.append(np.array(font.getbbox(line, anchor=scene.anchor)) / 100 + (0, down, 0, down))
    (left, top), (right, bottom) = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]

    cos, sin = math.cos(scene.angle), math.sin(scene.angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, scene.shear], [0.0, 1.0]])
    corners = matrix @ np.array([[left, right, left, right], [top, top, bottom, bottom]])
    low, high = corners.min(axis=1), corners.max(axis=1)

    room = side * (1 - 2 * _MARGIN)
    most = min(room / float((high - low).max()), _X_HEIGHTS[1] * side / 224)
    least = min(_X_HEIGHTS[0] * side / 224, most)
    height = least + scene.size * (most - least)
    shift = side * _MARGIN + np.array(scene.place) * (room - height * (high - low)) - height * low

    # Straight text on a canvas of its own, then one affine map onto its part of the image, at twice the resolution.
    scale, pad = _SUPERSAMPLING * height, 4
    origin = np.array([pad - scale * left, pad - scale * top])
    canvas_size = (math.ceil(scale * (right - left)) + 2 * pad, math.ceil(scale * (bottom - top)) + 2 * pad)
    corner = np.floor(shift + height * low).astype(int) - 1
    part_size = np.ceil(shift + height * high).astype(int) + 1 - corner
    inverse = np.linalg.inv(matrix)
    offset = origin - inverse @ ((shift - corner) * _SUPERSAMPLING)
    map_back = (*inverse[0].tolist(), float(offset[0]), *inverse[1].tolist(), float(offset[1]))
    # Thicker or thinner ink, through a table of integers: static fonts vary in weight too, and exactly so everywhere.
    gain = [round(255 * (level / 255) ** scene.ink) for level in range(256)]
    masks = []
    for family in families:
        canvas = Image.new("L", canvas_size)
        pen = ImageDraw.Draw(canvas)
        font = open_font(family, scale / x_height(family), scene.weight)
        for number, line in enumerate(lines):
            start = (float(origin[0]), float(origin[1]) + number * scene.spacing * scale)
            pen.text(start, line, fill=255, font=font, anchor=scene.anchor)
        part = tuple(int(edge) * _SUPERSAMPLING for edge in part_size)
        placed = canvas.transform(part, Image.Transform.AFFINE, map_back, Image.Resampling.BICUBIC)
        mask = Image.new("L", (side, side))
        mask.paste(placed.reduce(_SUPERSAMPLING).point(gain), tuple(corner.tolist()))
        masks.append(np.asarray(mask))
    return masks


def paint(scene: Scene, ink: np.ndarray) -> np.ndarray:
    """Return the image: the scene's background with this ink (H, W) on it, blurred, with noise: (H, W, 3) uint8."""
    cover = (ink.astype(np.float32) / 255)[..., None]
    sharp = scene.background + cover * (np.array(scene.color, dtype=np.float32) - scene.background)
    blurred = Image.fromarray(np.rint(sharp).astype(np.uint8)).filter(ImageFilter.GaussianBlur(scene.blur))
    return np.clip(np.rint(np.asarray(blurred) + scene.noise), 0, 255).astype(np.uint8)


def draw_image(seed: int, split: str, family: Family, index: int, pixels: int) -> tuple[str, bytes]:
    """Return the text and the JPEG of one image of a family."""
    scene = draw_scene(scene_rng(seed, split, family, index), split, pixels)
    (ink,) = place_text(scene, [family])
    stream = io.BytesIO()
    # Without chroma subsampling, colored text on color stays sharp.
    Image.fromarray(paint(scene, ink)).save(stream, format="JPEG", quality=92, subsampling=0)
    return scene.text, stream.getvalue()
