"""The state of a study on disk: what ran, what failed, what is out of date."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gcplib.lab.study.profiles import Job, Plan
from gcplib.lab.study.sweeps import FOLDER

__all__ = [
    "NotebookStatus",
    "SweepStatus",
    "count_runs",
    "data_is_current",
    "forget_failed_runs",
    "study_status",
    "sweep_job_status",
    "sweep_status",
]


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


@dataclass(frozen=True)
class SweepStatus:
    """One job of training runs: ``ok`` once each was tried, with ``runs`` telling what became of them."""

    name: str
    state: str
    log: Path
    expected: int
    runs: list[dict]

    def outcome(self, which: str) -> list[dict]:
        """Return the entries of the runs that ended so: ``finished``, ``diverged`` or ``failed``."""
        return [run for run in self.runs if run["outcome"] == which]


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


def sweep_status(plan: Plan) -> dict[str, SweepStatus]:
    """Return the status of every job of training runs of a plan."""
    return {name: sweep_job_status(plan, name) for name in plan.sweeps}


def sweep_job_status(plan: Plan, name: str) -> SweepStatus:
    """Return the status of one job of training runs."""
    job, document = plan.sweeps[name], _read(plan.folder / f"{name}.json")
    # Entries of another list of runs say nothing about this one.
    current = document.get("key") == job.key
    state = "ok" if current else "out of date" if document else "not run"
    runs = document["runs"] if current else []
    return SweepStatus(name, state, plan.folder / "logs" / f"{name}.log", len(job.runs), runs)


def count_runs(sweeps: Iterable[SweepStatus]) -> tuple[int, str]:
    """Return the number of runs and in words what became of them, such as ``60 finished, 1 diverged, 3 not run``."""
    sweeps = list(sweeps)
    counts = {which: sum(len(s.outcome(which)) for s in sweeps) for which in ("finished", "diverged", "failed")}
    total = sum(sweep.expected for sweep in sweeps)
    counts["not run"] = total - sum(counts.values())
    return total, ", ".join(f"{number} {which}" for which, number in counts.items() if number)


def forget_failed_runs(plan: Plan) -> None:
    """Remove the files of jobs with failed runs, so that these are tried again, and of jobs that are no more."""
    status = sweep_status(plan)
    for path in (plan.folder / FOLDER).glob("*.json"):
        name = f"{FOLDER}/{path.stem}"
        # A leading dot: a file that a killed job was writing.
        if path.name.startswith(".") or name not in status or status[name].outcome("failed"):
            path.unlink(missing_ok=True)


def data_is_current(plan: Plan) -> bool:
    """Say whether the data of a plan were prepared with its present settings (or none need preparing)."""
    return not plan.data or _read(plan.folder / "data.json").get("key") == plan.data_key


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
