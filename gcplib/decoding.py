"""One image file: upright, in color, cut to a square; or the reason why it cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gcplib.suffixes import register_heif

__all__ = ["CENTER", "DECODER", "decode", "problem"]

# Raised when the same files would give other images or splits, so that old features and runs are not taken for new.
DECODER = 2

CENTER = (0.5, 0.5)

# Pixels that a shrunken image keeps, enough to tell it from others.
_LEAST = 64
# Images of more than so many squares side by side are thin.
_THIN = 8
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

register_heif()


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
            image = _upright(file)
        short, side = min(image.size), scale or pixels
        size = (side, side)
        if resize == "shorter":
            size = (image.width * side // short, image.height * side // short)
        left, top = (round((length - pixels) * part) for length, part in zip(size, place[::-1], strict=True))
        # Bilinear, as in the papers' code; Pillow widens the filter when it shrinks an image.
        if size[0] * size[1] <= _THIN * side**2:
            image = image.resize(size, Image.Resampling.BILINEAR)
            return np.asarray(image.crop((left, top, left + pixels, top + pixels)))
        # Only what is kept is scaled: a strip of 2 x 6000 pixels would be scaled to a gigabyte otherwise. Elsewhere the
        # last bit is that of the papers' code.
        wide, high = (old / new for old, new in zip(image.size, size, strict=True))
        box = (left * wide, top * high, (left + pixels) * wide, (top + pixels) * high)
        return np.asarray(image.resize((pixels, pixels), Image.Resampling.BILINEAR, box))
    except Exception as error:  # damaged bytes raise whatever the decoder meets first
        raise ValueError(f"{path} cannot be read as an image: {_text(error)}") from error


def problem(path: Path, look: Callable[[Image.Image], None] | None = None) -> str | None:
    """Return why ``decode`` would refuse a file, or None; ``look`` is called with the image where it can be decoded.

    A JPEG is decoded at down to an eighth of its size: all its bytes are read, and most of the arithmetic is left out.
    """
    try:
        with Image.open(path) as file:
            file.draft(None, (_LEAST, _LEAST))
            image = _upright(file)
    except Exception as error:  # see decode
        return _text(error)
    if look is not None:
        look(image)
    return None


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _upright(file: Image.Image) -> Image.Image:
    """Return an image in color, turned as its orientation says.

    Only that tag is read. ``ImageOps.exif_transpose`` writes the whole block anew, and so fails where any tag is odd,
    which says nothing about the pixels.
    """
    file.load()
    try:
        turn = _TURNS.get(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged block raises whatever its reader meets first; the image is shown as it lies
        turn = None
    image = _to_rgb(file)
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # Pillow would clip them to white.
        raise ValueError(f"its mode {image.mode} has more than 8 bits per channel; save it with 8")
    if image.has_transparency_data:
        # On white, as a viewer shows it: what lies under transparent pixels is often black or noise.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
