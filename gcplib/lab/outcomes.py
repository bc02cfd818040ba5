"""Which test images a run gets right, as text that fits into a row of a table."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["pack", "unpack"]


def pack(counts: ArrayLike, of: int = 1) -> str:
    """Return as text how often each image was right.

    Args:
        counts: ``(images,)``; booleans, or how many of ``of`` answers about an image were right.
        of: at most 255.

    Raises:
        ValueError: a count is below 0 or above ``of``.

    >>> unpack(pack([True, False, True]))
    array([100.,   0., 100.])
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or not 0 < of < 256 or (counts < 0).any() or (counts > of).any():
        raise ValueError(f"need a list of counts from 0 to of = {of}, at most 255, got {counts}")
    data = zlib.compress(counts.astype(np.uint8).tobytes(), 9)
    return f"{of}:{base64.b64encode(data).decode()}"


def unpack(text: str) -> np.ndarray:
    """Return the percentage of right answers about each image that ``pack`` has written, ``(images,)``."""
    of, data = text.split(":")
    return 100 / int(of) * np.frombuffer(zlib.decompress(base64.b64decode(data)), np.uint8)
