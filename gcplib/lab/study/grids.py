"""A grid of training runs as written in a profile, and the single values that each of its runs has.

Fields are addressed by paths, so that ``{recipe: {epochs: 12}}`` and ``{recipe.epochs: 12}`` mean the same, and two
places that would set the same field are noticed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gcplib.lab.study.parameters import suggest

__all__ = ["combinations", "read_axes", "read_fields"]

# Values by their paths: {("recipe", "epochs"): 12}.
Leaves = dict[tuple[str, ...], Any]


def read_fields(fields: Any, where: str, known: Sequence[str], problems: list[str]) -> Leaves:
    """Return the single values of a mapping of fields, whose keys may have dots.

    Args:
        fields: as written. where: its place, for the messages. known: the fields that a run has.
        problems: what is wrong is added here.
    """
    if not isinstance(fields, dict):
        problems.append(f"{where} must be a mapping of fields, got {fields!r}")
        return {}
    leaves: Leaves = {}
    for key, value in fields.items():
        path = tuple(str(key).split("."))
        if path[0] not in known:
            problems.append(f"{where}: a run has no field {path[0]!r}; {suggest(path[0], list(known))}")
        for place, leaf in _flat(path, value):
            if twice := next((other for other in leaves if _overlap(place, other)), None):
                problems.append(f"{where}: {_text(place, twice)} is given twice")
            leaves[place] = leaf
    return leaves


def read_axes(grid: Any, known: Sequence[str], problems: list[str]) -> dict[str, list[Leaves]]:
    """Return what each line of a grid may set: for each of its values, the fields that it sets."""
    if not isinstance(grid, dict):
        problems.append(f"grid must be a mapping, got {grid!r}")
        return {}
    axes: dict[str, list[Leaves]] = {}
    for key, values in grid.items():
        where = f"grid: {key}"
        if key == "seed" and type(values) is int:
            if values < 1:
                problems.append(f"{where}: the number of seeds must be at least 1, got {values}")
            values = list(range(max(values, 1)))
        if not isinstance(values, list) or not values:
            hint = "; only seeds can be given by their number" if type(values) is int else ""
            problems.append(f"{where}: must be a list of values, got {values!r}{hint}")
        elif str(key).split(".")[0] in known:
            axes[key] = [read_fields({key: value}, where, known, problems) for value in values]
        elif all(isinstance(value, dict) for value in values):
            axes[key] = [read_fields(value, f"{where}[{place}]", known, problems) for place, value in enumerate(values)]
        else:
            problems.append(
                f"{where}: neither a field of a run nor a list of mappings of fields; {suggest(str(key), list(known))}"
            )
    return axes


def combinations(base: Leaves, axes: Mapping[str, list[Leaves]], problems: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the fields of every combination as nested mappings, the last line of the grid varying fastest.

    What two lines of the grid would both set, and what is a value here and a mapping there, is a problem, and nothing
    is yielded.
    """
    before = len(problems)
    paths = {name: set().union(*values) for name, values in axes.items()}
    for (one, some), (other, others) in itertools.combinations(paths.items(), 2):
        if both := sorted({_text(path, place) for path in some for place in others if _overlap(path, place)}):
            problems.append(f"grid: {one} and {other} both set {', '.join(both)}; put them together under one name")
    for path, place in itertools.product(base, set().union(*paths.values())):
        if path != place and _overlap(path, place):
            problems.append(f"{_text(path, place)} is a single value in one place and a mapping in another")
    if len(problems) == before:
        for chosen in itertools.product(*axes.values()):
            yield _nested({path: value for leaves in (base, *chosen) for path, value in leaves.items()})


def _flat(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat((*path, str(key)), inner)
    else:
        yield path, value


def _nested(leaves: Leaves) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path, value in leaves.items():
        inner = values
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = value
    return values


def _overlap(path: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Say whether one path is the other, or leads to it."""
    shared = min(len(path), len(other))
    return path[:shared] == other[:shared]


def _text(*paths: tuple[str, ...]) -> str:
    return ".".join(min(paths, key=len))
