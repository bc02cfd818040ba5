"""What a person sees of a study: who started, finished or failed, how far the others are, what remains, and the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcplib.lab.files import read_json
from gcplib.lab.progress import counted, duration
from gcplib.lab.study.plan import Job, Plan

__all__ = ["Watch"]

HEARTBEAT = 20  # seconds without news after which the running jobs are listed
LISTED = 20  # training runs that did not finish and are named; the report names all


class Watch:
    """Turns what the due jobs write about themselves into lines, with an estimate from the times of earlier runs."""

    def __init__(self, plan: Plan, due: Sequence[str], cores: int) -> None:
        self.plan, self.jobs, self.cores = plan, [plan.jobs[name] for name in due], cores
        self.start = self.news = time.time()
        self.states: dict[str, dict[str, Any]] = {job.name: {} for job in self.jobs}
        self.usual = {job.name: plan.facts(job).get("usual_seconds") for job in self.jobs}
        self.width = max((len(job.label) for job in plan.jobs.values()), default=0)
        if due:
            amount = f"{counted(len(due), 'job')} on {counted(cores, 'core')}"
            print(f"Study {plan.profile!r}: {amount}; logs in {plan.folder / 'logs'}", flush=True)

    def look(self) -> None:
        """Print what is new, or after a while how far the running jobs are."""
        before, states = self.states, {job.name: read_json(self.plan.file(job, ".state")) for job in self.jobs}
        # What an earlier study left says nothing about this one.
        self.states = {name: state if state.get("begun", 0) >= self.start else {} for name, state in states.items()}
        for job in self.jobs:
            state, last = self.states[job.name], before[job.name]
            if state.get("begun") != last.get("begun"):  # again, if it had died
                usual = f" (about {duration(self.usual[job.name])} last time)" if self.usual[job.name] else ""
                self._line(f"{job.label:<{self.width}}  started{usual}")
            if state != last and state["state"] != "running":
                words = f"{'done in' if state['state'] == 'done' else 'FAILED after'} {duration(state['seconds'])}"
                for outcome in ("diverged", "failed") if job.kind == "sweeps" else ():
                    words += f", {count} {outcome}" if (count := len(self.plan.runs(outcome, of=job))) else ""
                self._line(f"{job.label:<{self.width}}  {words}{self.remaining()}")
        running = [job for job in self.jobs if self.states[job.name].get("state") == "running"]
        if running and time.time() - self.news >= HEARTBEAT:
            self._line("running: " + "; ".join(map(self._position, running)) + self.remaining())

    def _line(self, text: str) -> None:
        self.news = time.time()
        minutes, seconds = divmod(int(self.news - self.start), 60)
        print(f"{minutes:3d}:{seconds:02d}  {text}", flush=True)

    def _position(self, job: Job) -> str:
        state, loop = self.states[job.name], self.plan.file(job, ".loop")
        where = f", {state['done']} of {len(job.values)} runs done" if "done" in state else ""
        where += f", {state['where']}" if "where" in state else ""
        inner = f" ({text})" if loop.is_file() and (text := loop.read_text(errors="replace")) else ""
        return f"{job.label} {duration(time.time() - state['begun'])}{where}{inner}"

    def remaining(self) -> str:
        """Return how much is left: all the work over all the cores, or the longest job, whichever takes longer.

        Notebooks take as long as the last time, and runs as long as those before them; notebooks wait for runs.
        """
        now, over = time.time(), ("done", "failed")
        left = [job for job in self.jobs if self.states[job.name].get("state") not in over]
        begun = {job.name: self.states[job.name].get("begun", now) for job in self.jobs}
        sweeps = [job for job in self.jobs if job.kind == "sweeps"]
        total = sum(len(job.values) for job in sweeps)
        done = sum(self.states[job.name].get("done", 0) if job in left else len(job.values) for job in sweeps)
        pace = (now - min(begun[job.name] for job in sweeps)) / done if done else 0.0
        times = [(max(usual - (now - begun[j.name]), 1), j.threads) for j in left if (usual := self.usual[j.name])]
        work = sum(seconds * min(threads, self.cores) for seconds, threads in times) / self.cores
        seconds = pace * (total - done) + max([work, *(seconds for seconds, _ in times)])
        word = "about" if len(times) == sum(job.kind != "sweeps" for job in left) else "at least"
        text = (f" · {done} of {total} runs done" if done < total else "") + (f" · {len(left)} to go" if left else "")
        return text + (f", {word} {duration(seconds)} left" if seconds else "")

    def summary(self, selected: Sequence[str], code: int) -> bool:
        """Print one line per job, where and why the failed ones failed, and return whether any of the selected did."""
        plan, failed = self.plan, []
        print(f"\nStudy {plan.profile!r} took {duration(time.time() - self.start)}:")
        for job in self.jobs:
            if job.kind != "notebooks" and self.states[job.name] and not plan.is_done(job):
                failed.append(job)
                print(f"  FAILED   {job.label:<{self.width}}  log: {plan.file(job, '.log')}")
                _excerpt(_tail(plan.file(job, ".log")))
        if plan.of("sweeps"):
            bad = plan.runs("failed", "diverged")
            word = "FAILED" if plan.runs("failed") else "ok" if all(map(plan.is_done, plan.of("sweeps"))) else "skipped"
            print(f"  {word:<7}  {'runs':<{self.width}}  {'{}: {}'.format(*plan.count_runs())}")
            _excerpt([f"{run['outcome']:<8}  {run['directory']}  {run['reason']}" for run in bad[:LISTED]])
            _excerpt([f"and {len(bad) - LISTED} more, in the report"] if len(bad) > LISTED else [])
            failed += plan.runs("failed")
        for job in plan.of("notebooks"):
            facts, status = plan.facts(job), plan.status(job)
            word = {"ok": "ok", "failed": "FAILED", "not run": "skipped", "out of date": "old"}[status]
            word = word if status == "ok" or job.name in selected else "-"  # not asked for
            print(f"  {word:<7}  {job.label:<{self.width}}  {duration(facts.get('seconds'))}".rstrip())
            if word == "FAILED":
                cell = facts["failure"]
                lines = [*cell["source"].splitlines()[:12], "", cell["error"], f"log: {plan.file(job, '.log')}"]
                _excerpt([f"in cell [{cell['number']}]:", *lines])
            failed += [job] if word not in ("ok", "-") else []
        if code and not failed:
            _excerpt([f"Snakemake stopped with code {code}:", *_tail(plan.folder / "logs" / "snakemake.log")])
        return bool(failed)


def _excerpt(lines: list[str]) -> None:
    for line in lines:
        print(f"             {line}".rstrip())


def _tail(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-12:] if path.is_file() else []
