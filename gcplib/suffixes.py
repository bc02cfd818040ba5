"""Which files are images, by their suffix: those that are read here, and those that nobody should lose unnoticed."""

from __future__ import annotations

import importlib
import importlib.util

from PIL import features

__all__ = ["PICTURES", "SUFFIXES", "register_heif"]

_HEIF = frozenset((".heic", ".heif"))
_ALWAYS = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_IF_BUILT = {".avif": "avif", ".jp2": "jpg_2000"}
_HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None

SUFFIXES = frozenset(
    (*_ALWAYS, *(suffix for suffix, codec in _IF_BUILT.items() if features.check(codec)), *(_HEIF if _HAS_HEIF else ()))
)

# Suffixes of images, read or not: a phone's, a camera's, a scanner's and a designer's.
PICTURES = SUFFIXES.union(
    _HEIF,
    _IF_BUILT,
    (".arw", ".cr2", ".cr3", ".dcm", ".dng", ".eps", ".exr", ".hdr", ".j2k", ".jxl", ".nef", ".orf", ".pbm", ".pcx"),
    (".pnm", ".psd", ".raf", ".raw", ".rw2", ".svg", ".tga"),
)


def register_heif() -> None:
    """Let Pillow read the images of phones, where the package pillow-heif is installed."""
    if _HAS_HEIF:
        # No extra installs it: who has such images brings it.
        importlib.import_module("pillow_heif").register_heif_opener()
