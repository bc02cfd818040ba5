"""Profiles: which notebooks a study runs, with which parameters, and the plan that follows.

A profile is a YAML file::

    description: one line for the report
    shared:                       # optional; given to every notebook that declares the name
      families: 60
    notebooks:
      07_train_fine_grained:      # may be empty: the notebook's own defaults
        threads: 2                # cores for this notebook, 1 if left out
        timeout: 3600             # seconds a single cell may take
        first: true               # start before the others: it trains runs that they read
        parameters: {seeds: 5}
    runs:                         # optional; grids of training runs, see gcplib.lab.study.sweeps
      head: {base: {pool: mpn_cov}, grid: {labels: [fine, coarse], seed: 8}}

Everything is checked, and every problem is listed at once, before anything runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcplib.lab.files import digest, project_root, runs_dir
from gcplib.lab.study.notebooks import discover, notebook_text, notebooks_dir
from gcplib.lab.study.parameters import Parameter, convert, fit_problem, read_parameters, suggest
from gcplib.lab.study.strict_yaml import read_yaml
from gcplib.lab.study.sweeps import SweepJob, plan_sweeps

__all__ = ["DATA_FIELDS", "Entry", "Job", "Plan", "Profile", "load_plan", "load_profile", "profile_path"]

# The shared parameters that describe the typefaces: with any of them, the study prepares the data first.
DATA_FIELDS = ("families", "train", "validation", "test", "pixels")


@dataclass(frozen=True)
class Entry:
    """What a profile says about one notebook."""

    threads: int = 1
    timeout: int = 3600
    first: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """A profile as written."""

    name: str
    path: Path
    description: str
    shared: Mapping[str, Any]
    notebooks: Mapping[str, Entry]
    runs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One notebook to execute; ``key`` changes when its text, its parameters or the library change."""

    name: str
    source: Path
    parameters: Mapping[str, Any]
    threads: int
    timeout: int
    first: bool
    key: str
    needs_data: bool


@dataclass(frozen=True)
class Plan:
    """A checked profile: where it writes, what data it prepares, its notebooks in their order, its training jobs."""

    profile: Profile
    folder: Path
    data: Mapping[str, int]
    data_key: str
    jobs: Mapping[str, Job]
    sweeps: Mapping[str, SweepJob] = field(default_factory=dict)


def profile_path(profile: str | Path) -> Path:
    """Return the file of a profile given by name (``study``) or by path (``my/own.yaml``).

    Raises:
        FileNotFoundError: there is none; the message lists the profiles that exist.
    """
    text = str(profile)
    is_path = text.endswith((".yaml", ".yml")) or "/" in text
    path = Path(text).expanduser() if is_path else notebooks_dir() / "profiles" / f"{text}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in (notebooks_dir() / "profiles").glob("*.yaml"))
        raise FileNotFoundError(f"no profile {text!r} at {path}; {suggest(path.stem, names, 'profiles')}")
    return path.resolve()


def load_profile(profile: str | Path) -> Profile:
    """Read a profile and check its form.

    Raises:
        FileNotFoundError: there is no such profile.
        ValueError: it is not a profile; the message lists every problem.
    """
    loaded, problems = _read(profile_path(profile))
    _raise(problems, loaded)
    return loaded


def load_plan(profile: str | Path, runs: bool = True) -> Plan:
    """Read a profile, check it against the notebooks by name and type, and resolve the parameters of each.

    Args:
        profile: name or path of it. runs: also plan its training runs, which takes an import of torch if it has any.

    Raises:
        FileNotFoundError: there is no such profile.
        ValueError: anything does not fit; the message lists every problem.
    """
    loaded, problems = _read(profile_path(profile))
    sources = discover()
    library = _library_digest()
    declared: dict[str, dict[str, Parameter]] = {}
    for name in loaded.notebooks:
        if name not in sources:
            problems.append(f"no notebook {name!r} in {notebooks_dir()}; {suggest(name, list(sources), 'there are')}")
            continue
        try:
            declared[name] = read_parameters(sources[name])
        except ValueError as error:
            problems.append(str(error))
    everything = sorted({parameter for parameters in declared.values() for parameter in parameters})
    for name in loaded.shared:
        if name == "profile":
            problems.append("shared: 'profile' is set by the runner; remove it")
        elif name not in everything and len(declared) == len(loaded.notebooks):
            problems.append(f"shared: no notebook declares {name!r}; {suggest(name, everything, 'declared')}")
    # Images from the user's disk need no drawing.
    fields = DATA_FIELDS if loaded.shared.get("dataset", "typefaces") == "typefaces" else ()
    jobs = {}
    for name, parameters in declared.items():
        entry = loaded.notebooks[name]
        values = _resolve(name, entry, loaded, parameters, problems)
        needs_data = any(key in fields for key in loaded.shared if key in parameters)
        key = digest({"text": notebook_text(sources[name]), "parameters": _plain(values), "library": library})
        jobs[name] = Job(name, sources[name], values, entry.threads, entry.timeout, entry.first, key, needs_data)
    data = {name: loaded.shared[name] for name in fields if name in loaded.shared}
    sweeps = plan_sweeps(loaded.runs, data, problems) if runs else {}
    _raise(problems, loaded)
    data_key = digest({"data": data, "library": library})
    return Plan(loaded, runs_dir() / loaded.name, data, data_key, jobs, sweeps)


