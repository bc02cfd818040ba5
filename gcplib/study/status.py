"""The state of a study on disk: what ran, what failed, what is out of date."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from gcplib.study.profiles import Job, Plan

__all__ = ["NotebookStatus", "data_is_current", "study_status"]


@dataclass(frozen=True)
class NotebookStatus:
    """One notebook: ``state`` is ``ok``, ``failed``, ``not run`` or ``out of date`` (it ran, but something changed)."""

    name: str
    state: str
    executed: Path | None
    log: Path
    facts: dict

    @property
    def seconds(self) -> float | None:
        """How long it took, or None if it never ran."""
        return self.facts.get("seconds")

    @property
    def failure(self) -> dict | None:
        """The failing cell (number, id, source, error, traceback), if it failed."""
        return self.facts.get("failure") if self.state == "failed" else None


def study_status(plan: Plan) -> dict[str, NotebookStatus]:
    """Return the status of every notebook of a plan."""
    return {name: _status(plan, job) for name, job in plan.jobs.items()}


def _status(plan: Plan, job: Job) -> NotebookStatus:
    folder = plan.folder / "notebooks"
    good, bad = folder / f"{job.name}.ipynb", folder / f"{job.name}.failed.ipynb"
    facts = _read(folder / f"{job.name}.json")
    if good.is_file():
        state, executed = "ok" if facts.get("key") == job.key else "out of date", good
    elif facts.get("status") == "failed":
        state, executed = "failed", bad if bad.is_file() else None
    else:
        state, executed = "not run", None
    return NotebookStatus(job.name, state, executed, plan.folder / "logs" / f"{job.name}.log", facts)


def data_is_current(plan: Plan) -> bool:
    """Say whether the data of a plan were prepared with its present settings (or none need preparing)."""
    return not plan.data or _read(plan.folder / "data.json").get("key") == plan.data_key


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
