"""Copies of the notebooks for learners, and sources of assignments for nbgrader.

In a learner's copy tasks are unwritten, solutions of exercises are folded, and there is a place for every guess. What
a learner has changed is never written over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell
from nbgrader.preprocessors import ClearSolutions

from gcplib.lab.course.parameters import chosen, with_values
from gcplib.lab.files import digest, project_root, write_text
from gcplib.lab.study.notebooks import notebooks_dir

__all__ = ["Copy", "finished_values", "learner_dir", "make_copy", "write_copies"]

STUB = "raise NotImplementedError()"
PROFILE = "learner"  # what a copy records is told apart from what a study does
GUESS = "**My guess:** *double-click here, and write it before you read on.*"
SOLUTION = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n\n</details>"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)\s#]+)")


@dataclass(frozen=True)
class Copy:
    """What became of one copy."""

    path: Path
    state: str
    has_runs: bool

    def __str__(self) -> str:
        numbers = "a finished study, whose runs are there" if self.has_runs else "the notebook itself"
        taken = "" if self.state.startswith("yours") else f"; its numbers are those of {numbers}"
        return f"{self.path.stem}: {self.state}{taken}"


def learner_dir() -> Path:
    """Return the folder of the learner's copies, which git ignores."""
    return project_root() / "learner"


def finished_values(profile: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of the notebooks that a study has run, and of which nothing has changed since."""
    from gcplib.lab.study.profiles import make_plan

    plan = make_plan(profile)
    return {job.label: dict(job.values) for job in plan.of("notebooks") if plan.is_done(job)}


def make_copy(
    source: nbformat.NotebookNode, folder: Path, values: Mapping[str, Any] | None = None, *, graded: bool = False
) -> nbformat.NotebookNode:
    """Return the learner's copy of a notebook.

    Args:
        source: the notebook.
        folder: where the copy will be, beside those of the other notebooks; links are led from there.
        values: of parameters, in place of the notebook's own.
        graded: keep the solutions of tasks, which nbgrader itself removes when it makes an assignment.

    Raises:
        RuntimeError: a solution begins in a cell that is not marked as a task, or does not end.
    """
    copy = nbformat.from_dict(source)
    if not graded:
        copy, _ = ClearSolutions(code_stub={"python": STUB}).preprocess(copy, {})
    values = {**(values or {}), "profile": PROFILE}
    copy.cells = [made for cell in copy.cells for made in _cells(cell, folder, values)]
    copy.metadata["gcplib"] = {"digest": _digest(copy)}
    return copy


def _cells(cell: nbformat.NotebookNode, folder: Path, values: Mapping[str, Any]) -> Iterator[nbformat.NotebookNode]:
    tags = cell.metadata.get("tags", [])
    if "solution" in tags:
        yield new_markdown_cell(SOLUTION.format(cell.source), id=cell.id, metadata={"tags": ["solution"]})
    elif cell.cell_type == "markdown":
        cell.source = LINK.sub(lambda found: _led(found[1], folder), cell.source)
        yield cell
        if "**Predict**" in cell.source:
            yield new_markdown_cell(GUESS, id=f"{cell.id}-guess", metadata={"tags": ["guess"]})
    else:
        if "parameters" in tags:
            cell.source = with_values(cell.source, values)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        yield cell


def _led(target: str, folder: Path) -> str:
    """Return a link of a notebook as it is from a folder; other notebooks have their copies there."""
    path = (notebooks_dir() / target).resolve()
    if path.parent == notebooks_dir() and path.suffix == ".ipynb":
        return target
    return Path(os.path.relpath(path, folder.resolve())).as_posix()


def write_copies(
    names: Sequence[str] = (),
    folder: Path | None = None,
    *,
    profile: str = "study",
    graded: bool = False,
    force: bool = False,
) -> list[Copy]:
    """Write the learner's copies of notebooks, and return what became of each.

    A copy that is there and was changed is left alone; one that was only run is renewed where the course has changed.

    Args:
        names: of notebooks, or how they begin; all where there are none.
        folder: of the copies.
        profile: of a study whose parameters a copy gets, if it is finished: its runs are read, not trained again.
        graded: sources of assignments for nbgrader, ``NAME/NAME.ipynb``, with the solutions of tasks.
        force: write over changed copies, too.
    """
    folder, known, found = folder or learner_dir(), finished_values(profile), []
    for name, path in chosen(names).items():
        place = folder / name / path.name if graded else folder / path.name
        source = nbformat.read(path, as_version=4)
        copy = make_copy(source, place.parent, known.get(name), graded=graded)
        state = _state(place, copy.metadata["gcplib"]["digest"])
        if state.startswith("yours") and force:
            state = "written over yours"
        if not state.startswith(("yours", "up to date")):
            write_text(place, nbformat.writes(copy) + "\n")
        found.append(Copy(place, state, name in known))
    return found


def _state(path: Path, new: str) -> str:
    """Say what is to be done about a copy, in words."""
    if not path.is_file():
        return "written"
    try:
        old = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds; what cannot be read may still be somebody's work
        return f"yours, left alone, though it cannot be read ({type(error).__name__}); --force replaces it"
    made = old.metadata.get("gcplib", {}).get("digest")
    if made != _digest(old):
        return "yours, left alone" + ("" if made == new else ", though the course has changed; --force replaces it")
    return "up to date" if made == new else "renewed"


def _digest(notebook: nbformat.NotebookNode) -> str:
    """Return what changes with what somebody writes into a notebook, and not when it is run."""
    return digest([[cell.cell_type, cell.source] for cell in notebook.cells])
