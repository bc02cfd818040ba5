"""Sliders where somebody moves them, and a figure where a notebook runs by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["play", "someone_is_there"]


def someone_is_there() -> bool:
    """Whether this kernel belongs to a page in a browser, and not to papermill, nbval or a report."""
    return "JPY_SESSION_NAME" in os.environ or "google.colab" in sys.modules


def play(draw: Callable[..., Any], *, still: Mapping[str, Any] | None = None, **choices: Sequence[Any]) -> None:
    """Draw a figure that depends on some values, with a slider for each where somebody is there to move it.

    Args:
        draw: makes the figure and shows it; called with a value of each choice by name.
        still: the values of the figure without sliders, and where they start; by default the middle of each.
        choices: the values of each slider.

    Raises:
        ValueError: no choices, an empty one, or a value in ``still`` that is none of its slider's.

    >>> play(lambda power: print(f"S to the {power:g}"), power=[0, 0.5, 1])
    S to the 0.5
    """
    values = {name: list(of) for name, of in choices.items()}
    if not values or not all(values.values()):
        raise ValueError(f"give every slider at least one value, got {values}")
    start = {name: of[len(of) // 2] for name, of in values.items()} | dict(still or {})
    if wrong := {name: value for name, value in start.items() if value not in values.get(name, [])}:
        raise ValueError(f"{wrong} is none of {values}")
    if not someone_is_there():
        draw(**start)
        return
    from IPython.display import display
    from ipywidgets import SelectionSlider, interactive

    sliders = {
        # Not while it moves: a figure takes longer than the hand.
        name: SelectionSlider(options=of, value=start[name], description=name, continuous_update=False)
        for name, of in values.items()
    }
    display(interactive(draw, **sliders))
