"""A parameter that is a dict of options: which there are, and the defaults of those left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gcplib.lab.validation import unknown

__all__ = ["check_sizes", "options_of"]


def options_of(name: str, given: Mapping[str, Any], needed: Iterable[str] = (), **defaults: Any) -> dict[str, Any]:
    """Return a parameter that is a dict of options, with the defaults of those it leaves out.

    The study reads the calls of a notebook, so options that it does not have are refused before anything runs.

    Args:
        name: of the parameter, for messages.
        given: its value.
        needed: keys without a default.
        defaults: the other keys, with theirs.

    Raises:
        ValueError: a key that does not exist, or one that is needed and not there; or the value is text, as papermill's
            option ``-p`` makes of it.

    >>> options_of("looks", {"pairs": 8}, ["pairs"], fraction=0.25)
    {'fraction': 0.25, 'pairs': 8}
    """
    needed = list(needed)
    if not isinstance(given, Mapping):
        raise ValueError(f"parameter {name!r} is a dict, got {given!r}; papermill takes one with -y '{name}: {{...}}'")
    if wrong := [key for key in given if key not in (*needed, *defaults)]:
        raise ValueError("; ".join(unknown(f"option of {name!r}", key, [*needed, *defaults]) for key in wrong))
    if missing := [key for key in needed if key not in given]:
        raise ValueError(f"parameter {name!r} lacks {', '.join(map(repr, missing))}; it has {[*given]}")
    return defaults | dict(given)


def check_sizes(seeds: int, stride: int, pixels: Iterable[int] = ()) -> None:
    """Refuse what has no interval over seeds, or no covariance over positions.

    Args:
        seeds: a count.
        stride: pixels per position; -1 is the last stage, of which nothing is known here.
        pixels: sides of the images.

    Raises:
        ValueError: fewer than two seeds, or images of a single position.

    >>> check_sizes(2, 16, [64, 224])
    """
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}; an interval over seeds needs 2 or more")
    if (smallest := min(pixels, default=stride + 1)) <= stride:
        raise ValueError(
            f"{smallest} pixels at stride {stride} are one position, and one position has no covariance; take larger "
            "images or a smaller stride"
        )
