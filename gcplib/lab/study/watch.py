"""What a person sees of a study: who started, finished or failed, how far the others are, what remains, and the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from gcplib.lab.study.plan import Job, Plan, read_json

__all__ = ["Watch", "counted", "duration"]

HEARTBEAT = 20  # seconds without news after which the running jobs are listed
LISTED = 20  # training runs that did not finish and are named; the report names all


def duration(seconds: float | None) -> str:
    """Return a time as a person says it: ``42 s``, ``3 min 05 s``, ``1 h 20 min``; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str) -> str:
    """Return ``1 job`` or ``3 jobs``."""
    return f"{number} {noun}{'s' * (number != 1)}"


class Watch:
    """Turns what jobs write about themselves into lines, with an estimate from the times of earlier runs.

    Args:
        plan: of the study.
        due: names of the jobs that are going to run.
        cores: that they use together.
    """

    def __init__(self, plan: Plan, due: Sequence[str], cores: int) -> None:
        self.plan, self.jobs, self.cores = plan, [plan.jobs[name] for name in due], cores
        self.start = self.news = time.time()
        self.states: dict[str, dict] = {}
        self.usual = {job.name: plan.facts(job).get("usual_seconds") for job in self.jobs}
        self.width = max((len(job.label) for job in plan.jobs.values()), default=0)
        if due:
            where = f"logs in {plan.folder / 'logs'}"
            print(
                f"Study {plan.profile!r}: {counted(len(due), 'job')} on {counted(cores, 'core')}; {where}", flush=True
            )

    def look(self) -> None:
        """Print what is new, or after a while how far the running jobs are."""
        before, states = self.states, {job.name: read_json(self.plan.file(job, ".state")) for job in self.jobs}
        self.states = {name: state for name, state in states.items() if state.get("begun", 0) >= self.start}
        for job in self.jobs:
            state, last = self.states.get(job.name, {}), before.get(job.name, {})
            if state.get("begun") != last.get("begun"):  # again, if it had died
                usual = self.usual[job.name]
                self._line(
                    f"{job.label:<{self.width}}  started{f' (about {duration(usual)} last time)' if usual else ''}"
                )
            if state != last and self._is(job, "done", "failed"):
                words = f"{'done in' if state['state'] == 'done' else 'FAILED after'} {duration(state['seconds'])}"
                bad = [(len(self.plan.runs(which, of=job)), which) for which in ("diverged", "failed")]
                words += "".join(f", {count} {which}" for count, which in bad if count and job.kind == "sweeps")
                self._line(f"{job.label:<{self.width}}  {words}{self.remaining()}")
        if time.time() - self.news >= HEARTBEAT and (running := [job for job in self.jobs if self._is(job, "running")]):
            self._line("running: " + "; ".join(map(self._position, running)) + self.remaining())

    def _is(self, job: Job, *states: str) -> bool:
        return self.states.get(job.name, {}).get("state") in states

    def _line(self, text: str) -> None:
        self.news = time.time()
        minutes, seconds = divmod(int(self.news - self.start), 60)
        print(f"{minutes:3d}:{seconds:02d}  {text}", flush=True)

    def _position(self, job: Job) -> str:
        state, loop = self.states[job.name], self.plan.file(job, ".loop")
        where = f"{state['done']} of {len(job.values)} runs done" if "done" in state else state.get("where")
        inner = f"({text})" if loop.is_file() and (text := loop.read_text(errors="replace")) else None
        place = " ".join(filter(None, (where, inner)))
        return f"{job.label} {duration(time.time() - state['begun'])}{', ' * bool(place)}{place}"

    def remaining(self) -> str:
        """Return how much is left: all the work over all the cores, or the longest job, whichever takes longer.

        Notebooks take as long as the last time, and runs as long as those before them; notebooks wait for runs.
        """
        now, left = time.time(), [job for job in self.jobs if not self._is(job, "done", "failed")]
        if not left:
            return ""
        sweeps = [job for job in self.jobs if job.kind == "sweeps"]
        over = [len(j.values) if self._is(j, "done") else self.states.get(j.name, {}).get("done", 0) for j in sweeps]
        done, total = sum(over), sum(len(job.values) for job in sweeps)
        text = (f" · {done} of {total} runs done" if done < total else "") + f" · {len(left)} to go"
        begun = [self.states[job.name]["begun"] for job in sweeps if job.name in self.states]
        seconds = (now - min(begun)) / done * (total - done) if done else 0.0
        others = [job for job in left if job.kind != "sweeps" and self.usual[job.name]]
        times = [max(self.usual[j.name] - (now - self.states.get(j.name, {}).get("begun", now)), 1) for j in others]
        work = sum(time * min(job.threads, self.cores) for time, job in zip(times, others, strict=True))
        seconds += max([work / self.cores, *times])
        is_whole = (done or done == total) and len(others) == sum(job.kind != "sweeps" for job in left)
        return text + (f", {'about' if is_whole else 'at least'} {duration(seconds)} left" if seconds else "")

    def summary(self, selected: Sequence[str], code: int) -> bool:
        """Print one line per job, where and why the failed ones failed, and return whether any did.

        Args:
            selected: names of the jobs that were asked for.
            code: how Snakemake ended.
        """
        plan, failed = self.plan, []
        print(f"\nStudy {plan.profile!r} took {duration(time.time() - self.start)}:")
        for job in self.jobs:  # a process that died says nothing itself
            died = not plan.is_done(job) and job.name in self.states
            if job.kind != "notebooks" and died:
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
            status, facts = plan.status(job), plan.facts(job)
            word = {"ok": "ok", "failed": "FAILED", "not run": "skipped", "out of date": "old"}[status]
            word = word if status == "ok" or job.name in selected else "-"  # not asked for
            print(f"  {word:<7}  {job.label:<{self.width}}  {duration(facts.get('seconds'))}".rstrip())
            if word == "FAILED":
                cell = facts["failure"]
                print(f"             in cell [{cell['number']}]:")
                _excerpt([*cell["source"].splitlines()[:12], "", cell["error"], f"log: {plan.file(job, '.log')}"])
            failed += [job] if word not in ("ok", "-") else []
        if code and not failed:
            print(f"  Snakemake stopped with code {code}; its log: {plan.folder / 'logs' / 'snakemake.log'}")
            _excerpt(_tail(plan.folder / "logs" / "snakemake.log"))
        return bool(failed)


def _excerpt(lines: list[str]) -> None:
    for line in lines:
        print(f"             {line}".rstrip())


def _tail(path: Path, count: int = 12) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:] if path.is_file() else []
