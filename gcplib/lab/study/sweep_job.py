"""One job of a sweep: train its runs one after the other, and keep what became of each."""

from __future__ import annotations

import datetime
import json
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from gcplib.lab.files import write_atomic
from gcplib.lab.study.sweeps import SweepJob

__all__ = ["Position", "read_position", "train_runs"]


@dataclass(frozen=True)
class Position:
    """How far a job is: runs done, and the name of the one that it trains."""

    done: int
    current: str


def train_runs(job: SweepJob, folder: Path) -> list[dict]:
    """Train the runs of a job and write ``<job>.json`` with what became of each; return its entries.

    A run that diverges is a result. A run that raises an error is recorded with its reason, its traceback goes to the
    log, and the next one starts.

    Args:
        job: what to train. folder: of the study.
    """
    position = _position_file(job.name, folder)
    order = list(zip(job.runs, job.specs, strict=True))
    if (before := read_position(job.name, folder)) is not None:
        # The process died in that run, of memory perhaps. It comes last now, so that the others are trained whatever
        # it does; its checkpoint saves its time.
        order.sort(key=lambda item: item[0] == before.current)
    entries: dict[str, dict] = {}
    for name, spec in order:
        with write_atomic(position) as temporary:
            temporary.write_text(json.dumps({"done": len(entries), "current": name}))
        entries[name] = _train(name, spec)
        print(f"{name}: {entries[name]['outcome']} {entries[name]['reason']}".strip(), flush=True)
    document = {
        "job": job.name,
        "key": job.key,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "runs": [entries[name] for name in job.runs],
    }
    with write_atomic(folder / f"{job.name}.json") as path:
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    position.unlink(missing_ok=True)
    return document["runs"]


def _train(name: str, spec: object) -> dict:
    from gcplib.lab.training import ensure

    start = time.monotonic()
    try:
        run = ensure(spec)
        result = run.result
        entry = {"outcome": result["outcome"], "seconds": result["seconds"], "reason": result["reason"]}
        return {"directory": run.directory.name} | entry
    except Exception as error:  # whatever it is, the other runs are worth training
        traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return {"directory": name, "outcome": "failed", "seconds": time.monotonic() - start, "reason": reason}


def read_position(name: str, folder: Path) -> Position | None:
    """Return how far a job is, or was when its process died; None if it is not under way."""
    try:
        return Position(**json.loads(_position_file(name, folder).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _position_file(name: str, folder: Path) -> Path:
    return folder / "logs" / f"{name}.position"
