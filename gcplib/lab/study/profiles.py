"""Profiles: which notebooks a study runs, with which parameters, and the plan that follows.

A profile is a YAML file::

    description: one line for the report
    shared:                       # optional; given to every notebook that declares the name
      families: 60
    notebooks:
      07_train_fine_grained:      # may be empty: the notebook's own defaults
        threads: 2                # cores for this notebook, 1 if left out
        timeout: 3600             # seconds a single cell may take
        first: true               # start before the others: it trains runs that they read, or takes long
        parameters: {seeds: 5}
    runs:                         # optional; grids of training runs, see gcplib.lab.study.sweeps
      head: {base: {pool: mpn_cov}, grid: {labels: [fine, coarse], seed: 8}}

With ``--data birds=PATH`` the notebooks run on a folder of images, in a study of its own (``photographs-birds``).
Everything is checked, and every problem is listed at once, before anything runs.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from gcplib.lab.files import digest, runs_dir
from gcplib.lab.study.notebooks import Notebook, discover, notebooks_dir
from gcplib.lab.study.plan import Job, Plan
from gcplib.lab.study.sources import Library
from gcplib.lab.study.sweeps import checked, plan_sweeps
from gcplib.lab.validation import SpecError, apply_changes, read_yaml, specification, unknown

__all__ = ["Entry", "Profile", "make_plan", "profile_path"]

# The shared parameters that describe the typefaces: with any of them, the study prepares the data first.
DATA_FIELDS = ("families", "train", "validation", "test", "pixels")
# What preparing them runs, whose sources make them stale.
DATA_CODE = "from gcplib.lab.data import load_typefaces\nfrom gcplib.lab.training import cache_features"

GridName = Annotated[str, Field(pattern=r"^\w[\w-]*$")]


@specification
class Profile:
    """A profile as it is written."""

    description: str | None = None
    shared: dict[str, Any] | None = None
    notebooks: dict[str, Any] | None = None
    runs: dict[GridName, Any] | None = None


@specification
class Entry:
    """What a profile says about one notebook."""

    threads: PositiveInt = 1
    timeout: PositiveInt = 3600
    first: bool = False
    parameters: dict[str, Any] | None = None


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
        raise FileNotFoundError(f"no file {path}: {unknown('profile', path.stem, names)}")
    return path.resolve()


def make_plan(profile: str | Path, data: tuple[str, str] | None = None, changes: Sequence[str] = ()) -> Plan:
    """Read a profile, check it against the notebooks, and return the plan that follows.

    Args:
        profile: its name or file.
        data: a name and the folder of images that it stands for, in place of the profile's data set.
        changes: ``PARAMETER=VALUE`` for every notebook that has the parameter, ``07.PARAMETER=VALUE`` for one.

    Raises:
        FileNotFoundError: there is no such profile, or no such folder of images.
        ValueError: the folder is none of the data sets that are known.
        SpecError: anything does not fit; the message lists every problem.
    """
    path, problems = profile_path(profile), []
    if not isinstance(document := read_yaml(path), dict):
        raise SpecError(str(path), [f"expected a mapping with 'notebooks' or 'runs', got {document!r}"])
    checked(Profile, document, "profile", problems)
    # It names the folder of the results, and claims are recorded under it.
    study = f"{path.stem}-{data[0]}" if data else path.stem
    if not re.fullmatch(r"\w[\w.-]*", study):
        problems.append(f"a profile's name may have letters, digits, '_', '-' and '.', got {study!r}")
    shared, entries, runs = (_mapping(document, key) for key in ("shared", "notebooks", "runs"))
    changed = _changes(changes, entries, problems)
    forced = (_images_at(data[1]) if data else {}) | changed[""]
    shared = shared | forced
    if not entries and not runs:
        problems.append("profile: name at least one notebook under 'notebooks', or a grid under 'runs'")
    library, notebooks, typefaces, jobs = Library(), _notebooks(entries, problems), None, {}
    declared = sorted({name for notebook in notebooks.values() for name in notebook.parameters} - {"profile"})
    if len(notebooks) == len(entries):
        problems += [f"shared: {unknown('parameter', name, declared)}" for name in shared if name not in declared]
    values = {name: shared[name] for name in DATA_FIELDS if name in shared}
    if values and shared.get("dataset", "typefaces") == "typefaces":  # others are not drawn, but on the user's disk
        from gcplib.lab.data import TypefacesSpec

        if typefaces := checked(TypefacesSpec, values, "shared", problems):
            jobs["data"] = Job("data", digest([values, library.digest_of(DATA_CODE)]), values)
    jobs |= (sweeps := plan_sweeps(runs, typefaces, problems))
    images = functools.cache(_digest_of)
    for name, notebook in notebooks.items():
        entry = checked(Entry, entries[name], f"notebooks: {name}", problems) or Entry()
        mine, taken = changed.get(name, {}), notebook.parameters
        own = _mapping(entries[name], "parameters") | mine
        if "profile" in own:
            problems.append(f"{name}: 'profile' is set by the study; remove it")
        given = {key: value for key, value in (shared | own | forced | mine).items() if key in taken or key in own}
        given |= {"profile": study} if "profile" in taken else {}
        values = notebook.take(given, problems)
        problems += _unknown_to_recipes(name, values)
        sees = [values.get(name, taken.get(name, ("",))[0]) for name in ("dataset", "root")]
        about = [notebook.text, sorted(map(repr, values.items())), library.digest_of(*notebook.code), images(*sees)]
        key = digest(about)
        needs = ("data", *sweeps) if typefaces and taken.keys() & jobs["data"].values.keys() else (*sweeps,)
        options = {"threads": entry.threads, "timeout": entry.timeout, "first": entry.first}
        jobs[f"notebooks/{name}"] = Job(f"notebooks/{name}", key, values, needs, source=str(notebook.path), **options)
    if problems:
        raise SpecError(f"profile {path.stem!r} ({path})", problems)
    return Plan(study, runs_dir() / study, document.get("description") or "", shared, list(changes), jobs)


def _changes(changes: Sequence[str], entries: Mapping[str, Any], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Return the changes of all notebooks, under no name, and those of each that one names by its number."""
    found: dict[str, list[str]] = {"": []}
    for change in changes:
        number, _, rest = change.partition(".")
        names = [name for name in entries if name.startswith(f"{number}_")] if number.isdecimal() else [""]
        problems += [f"--set {change}: no notebook of the profile has the number {number}"] * (not names)
        for name in names:
            found.setdefault(name, []).append(rest if name else change)
    return {name: apply_changes({}, texts) for name, texts in found.items()}


