"""What Snakemake calls: one job of a study in a process of its own (``python -m gcplib.lab.study.jobs JOB THREADS``).

It runs in the folder of the study, whose ``plan.json`` says what to do. Its output goes to its log; what a person
watches goes to ``logs/<job>.state``.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gcplib.lab.files import locked, read_json, write_json
from gcplib.lab.study.alive import end_with_study
from gcplib.lab.study.plan import Job, Plan, read_plan

__all__ = ["USER_CACHE", "main"]

USER_CACHE = "GCPLIB_USER_CACHE_HOME"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main(name: str, threads: str = "1") -> int:
    """Run a job with so many numeric threads (two that both use every core are slow), and return its exit code."""
    end_with_study()
    plan = read_plan(Path.cwd())
    job = plan.jobs[name]
    log, loop, state = (plan.file(job, suffix) for suffix in (".log", ".loop", ".state"))
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:  # also the output of what this process starts
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    loop.unlink(missing_ok=True)
    if (cache := os.environ.pop(USER_CACHE, None)) is not None:  # Snakemake was given another
        os.environ.pop("XDG_CACHE_HOME", None)
        os.environ |= {"XDG_CACHE_HOME": cache} if cache else {}
    os.environ.pop("MPLBACKEND", None)  # with a backend set, a kernel shows no figures
    # Loops say how far they are in a file: thousands of redrawn bars do not belong into a log.
    os.environ |= {"GCPLIB_STUDY": "1", "GCPLIB_CHANGES": json.dumps(plan.changes)}
    os.environ |= {"GCPLIB_PROGRESS": "0", "GCPLIB_STATUS": str(loop)} | dict.fromkeys(THREADS, threads)
    before, known = read_json(state), {"state": "running", "begun": time.time()}

    def tell(**values: Any) -> None:
        known.update(values, seconds=time.time() - known["begun"])
        write_json(state, known)

    tell()
    plan.begin(job)
    try:
        if job.kind == "data":
            options = [text for name, value in job.values.items() for text in (f"--{name}", str(value))]
            subprocess.run([sys.executable, "-m", "gcplib", "data", *options, "--features"], check=True)
        elif job.kind == "sweeps":
            # A process that died, of memory perhaps, did so in this run.
            train_runs(plan, job, tell, before.get("run") if before.get("state") == "running" else None)
        else:
            from gcplib.lab.study.execute import execute

            with locked(output := plan.file(job, ".ipynb")):  # a job of a killed study may be on its way out
                execute(Path(job.source), plan.profile, job.values, output, job.timeout, tell)
    except Exception:
        traceback.print_exc()
        tell(state="failed")
        return 1
    plan.finish(job)
    tell(state="done")
    return 0


def train_runs(plan: Plan, job: Job, tell: Callable[..., None], last: str | None = None) -> None:
    """Train the runs of a job one after the other, and write ``<job>.json`` with what became of each.

    A run that diverges is a result. A run that raises an error is recorded with its reason, its traceback goes to the
    log, and the next one starts. The run ``last`` comes last, so that the others are trained whatever it does.
    """
    from gcplib.lab.study.devices import own_device

    entries: dict[str, dict[str, Any]] = {}
    with own_device(job.gpus) as device:
        print(f"{len(job.values)} runs on {f'GPU {device}' if device else 'the CPU'}", flush=True)
        for name in sorted(job.values, key=lambda name: name == last):
            tell(done=len(entries), run=name)
            entries[name] = _train(name, job.values[name])
            print(f"{name}: {entries[name]['outcome']} {entries[name]['reason']}".strip(), flush=True)
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    runs = [entries[name] for name in job.values]
    write_json(plan.file(job, ".json"), {"job": job.name, "key": job.key, "date": date, "runs": runs})


def _train(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    from gcplib.lab.training import RunSpec, ensure

    start = time.monotonic()
    try:
        run = ensure(RunSpec.from_dict(fields))
        return {"directory": run.directory.name} | {key: run.result[key] for key in ("outcome", "seconds", "reason")}
    except Exception as error:  # whatever it is, the other runs are worth training
        traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return {"directory": name, "outcome": "failed", "seconds": time.monotonic() - start, "reason": reason}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
