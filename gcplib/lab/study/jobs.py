"""What Snakemake calls: one job of a study in a process of its own (``python -m gcplib.lab.study.jobs``).

It runs in the folder of the study, whose ``plan.json`` says what to do. Its output goes to its log; what a person
watches goes to ``logs/<job>.state``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gcplib.lab.files import locked
from gcplib.lab.study.alive import end_with_study
from gcplib.lab.study.plan import Job, Plan, read_json, read_plan, write_json

__all__ = ["USER_CACHE", "main"]

USER_CACHE = "GCPLIB_USER_CACHE_HOME"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main(argv: list[str] | None = None) -> int:
    """Run one job and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m gcplib.lab.study.jobs", description=__doc__.splitlines()[0])
    parser.add_argument("job", help="data, sweeps/NAME or notebooks/NAME")
    parser.add_argument("--threads", default="1", help="numeric threads: two jobs that both use every core are slow")
    arguments = parser.parse_args(argv)
    end_with_study()
    if (cache := os.environ.pop(USER_CACHE, None)) is not None:  # Snakemake was given another
        os.environ.pop("XDG_CACHE_HOME", None)
        os.environ |= {"XDG_CACHE_HOME": cache} if cache else {}
    plan = read_plan(Path.cwd())
    job = plan.jobs[arguments.job]
    log, loop, state = (plan.file(job, suffix) for suffix in (".log", ".loop", ".state"))
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:  # also the output of what this process starts
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Loops say how far they are in a file: thousands of redrawn bars do not belong into a log.
    loop.unlink(missing_ok=True)
    os.environ |= dict.fromkeys(THREADS, arguments.threads) | {"GCPLIB_PROGRESS": "0", "GCPLIB_STATUS": str(loop)}
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
            _run_notebook(plan, job, tell)
    except Exception:
        traceback.print_exc()
        tell(state="failed")
        return 1
    plan.finish(job)
    tell(state="done")
    return 0


def _run_notebook(plan: Plan, job: Job, tell: Callable[..., None]) -> None:
    from gcplib.lab.study.execute import execute

    os.environ["GCPLIB_STUDY"] = "1"
    os.environ.pop("MPLBACKEND", None)  # with a backend set, the kernel would show no figures
    output = plan.file(job, ".ipynb")
    # The lock waits for a job of a killed study that is still on its way out.
    with locked(output):
        execute(Path(job.source), plan.profile, job.values, output, timeout=job.timeout, tell=tell)


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
    sys.exit(main())
