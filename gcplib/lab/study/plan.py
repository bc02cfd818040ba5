"""The plan of a study: its jobs in one file, written once, and what of it is done.

Every job has a key that changes with anything that its result depends on, and a job is done if the empty file
``done/<name>.<key>`` is there. This alone decides what runs: Snakemake makes the files that are missing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcplib.lab.files import read_json, write_json
from gcplib.lab.study.notebooks import discover

__all__ = ["Job", "Plan", "read_plan", "write_plan"]


@dataclass(frozen=True)
class Job:
    """One job of a study; its name is a place below the folder, such as ``notebooks/07_train_fine_grained``."""

    name: str
    key: str
    values: Mapping[str, Any] = field(default_factory=dict)  # settings, parameters, or fields of each run by its name
    needs: tuple[str, ...] = ()  # jobs that have to be over before
    threads: int = 1
    gpus: int = 0
    first: bool = False
    timeout: int = 0  # seconds that a cell may take
    source: str = ""  # file of a notebook

    @property
    def kind(self) -> str:
        """``data``, ``sweeps`` or ``notebooks``."""
        return self.name.split("/")[0]

    @property
    def label(self) -> str:
        """The name for people."""
        return self.name.removeprefix("notebooks/")


@dataclass(frozen=True)
class Plan:
    """A checked profile: where it writes, and its jobs by their names."""

    profile: str
    folder: Path
    description: str = ""
    shared: Mapping[str, Any] = field(default_factory=dict)
    changes: Sequence[str] = ()  # of parameters, as they were asked for
    jobs: Mapping[str, Job] = field(default_factory=dict)

    def of(self, kind: str) -> list[Job]:
        """Return the jobs of a kind."""
        return [job for job in self.jobs.values() if job.kind == kind]

    def file(self, job: Job, suffix: str) -> Path:
        """Return a file that a job makes, or with ``.log``, ``.state`` or ``.loop`` one that tells about it."""
        return self.folder / ("logs" if suffix in (".log", ".state", ".loop") else "") / f"{job.name}{suffix}"

    @property
    def report(self) -> Path:
        """The first page of the study, if it has been written."""
        return self.folder / "report" / "index.html"

    def stamp(self, job: Job) -> Path:
        """Return the file that says that a job is done."""
        return self.folder / "done" / f"{job.name}.{job.key}"

    def is_done(self, job: Job) -> bool:
        """Say whether a job is done, and nothing that it depends on has changed."""
        return self.stamp(job).is_file()

    def begin(self, job: Job) -> None:
        """Forget that a job was ever done."""
        for path in self.stamp(job).parent.glob("*"):
            if path.stem == Path(job.name).name:
                path.unlink(missing_ok=True)

    def finish(self, job: Job) -> None:
        """Keep that a job is done."""
        self.stamp(job).parent.mkdir(parents=True, exist_ok=True)
        self.stamp(job).touch()

    def due(self, names: Iterable[str]) -> list[str]:
        """Return those of the jobs that have to run, each behind those that it needs."""
        found: dict[str, None] = {}
        for name in names:
            if not self.is_done(self.jobs[name]):
                found |= dict.fromkeys([*self.due(self.jobs[name].needs), name])
        return list(found)

    def facts(self, job: Job) -> dict[str, Any]:
        """Return what is known of the last time that a notebook ran, or that training runs were tried."""
        return read_json(self.file(job, ".json"))

    def status(self, job: Job) -> str:
        """Return what is known of a notebook: ``ok``, ``failed``, ``not run``, or ``out of date`` after a change."""
        if self.is_done(job) or self.file(job, ".ipynb").is_file():
            return "ok" if self.is_done(job) else "out of date"
        return "failed" if self.facts(job).get("status") == "failed" else "not run"

    def runs(self, *outcomes: str, of: Job | None = None) -> list[dict[str, Any]]:
        """Return what became of the training runs that ended so (``finished``, ``diverged``, ``failed``)."""
        facts = [(job, self.facts(job)) for job in ([of] if of else self.of("sweeps"))]
        # Entries of another list of runs say nothing about this one.
        runs = [run for job, document in facts if document.get("key") == job.key for run in document["runs"]]
        return [run for outcome in outcomes for run in runs if run["outcome"] == outcome]

    def count_runs(self) -> tuple[int, str]:
        """Return the number of training runs, and in words what became of them."""
        counts = {outcome: len(self.runs(outcome)) for outcome in ("finished", "diverged", "failed")}
        total = sum(len(job.values) for job in self.of("sweeps"))
        counts["not run"] = total - sum(counts.values())
        return total, ", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number)


def write_plan(plan: Plan) -> None:
    """Write ``plan.json`` in the folder of the study, and forget what is no more, or was not finished."""
    for job in plan.jobs.values():
        made = plan.file(job, ".json" if job.kind == "sweeps" else ".ipynb")
        # Training runs that failed are tried again.
        if (job.kind != "data" and not made.is_file()) or plan.runs("failed", of=job):
            plan.begin(job)
    left = [path for path in plan.folder.glob("sweeps/*.json") if f"sweeps/{path.stem}" not in plan.jobs]
    left += [path for path in plan.folder.glob("claims/C*-*.json") if path.stem.split("-", 1)[1] not in discover()]
    for path in [*left, *plan.folder.glob("notebooks/.*.ipynb"), *plan.folder.glob("sweeps/.*.json")]:
        path.unlink(missing_ok=True)
    values = dataclasses.asdict(plan) | {"folder": str(plan.folder)}
    if read_json(plan.folder / "plan.json") != json.loads(json.dumps(values)):
        write_json(plan.folder / "plan.json", values)


def read_plan(folder: Path) -> Plan:
    """Return the plan that was written in a folder."""
    values = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    jobs = {name: Job(**job) for name, job in values["jobs"].items()}
    return Plan(**values | {"folder": Path(values["folder"]), "jobs": jobs})
