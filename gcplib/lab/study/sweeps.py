"""Grids of training runs: the section ``runs`` of a profile, checked, spelled out and put into jobs.

::

    runs:
      head:                       # a name for people
        batch: 8                  # runs per job (1): a head run takes seconds, starting Python takes as long
        threads: 1                # cores per job (1)
        gpus: 0                   # 0 or 1 per job (0)
        base: {reduction: 64, recipe: {epochs: 12}}     # fields of a RunSpec, the same in every run
        grid:                     # every combination, the last line varying fastest
          labels: [fine, coarse]
          recipe.learning_rate: [0.1, 0.2]              # dots go into nested fields
          how: [{pool: cov}, {pool: mpn_cov, options: {amplify: released}}]   # several fields at once, under any name
          seed: 8                 # 0 to 7

Fields are addressed by paths: ``{recipe: {epochs: 12}}`` and ``{recipe.epochs: 12}`` mean the same. Nested fields of
base and grid are merged; a value of the grid replaces that of the base, and two lines of a grid may not set the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from gcplib.lab.files import digest
from gcplib.lab.study.plan import Job
from gcplib.lab.validation import CONFIG, SpecError, checked, unknown

if TYPE_CHECKING:
    from gcplib.lab.training import RunSpec

__all__ = ["Grid", "expand", "plan_sweeps"]

Count = Annotated[int, Field(ge=1)]
# Values by their paths: {("recipe", "epochs"): 12}.
Leaves = dict[tuple[str, ...], Any]


def _count_seeds(grid: Any) -> Any:
    seeds = grid.get("seed") if isinstance(grid, dict) else None
    return grid | {"seed": list(range(seeds))} if type(seeds) is int else grid


@dataclass(config=CONFIG, frozen=True)
class Grid:
    """One grid as it is written, with the list of seeds where their number is given."""

    batch: Count = 1
    threads: Count = 1
    gpus: Literal[0, 1] = 0
    base: dict[str, Any] = dataclasses.field(default_factory=dict)
    grid: Annotated[dict[str, Annotated[list, Field(min_length=1)]], BeforeValidator(_count_seeds)] = dataclasses.field(
        default_factory=dict
    )


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
        where, before = f"runs: {name}", len(problems)
        if not re.fullmatch(r"\w[\w-]*", str(name)):
            problems.append(f"runs: a grid's name may have letters, digits, '_' and '-', got {name!r}")
        grid = checked(Grid, values, where, problems)
        if len(problems) > before or grid is None:
            continue
        runs: dict[str, Any] = {}
        for spec, fields in expand(grid, where, problems):
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
    """Return the runs of one grid with their fields as they are written, in order.

    Args:
        grid: what to spell out.
        where: its place, for the messages.
        problems: what does not fit is added here.
    """
    from gcplib.lab.training import RunSpec  # torch takes seconds to import; a profile without runs does not need it

    known, found = [field.name for field in dataclasses.fields(RunSpec)], []
    if not grid.base and not grid.grid:
        found.append("give the fields of its runs as 'base' or 'grid'")
    base, axes = _leaves(grid.base, "base", known, found), {}
    for key, values in grid.grid.items():
        if key.split(".")[0] in known:
            axes[key] = [_leaves({key: value}, f"grid: {key}", known, found) for value in values]
        elif all(isinstance(value, dict) for value in values):
            axes[key] = [_leaves(v, f"grid: {key}[{place}]", known, found) for place, v in enumerate(values)]
        else:
            found.append(f"grid: {key}: not a list of mappings of fields, and {unknown('field of a run', key, known)}")
    found += _conflicts(base, axes)
    specs = []
    for chosen in itertools.product(*axes.values()) if not found else ():
        fields = _nested({path: value for leaves in (base, *chosen) for path, value in leaves.items()})
        try:
            specs.append((_build(fields), fields))
        except (TypeError, ValueError) as error:
            found += error.problems if isinstance(error, SpecError) else [str(error)]
    # The same mistake in many combinations is one problem.
    problems += [f"{where}: {problem}" for problem in dict.fromkeys(found)]
    return specs


def _build(fields: dict[str, Any]) -> RunSpec:
    from gcplib.lab.training import RunSpec
    from gcplib.models import build_head
    from gcplib.nn import create_pool

    spec = RunSpec.from_dict(fields)
    # Without a reduction the options may depend on the backbone's channels, which are not known here.
    if spec.reduction:
        width = spec.reduction if isinstance(spec.reduction, int) else spec.reduction[-1]
        try:
            build_head(create_pool(spec.pool, width, spec.reduction, **spec.options), 2, spec.systems)
        except (TypeError, ValueError) as error:
            systems = f", systems {spec.systems!r}" if spec.systems else ""
            raise ValueError(f"options {spec.options!r}{systems}: {error}") from error
    return spec


def _leaves(fields: Mapping[str, Any], where: str, known: list[str], problems: list[str]) -> Leaves:
    """Return the single values of a mapping of fields, whose keys may have dots."""
    leaves: Leaves = {}
    for path, value in _flat((), fields):
        if path[0] not in known:
            problems.append(f"{where}: {unknown('field of a run', path[0], known)}")
        if twice := next((other for other in leaves if _overlap(path, other)), None):
            problems.append(f"{where}: {_text(path, twice)} is given twice")
        leaves[path] = value
    return leaves


def _conflicts(base: Leaves, axes: Mapping[str, list[Leaves]]) -> Iterator[str]:
    paths = {name: set().union(*values) for name, values in axes.items()}
    for (one, some), (other, others) in itertools.combinations(paths.items(), 2):
        if both := sorted({_text(path, place) for path in some for place in others if _overlap(path, place)}):
            yield f"grid: {one} and {other} both set {', '.join(both)}; put them together under one name"
    for path, place in itertools.product(base, set().union(*paths.values())):
        if path != place and _overlap(path, place):
            yield f"{_text(path, place)} is a single value in one place and a mapping in another"


def _flat(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat((*path, *str(key).split(".")), inner)
    else:
        yield path, value


def _nested(leaves: Leaves) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for (*path, last), value in leaves.items():
        inner = values
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return values


def _overlap(path: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Say whether one path is the other, or leads to it."""
    return all(part == place for part, place in zip(path, other, strict=False))


def _text(*paths: tuple[str, ...]) -> str:
    return ".".join(min(paths, key=len))
