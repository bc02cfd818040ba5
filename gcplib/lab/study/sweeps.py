"""Grids of training runs: the section ``runs`` of a profile, checked, spelled out and put into jobs.

``docs/clusters.md`` says how one is written. Fields are addressed by paths, ``{recipe: {epochs: 12}}`` and
``{recipe.epochs: 12}`` meaning the same; a value of the grid replaces that of the base.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, PositiveInt

from gcplib.lab.files import digest
from gcplib.lab.study.plan import Job
from gcplib.lab.validation import SpecError, specification, unknown, validated

if TYPE_CHECKING:
    from gcplib.lab.training import RunSpec

__all__ = ["Grid", "checked", "expand", "plan_sweeps"]

T = TypeVar("T")
# Values by their paths: {("recipe", "epochs"): 12}.
Leaves = dict[tuple[str, ...], Any]


def _spell_out(grid: Any) -> Any:
    """Put the seeds in the place of their number."""
    seeds = grid.get("seed") if isinstance(grid, dict) else None
    return grid | {"seed": list(range(seeds))} if type(seeds) is int else grid


@specification
class Grid:
    """One grid: runs per job, cores and GPUs per job, fields of all runs, and lists of those that vary."""

    batch: PositiveInt = 1
    threads: PositiveInt = 1
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    base: dict[str, Any] = dataclasses.field(default_factory=dict)
    grid: Annotated[dict[str, Annotated[list, Field(min_length=1)]], BeforeValidator(_spell_out)] = dataclasses.field(
        default_factory=dict
    )


def checked(kind: type[T], values: Any, where: str, problems: list[str]) -> T | None:
    """Return an object made of plain values, or None after adding what does not fit to the problems."""
    try:
        return validated(kind, {} if values is None else values, where)
    except SpecError as error:
        problems += [f"{where}: {problem}" for problem in error.problems]
        return None


def plan_sweeps(section: Mapping[str, Any], data: Any, problems: list[str]) -> dict[str, Job]:
    """Return the jobs of a profile's section ``runs``, by name.

    Args:
        section: the grids by name.
        data: the images that the study prepares, or None.
        problems: what does not fit is added here.
    """
    jobs: dict[str, Job] = {}
    seen: set[str] = set()
    images: dict[str, Any] = {}
    for name, values in section.items():
        if (grid := checked(Grid, values, f"runs: {name}", problems)) is None:
            continue
        runs: dict[str, Any] = {}
        for spec, fields in expand(grid, f"runs: {name}", problems):
            # One object for all runs on the same images: their digest reads the list of a data set's files once.
            spec = dataclasses.replace(spec, data=images.setdefault(repr(spec.data), spec.data))
            runs.setdefault(_run_name(spec), (spec, fields))
        names = [run for run in runs if run not in seen]  # what two grids ask for is trained by the first
        seen.update(names)
        groups = [names[start : start + grid.batch] for start in range(0, len(names), grid.batch)]
        for number, group in enumerate(groups, 1):
            job = f"sweeps/{name}-{number:0{len(str(len(groups)))}d}"
            needs = ("data",) if any(runs[run][0].data == data for run in group) else ()
            fields = {run: runs[run][1] for run in group}
            # A run's name hashes all that matters, so nothing else makes a job stale.
            jobs[job] = Job(job, digest(group), fields, needs, grid.threads, grid.gpus)
    return jobs


def _run_name(spec: RunSpec) -> str:
    try:
        return spec.name
    except (OSError, ValueError):
        # Its data set is not there (yet). The run itself will say so, and keep none of the others from training.
        return f"{spec.pool}-{spec.labels}-{spec.stage}-{spec.seed}-{digest(spec.to_dict())}"


def expand(grid: Grid, where: str, problems: list[str]) -> list[tuple[RunSpec, dict[str, Any]]]:
    """Return the runs of one grid with their fields as they are written, the last line varying fastest.

    Args:
        grid: what to spell out.
        where: its place, for the messages.
        problems: what does not fit is added here.
    """
    from gcplib.lab.training import RunSpec  # torch takes seconds to import; a profile without runs does not need it

    known, found, specs = [field.name for field in dataclasses.fields(RunSpec)], {}, []
    if not grid.base and not grid.grid:
        found["give the fields of its runs as 'base' or 'grid'"] = None
    # A line of the grid is a field with its values, or any name with mappings of fields.
    lines = [
        [value if key.split(".")[0] not in known and isinstance(value, dict) else {key: value} for value in values]
        for key, values in grid.grid.items()
    ]
    for chosen in itertools.product(*lines):
        try:
            leaves = _leaves(known, *chosen)
            fields = _nested(
                {path: value for path, value in _leaves(known, grid.base).items() if path not in leaves} | leaves
            )
            specs.append((_build(fields), fields))
        except (TypeError, ValueError) as error:
            # The same mistake in many combinations is one problem.
            found |= dict.fromkeys(error.problems if isinstance(error, SpecError) else [str(error)])
    problems += [f"{where}: {problem}" for problem in found]
    return specs


def _build(fields: dict[str, Any]) -> RunSpec:
    from gcplib.lab.training import RunSpec
    from gcplib.lab.training.systems import build_head
    from gcplib.nn import create_pool

    spec = RunSpec.from_dict(fields)
    # Without a reduction the options may depend on the backbone's channels, which are not known here.
    if spec.reduction:
        width = spec.reduction if isinstance(spec.reduction, int) else spec.reduction[-1]
        try:
            build_head(create_pool(spec.pool, width, reduction=spec.reduction, **spec.options), 2, spec.systems)
        except (TypeError, ValueError) as error:
            systems = f", systems {spec.systems!r}" if spec.systems else ""
            raise ValueError(f"options {spec.options!r}{systems}: {error}") from error
    return spec


def _leaves(known: list[str], *parts: Mapping[str, Any]) -> Leaves:
    """Return the single values of mappings of fields, whose keys may have dots; none may be given twice."""
    leaves: Leaves = {}
    problems = []
    for path, value in (leaf for part in parts for leaf in _flat((), part)):
        if path[0] not in known:
            problems.append(unknown("field of a run", path[0], known))
        if path in leaves:
            problems.append(f"{'.'.join(path)} is given twice; put what belongs together under one name")
        leaves[path] = value
    if problems:
        raise SpecError("fields", problems)
    return leaves


def _flat(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat((*path, *str(key).split(".")), inner)
    else:
        yield path, value


def _nested(leaves: Leaves) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path, value in leaves.items():
        if inside := next((other for other in leaves if other != path and other[: len(path)] == path), None):
            raise ValueError(
                f"{'.'.join(path)} is a single value in one place, and {'.'.join(inside)} is given in another"
            )
        inner = values
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = value
    return values
