"""What a distribution requires, and what that requires in turn, as it is installed here."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def declared(*extras: str) -> list[str]:
    """Return the requirements of the core and of extras, with those that extras name in turn."""
    found = [*PROJECT["dependencies"]]
    for extra in extras:
        for text in EXTRAS[extra]:
            inner = re.fullmatch(r"gcplib\[(.*)\]", text)
            found += declared(*inner[1].split(","))[len(PROJECT["dependencies"]) :] if inner else [text]
    return found


@functools.cache
def _about(name: str) -> tuple[importlib.metadata.Distribution, tuple[Requirement, ...]]:
    distribution = importlib.metadata.distribution(name)
    return distribution, tuple(map(Requirement, distribution.requires or ()))


def required(requirements: Iterable[str]) -> dict[str, importlib.metadata.Distribution]:
    """Return the installed distributions of these requirements and of all that they require, by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [(Requirement(text), "") for text in requirements]
    seen = set()
    while waiting:
        one, extra = waiting.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *one.extras):
            if (one.name, wanted) in seen:
                continue
            seen.add((one.name, wanted))
            distribution, needs = _about(one.name)
            found[re.sub(r"[-_.]+", "-", distribution.name).lower()] = distribution
            waiting += [(need, wanted) for need in needs]
    return found