def _images_at(root: str) -> dict[str, str]:
    from gcplib.lab.data.readers import guess_dataset

    return {"dataset": guess_dataset(root), "root": str(Path(root).expanduser().resolve())}


def _digest_of(dataset: Any, root: Any) -> str:
    """Return what changes with the files of a data set on disk; nothing where it is not there, as its notebook says."""
    if dataset in ("", "typefaces"):
        return ""
    from gcplib.lab.data import ImagesSpec

    try:
        return ImagesSpec(dataset, root).digest
    except (OSError, ValueError):
        return ""


def _unknown_to_recipes(notebook: str, values: Mapping[str, Any]) -> list[str]:
    """Return the problems with the names of a notebook's recipe, which may hold lists of what a recipe has one of."""
    if not (given := _mapping(values, "recipe")):
        return []
    from gcplib.lab.training import Recipe

    known = [field.name for field in dataclasses.fields(Recipe)]
    return [f"{notebook}: recipe: {unknown('key', key, known)}" for key in given if key not in known]


def _notebooks(names: Mapping[str, Any], problems: list[str]) -> dict[str, Notebook]:
    existing, found = discover(), {}
    for name in names:
        if name not in existing:
            problems.append(f"notebooks: {unknown('notebook', name, existing)}")
            continue
        try:
            found[name] = Notebook(existing[name])
        except ValueError as error:
            problems.append(str(error))
    return found


def _mapping(values: Any, key: str) -> dict[str, Any]:
    found = values.get(key) if isinstance(values, dict) else None
    return found if isinstance(found, dict) else {}
