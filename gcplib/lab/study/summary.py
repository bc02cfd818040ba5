"""What a study prints when it is over: one line a job, and for what failed where and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from gcplib.lab.study.profiles import Plan
from gcplib.lab.study.progress import Progress, duration
from gcplib.lab.study.status import count_runs, study_status, sweep_status

__all__ = ["counted", "print_summary"]

LISTED = 20  # runs that did not finish and are named here; the report names all


def print_summary(plan: Plan, selected: Sequence[str], progress: Progress, code: int) -> None:
    """Print one line a job, and for what failed where and why.

    Args:
        plan: of the study. selected: the notebooks that were asked for. progress: of this call.
        code: how Snakemake ended.
    """
    print(f"\nStudy {plan.profile.name!r} took {duration(time.monotonic() - progress.start)}:")
    width = max(map(len, (*plan.jobs, "runs")))
    data_failed = progress.ended.get("data") == "failed"
    if data_failed:
        print(f"  FAILED   {'data':<{width}}  log: {plan.folder / 'logs' / 'data.log'}")
        _excerpt(_tail(plan.folder / "logs" / "data.log"))
    failures = _sweep_summary(plan, progress, width) or data_failed
    for name, status in study_status(plan).items():
        word = {"ok": "ok", "failed": "FAILED", "not run": "skipped", "out of date": "old"}[status.state]
        if name not in selected and status.state != "ok":
            word = "-"  # not asked for
        print(f"  {word:<7}  {name:<{width}}  {duration(status.seconds) if status.seconds is not None else ''}")
        if name in selected and (failure := status.failure):
            failures = True
            print(f"             in cell [{failure['number']}]:")
            _excerpt([*failure["source"].splitlines()[:12], "", failure["error"], f"log: {status.log}"])
    if code and not failures:
        log = plan.folder / "logs" / "snakemake.log"
        print(f"  Snakemake stopped with code {code}; its log: {log}")
        _excerpt(_tail(log))


def _sweep_summary(plan: Plan, progress: Progress, width: int) -> bool:
    """Print what became of the training runs, and say whether anything failed."""
    sweeps = sweep_status(plan)
    if not sweeps:
        return False
    runs = [run for sweep in sweeps.values() for which in ("failed", "diverged") for run in sweep.outcome(which)]
    runs.sort(key=lambda run: run["outcome"] == "diverged")
    died = [name for name in progress.started if name in sweeps and sweeps[name].state != "ok"]
    bad = died or any(run["outcome"] == "failed" for run in runs)
    word = "FAILED" if bad else "ok" if all(sweep.state == "ok" for sweep in sweeps.values()) else "skipped"
    total, words = count_runs(sweeps.values())
    print(f"  {word:<7}  {'runs':<{width}}  {total}: {words}")
    _excerpt([f"{run['outcome']:<8}  {run['directory']}  {run['reason']}" for run in runs[:LISTED]])
    if len(runs) > LISTED:
        _excerpt([f"and {len(runs) - LISTED} more, in the report"])
    for name in died:
        log = plan.folder / "logs" / f"{name}.log"
        _excerpt([f"{name} ended before its runs; log: {log}", *_tail(log, 4)])
    return bool(bad)


def _excerpt(lines: list[str]) -> None:
    for line in lines:
        print(f"             {line}".rstrip())


def _tail(path: Path, count: int = 12) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except OSError:
        return []


def counted(number: int, noun: str) -> str:
    """Return ``1 job`` or ``3 jobs``."""
    return f"{number} {noun}{'s' * (number != 1)}"
