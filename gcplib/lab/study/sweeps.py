"""Sweeps: the section ``runs`` of a profile, checked, spelled out and put into jobs.

::

    runs:
      head:                       # a name for people
        batch: 8                  # runs a job (1): a head run takes seconds, starting Python takes as long
        threads: 1                # cores a job (1)
        gpus: 0                   # 0 or 1 a job (0)
        base: {reduction: 64, recipe: {epochs: 12}}     # fields of a RunSpec, the same in every run
        grid:                     # every combination, the last line varying fastest
          labels: [fine, coarse]
          recipe.learning_rate: [0.1, 0.2]              # dots go into nested fields
          how: [{pool: cov}, {pool: mpn_cov, options: {amplify: released}}]   # several fields at once, under any name
          seed: 8                 # 0 to 7

Nested fields of base and grid are merged; a single value of the grid replaces that of the base.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gcplib.lab.files import digest
from gcplib.lab.study.grids import combinations, read_axes, read_fields
from gcplib.lab.study.parameters import suggest

if TYPE_CHECKING:
    from gcplib.lab.training import RunSpec

__all__ = ["FOLDER", "SweepJob", "expand", "plan_sweeps"]

FOLDER = "sweeps"
KEYS = ("batch", "threads", "gpus", "base", "grid")


@dataclass(frozen=True)
class SweepJob:
    """Runs that are trained one after the other in one process.

    Args:
        name: ``sweeps/<grid>-<number>``; with ``.json`` the file that tells what became of the runs.
        specs: what to train. runs: their names, in the same order.
        threads, gpus: what the process uses. needs_data: some runs use the typefaces that the study prepares.
    """

    name: str
    specs: tuple[RunSpec, ...]
    runs: tuple[str, ...]
    threads: int
    gpus: int
    needs_data: bool

    @property
    def key(self) -> str:
        """What makes the job stale: its list of runs and nothing else, for a run's name hashes all that matters."""
        return digest(list(self.runs))


def expand(name: str, grid: Mapping[str, Any]) -> list[RunSpec]:
    """Return the runs of one grid, each once, however many combinations lead to it.

    Args:
        name: of the grid, for the messages. grid: its entry in the profile.

    Raises:
        ValueError: anything does not fit; the message lists every problem with its path.
    """
    problems: list[str] = []
    specs = _expand(name, grid, problems)
    if problems:
        raise ValueError("\n".join(problems))
    return specs


def plan_sweeps(section: Mapping[str, Any], data: Mapping[str, int], problems: list[str]) -> dict[str, SweepJob]:
    """Return the jobs of a profile's section ``runs``, by name.

    Args:
        section: the grids by name. data: the settings of the typefaces that the study prepares.
        problems: what does not fit is added here.
    """
    jobs: dict[str, SweepJob] = {}
    seen: set[str] = set()
    images: dict[str, Any] = {}
    for name, grid in section.items():
        before = len(problems)
        if not re.fullmatch(r"\w[\w-]*", str(name)):
            problems.append(f"runs: a grid's name may have letters, digits, '_' and '-', got {name!r}")
        specs = _expand(name, grid, problems)
        if len(problems) > before:
            continue
        # One object for all runs on the same images: their digest reads the list of a data set's files once.
        specs = [dataclasses.replace(s, data=images.setdefault(repr(s.data), s.data)) for s in specs]
        runs = {_run_name(spec): spec for spec in specs}
        names = [run for run in runs if run not in seen]  # what two grids ask for is trained by the first
        seen.update(names)
        batch = grid.get("batch", 1)
        groups = [names[start : start + batch] for start in range(0, len(names), batch)]
        for number, group in enumerate(groups, 1):
            job = f"{FOLDER}/{name}-{number:0{len(str(len(groups)))}d}"
            specs = tuple(runs[run] for run in group)
            needs_data = bool(data) and any(_is_drawn(spec.data, data) for spec in specs)
            jobs[job] = SweepJob(job, specs, tuple(group), grid.get("threads", 1), grid.get("gpus", 0), needs_data)
    return jobs


def _run_name(spec: RunSpec) -> str:
    try:
        return spec.name
    except (OSError, ValueError):
        # Its data set is not there (yet). The run itself will say so, and keep none of the others from training.
        return f"{spec.pool}-{spec.labels}-{spec.stage}-{spec.seed}-{digest(spec.to_dict())}"


def _is_drawn(images: Any, data: Mapping[str, int]) -> bool:
    """Say whether these are the typefaces that the study prepares: its settings, and defaults for the rest."""
    defaults = {field.name: field.default for field in dataclasses.fields(images)}
    return dataclasses.asdict(images) == defaults | dict(data)


def _expand(name: str, grid: Any, problems: list[str]) -> list[RunSpec]:
    where = f"runs: {name}"
    if not isinstance(grid, dict) or not (grid.get("base") or grid.get("grid")):
        problems.append(f"{where}: must be a mapping with 'base' or 'grid', got {grid!r}")
        return []
    from gcplib.lab.training import RunSpec  # torch takes seconds to import; a profile without runs does not need it

    found = [f"unknown key {key!r}; {suggest(str(key), list(KEYS))}" for key in grid if key not in KEYS]
    for key in ("batch", "threads"):
        if key in grid and (type(grid[key]) is not int or grid[key] < 1):
            found.append(f"{key} must be an integer of at least 1, got {grid[key]!r}")
    if "gpus" in grid and (type(grid["gpus"]) is not int or grid["gpus"] not in (0, 1)):
        found.append(f"gpus must be 0 or 1, got {grid['gpus']!r}")
    known = [field.name for field in dataclasses.fields(RunSpec)]
    base = read_fields(grid.get("base") or {}, "base", known, found)
    axes = read_axes(grid.get("grid") or {}, known, found)
    specs: dict[str, RunSpec] = {}
    if not found:
        for values in combinations(base, axes, found):
            if (spec := _build(values, found)) is not None:
                specs.setdefault(repr(spec), spec)
    # The same mistake in many combinations is one problem.
    problems += [f"{where}: {problem}" for problem in dict.fromkeys(found)]
    return list(specs.values())


def _build(values: dict[str, Any], problems: list[str]) -> RunSpec | None:
    from gcplib.lab.training import RunSpec
    from gcplib.lab.training.systems import build_head
    from gcplib.nn import create_pool

    try:
        spec = RunSpec.from_dict(values)
    except (TypeError, ValueError) as error:
        problems += _field_problems(values) or [str(error)]
        return None
    try:
        # Without a reduction the options may depend on the backbone's channels, which are not known here.
        if spec.reduction:
            width = spec.reduction if isinstance(spec.reduction, int) else spec.reduction[-1]
            build_head(create_pool(spec.pool, width, reduction=spec.reduction, **spec.options), 2, spec.systems)
    except (TypeError, ValueError) as error:
        systems = f", systems {spec.systems!r}" if spec.systems else ""
        problems.append(f"options {spec.options!r}{systems}: {error}")
        return None
    return spec


def _field_problems(values: dict[str, Any]) -> list[str]:
    """Try the fields one by one, to find what is wrong with each rather than with the first."""
    from gcplib.lab.training import RunSpec

    # What images and recipe may be depends on the stage.
    stage = {"stage": values["stage"]} if values.get("stage") in ("head", "full") else {}
    problems = []
    for field, value in values.items():
        try:
            RunSpec.from_dict(stage | {field: value})
        except (TypeError, ValueError) as error:
            problems.append(str(error))
    return problems
