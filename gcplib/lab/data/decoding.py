"""From an image file to a square of upright RGB, and what is wrong with a file that gives none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["CENTER", "decode", "problem"]

CENTER = (0.5, 0.5)


def decode(
    path: Path, pixels: int, resize: str, scale: int | None = None, place: tuple[float, float] = CENTER
) -> np.ndarray:
    """Return an image file as (pixels, pixels, 3) uint8.

    Args:
        path: of the file.
        pixels: side of the image.
        resize: ``shorter`` or ``both`` sides.
        scale: to how many pixels; None for ``pixels``.
        place: where it is cropped, from 0 (top, left) to 1.

    Raises:
        ValueError: the file cannot be read as an image; the message names it.
    """
    try:
        with Image.open(path) as file:
            image = _to_rgb(ImageOps.exif_transpose(file))
        short, side = min(image.size), scale or pixels
        size = (side, side)
        if resize == "shorter":
            size = tuple(length * side // short for length in image.size)
        # Bilinear, as in the papers' code; Pillow widens the filter when it shrinks an image.
        image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = (round((length - pixels) * part) for length, part in zip(size, place[::-1], strict=True))
        return np.asarray(image.crop((left, top, left + pixels, top + pixels)))
    except Exception as error:  # damaged bytes raise whatever the decoder meets first
        raise ValueError(f"{path} cannot be read as an image: {_text(error)}") from error


def problem(path: Path) -> str | None:
    """Return why ``decode`` would refuse a file, or None.

    A JPEG is decoded at an eighth of its size: all its bytes are read, and most of the arithmetic is left out.
    """
    try:
        with Image.open(path) as file:
            file.draft(None, (1, 1))
            _to_rgb(ImageOps.exif_transpose(file))
    except Exception as error:  # see decode
        return _text(error)
    return None


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # Pillow would clip them to white.
        raise ValueError(f"its mode {image.mode} has more than 8 bits per channel; save it with 8")
    if image.has_transparency_data:
        # On white, as a viewer shows it: what lies under transparent pixels is often black or noise.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