def _resolve(
    notebook: str, entry: Entry, profile: Profile, parameters: dict[str, Parameter], problems: list[str]
) -> dict[str, Any]:
    """The values a notebook receives: the shared ones it declares, then its own, then the name of the profile."""
    values = {}
    for origin, given in (("shared", profile.shared), (notebook, entry.parameters)):
        for name, value in given.items():
            if name not in parameters:
                if origin != "shared":
                    problems.append(
                        f"{notebook}: no parameter {name!r} (value {value!r}); "
                        f"{suggest(name, list(parameters), 'it declares')}"
                    )
            elif name == "profile":
                if origin != "shared":
                    problems.append(f"{notebook}: 'profile' is set by the runner; remove it")
            elif problem := fit_problem(parameters[name], value):
                problems.append(f"{notebook}: parameter {name!r}{' (shared)' * (origin == 'shared')}: {problem}")
            else:
                values[name] = convert(parameters[name], value)
    if "profile" in parameters:
        values["profile"] = profile.name
    return values


def _read(path: Path) -> tuple[Profile, list[str]]:
    """Read the file, collecting what is wrong with its form rather than stopping at the first problem."""
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected a mapping with 'notebooks', got {type(document).__name__}")
    problems: list[str] = []
    _known_keys(document, ("description", "shared", "notebooks", "runs"), "profile", problems)
    notebooks = {}
    for name, entry in _mapping(document, "notebooks", "profile", problems).items():
        given = _mapping({name: entry}, name, "notebooks", problems)
        _known_keys(given, ("threads", "timeout", "first", "parameters"), f"notebooks: {name}", problems)
        for key in ("threads", "timeout"):
            if key in given and (type(given[key]) is not int or given[key] < 1):
                problems.append(f"notebooks: {name}: {key} must be an integer of at least 1, got {given[key]!r}")
        if "first" in given and type(given["first"]) is not bool:
            problems.append(f"notebooks: {name}: first must be true or false, got {given['first']!r}")
        parameters = _mapping(given, "parameters", f"notebooks: {name}", problems)
        numbers = {key: given[key] for key in ("threads", "timeout") if type(given.get(key)) is int}
        notebooks[str(name)] = Entry(**numbers, first=given.get("first") is True, parameters=parameters)
    shared, runs = (_mapping(document, key, "profile", problems) for key in ("shared", "runs"))
    if not notebooks and not runs:
        problems.append("profile: name at least one notebook under 'notebooks', or a grid under 'runs'")
    return Profile(path.stem, path, str(document.get("description") or ""), shared, notebooks, runs), problems


def _mapping(document: dict, key: str, where: str, problems: list[str]) -> dict:
    value = document.get(key)
    if value is None or isinstance(value, dict):
        return value or {}
    problems.append(f"{where}: {key!r} must be a mapping, got {value!r}")
    return {}


def _known_keys(document: dict, known: tuple[str, ...], where: str, problems: list[str]) -> None:
    problems += [f"{where}: unknown key {k!r}; {suggest(str(k), list(known))}" for k in document if k not in known]


def _raise(problems: list[str], profile: Profile) -> None:
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise ValueError(f"profile {profile.name!r} has {count} ({profile.path}):\n  - " + "\n  - ".join(problems))


def _plain(values: Mapping[str, Any]) -> dict:
    """Values in a form that JSON can hash (infinities have no JSON)."""
    return {name: repr(value) for name, value in values.items()}


def _library_digest() -> str:
    """A digest of everything that a notebook's results depend on: the library's sources and the pinned small data.

    The runner and the report are left out: polishing a page must not repeat a study. File times play no part, so a
    fresh checkout of the same sources has nothing to redo.
    """
    package, small = Path(__file__).resolve().parents[2], project_root() / "data"
    study = package / "lab" / "study"
    files = [path for path in package.rglob("*.py") if study not in path.parents]
    files += [
        study / "claims.py",
        study / "verdicts.py",
        study / "claims.yaml",
        *small.glob("*.txt"),
        *small.glob("evidence/*.csv"),
    ]
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
