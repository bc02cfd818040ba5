"""The published recipes: files of ``gcplib/lab/training/recipes``, one a method, with the data sets it is meant for."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["PublishedRecipe", "list_recipes", "load_recipe", "merge"]

FOLDER = Path(__file__).resolve().parent.parent / "training" / "recipes"
KEYS = ("title", "source", "differences", "published", "spec", "data sets")


@dataclass(frozen=True)
class PublishedRecipe:
    """A run as a paper describes it, as far as it does.

    Attributes:
        name: file and data set, such as ``tpami2022/cub``. title: one line. source: where the settings are from.
        differences: from the source, one each. published: the numbers to compare with.
        spec: fields of a ``RunSpec``; the user adds ``data.root``.
    """

    name: str
    title: str
    source: str
    differences: tuple[str, ...]
    published: str
    spec: dict[str, Any]

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.title}", f"Source: {self.source}", f"Published: {self.published}"]
        return "\n".join([*lines, "Differences:", *(f"- {text}" for text in self.differences)])


def list_recipes() -> list[str]:
    """Return the names that ``load_recipe`` knows.

    >>> "tpami2022/cub" in list_recipes()
    True
    """
    return [f"{path.stem}/{name}" for path in sorted(FOLDER.glob("*.yaml")) for name in _read(path)["data sets"]]


def load_recipe(name: str) -> PublishedRecipe:
    """Return a recipe by its name.

    Raises:
        FileNotFoundError: there is none; the message lists them.
    """
    if name not in list_recipes():
        raise FileNotFoundError(f"no recipe {name!r}; there are {', '.join(list_recipes())}")
    file, data = name.split("/")
    found = _read(FOLDER / f"{file}.yaml")
    texts = {key: found[key].strip() for key in ("title", "source", "published")}
    spec = merge(found["spec"], found["data sets"][data])
    return PublishedRecipe(name, **texts, differences=tuple(found["differences"]), spec=spec)


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return nested values with some of them changed."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _read(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    if set(found) != set(KEYS):
        raise ValueError(f"{path.name} has {', '.join(found)}; a recipe has {', '.join(KEYS)}")
    return found
