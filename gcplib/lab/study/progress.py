"""What a person sees while a study runs: who started, finished or failed, how far the others are, and what remains."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gcplib.lab.study.profiles import Plan
from gcplib.lab.study.status import sweep_job_status
from gcplib.lab.study.sweep_job import read_position

__all__ = ["Progress", "announce", "duration", "parse_event", "status_file"]

EVENT = "[gcplib]"


def announce(screen: int, what: str, name: str, seconds: float | None = None) -> None:
    """Write one event of a job to the file descriptor of the screen."""
    took = "" if seconds is None else f" after {seconds:.1f} s"
    with contextlib.suppress(BrokenPipeError):  # nobody watches any more
        os.write(screen, f"{EVENT} {name} {what}{took}\n".encode())


def parse_event(line: str) -> tuple[str, str, float | None] | None:
    """Return name, kind and seconds of an event line, or None for any other line."""
    match = re.fullmatch(rf"{re.escape(EVENT)} (\S+) (started|done|failed)(?: after ([\d.]+) s)?", line.strip())
    return (match[1], match[2], float(match[3]) if match[3] else None) if match else None


def duration(seconds: float | None) -> str:
    """Return a time as a person says it: ``42 s``, ``3 min 05 s``, ``1 h 20 min``."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass
class Progress:
    """Turns events into lines, with an estimate from the times of earlier runs."""

    plan: Plan
    cores: int
    usual: Mapping[str, float]
    started: dict[str, float] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    expected: tuple[str, ...] = ()
    start: float = field(default_factory=time.monotonic)

    def handle(self, line: str) -> bool:
        """Show a line of output if it is an event, and say whether it was."""
        if not (event := parse_event(line)):
            return False
        name, what, seconds = event
        if what == "started":
            self.started[name] = time.monotonic()
            self.ended.pop(name, None)  # it had died, and begins again
            usual = f" (about {duration(self.usual[name])} last time)" if name in self.usual else ""
            self._print(f"{name:<{self._width}}  started{usual}")
        else:
            self.ended[name] = what
            text = "done in" if what == "done" else "FAILED after"
            self._print(f"{name:<{self._width}}  {text} {duration(seconds)}{self._bad_runs(name)}{self._remaining()}")
        return True

    def heartbeat(self) -> None:
        """Show how far the running jobs are."""
        now, parts = time.monotonic(), []
        for name in self.running:
            parts.append(f"{name} {duration(now - self.started[name])}{self._position(name)}")
        if parts:
            self._print("running: " + "; ".join(parts) + self._remaining())

    @property
    def running(self) -> list[str]:
        """Names of the jobs that have started and not ended."""
        return [name for name in self.started if name not in self.ended]

    def _print(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        print(f"{minutes:3d}:{seconds:02d}  {text}", flush=True)

    @property
    def _width(self) -> int:
        return max(map(len, (*self.plan.jobs, *self.plan.sweeps, "data")))

    def _bad_runs(self, name: str) -> str:
        """What became of the runs of a job that has ended, if there is anything to say."""
        if name not in self.plan.sweeps:
            return ""
        status = sweep_job_status(self.plan, name)
        counts = [(len(status.outcome(which)), which) for which in ("diverged", "failed")]
        return "".join(f", {number} {which}" for number, which in counts if number)

    def _position(self, name: str) -> str:
        """How far a job is: the cell of a notebook, the run of a sweep, or the last words of another job's log."""
        if name in self.plan.sweeps:
            if (position := read_position(name, self.plan.folder)) is None:
                return ""
            count = f", {position.done} of {len(self.plan.sweeps[name].runs)} runs done"
            return count + _status_line(status_file(self.plan, name))
        log = self.plan.folder / "logs" / f"{name}.log"
        try:
            text = log.read_bytes()[-200_000:].decode(errors="replace")
        except OSError:
            return ""
        if name in self.plan.jobs:
            cells = re.findall(r"^Executing Cell (\d+)-", text, flags=re.MULTILINE)
            where = f", cell {cells[-1]} of {_cells(self.plan.jobs[name].source)}" if cells else ""
            return where + _status_line(status_file(self.plan, name))
        words = [part.strip() for part in re.split(r"[\r\n]", text) if part.strip()]
        return f" ({words[-1][-90:]})" if words else ""

    def _remaining(self) -> str:
        """The estimate: the longest job, or all the work over all the cores, whichever takes longer.

        Training runs have no earlier times; theirs is from the pace so far, and the notebooks follow after them.
        """
        left = [name for name in self.expected if name not in self.ended]
        if not left:
            return ""
        count, pace = f" · {len(left)} to go", 0.0
        if any(name in self.plan.sweeps for name in left):
            done, total = self._runs()
            count = f" · {done} of {total} runs done{count}"
            if not done:
                return count
            begun = min(self.started[name] for name in self.started if name in self.plan.sweeps)
            pace = (time.monotonic() - begun) / done * (total - done)
        left = [name for name in left if name not in self.plan.sweeps]
        if unknown := [name for name in left if name not in self.usual]:
            what = f"no estimate yet: first run of {', '.join(unknown)}" if len(unknown) < 3 else ""
            runs = f"about {duration(pace)} for the runs" if pace else ""
            return count + (f" ({'; '.join(filter(None, (runs, what)))})" if runs or what else "")
        now, times = time.monotonic(), {}
        for name in left:
            times[name] = max(self.usual[name] - (now - self.started.get(name, now)), 1)
        threads = {n: min(self.plan.jobs[n].threads if n in self.plan.jobs else self.cores, self.cores) for n in left}
        work = sum(times[name] * threads[name] for name in left) / self.cores
        return f"{count}, about {duration(pace + max(work, *times.values(), 0))} left"

    def _runs(self) -> tuple[int, int]:
        """How many training runs are done, of all in the jobs of this study that were not up to date."""
        done = total = 0
        for name in self.expected:
            if job := self.plan.sweeps.get(name):
                total += len(job.runs)
                position = read_position(name, self.plan.folder) if name in self.running else None
                done += len(job.runs) if self.ended.get(name) == "done" else position.done if position else 0
        return done, total


def status_file(plan: Plan, name: str) -> Path:
    """Return the file in which a job's process says how far its longest loop is (``gcplib.lab.progress.track``)."""
    return plan.folder / "logs" / f"{name}.status"


def _status_line(path: Path) -> str:
    try:
        text = path.read_text()
    except OSError:
        return ""
    return f" ({text})" if text else ""


def _cells(path: Path) -> int:
    # One more than the source has: papermill adds the cell with the profile's parameters.
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return len(cells) + 1
