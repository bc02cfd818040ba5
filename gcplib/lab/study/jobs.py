"""What Snakemake calls: one job of a study in a process of its own (``python -m gcplib.lab.study.jobs``).

The job's output goes to its log; what a person watches goes to the original standard output as one event a line.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

from gcplib.lab.files import locked, write_atomic
from gcplib.lab.study.alive import end_with_study
from gcplib.lab.study.devices import own_device
from gcplib.lab.study.notebooks import NotebookFailed, execute
from gcplib.lab.study.profiles import Plan, load_plan
from gcplib.lab.study.progress import announce, status_file
from gcplib.lab.study.sweep_job import train_runs
from gcplib.lab.study.sweeps import FOLDER

__all__ = ["USER_CACHE", "main"]

USER_CACHE = "GCPLIB_USER_CACHE_HOME"


def main(argv: list[str] | None = None) -> int:
    """Run one job and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m gcplib.lab.study.jobs", description=__doc__.splitlines()[0])
    parser.add_argument("job", help="'data', the name of a notebook, or sweeps/NAME for training runs")
    parser.add_argument("--profile", required=True)
    arguments = parser.parse_args(argv)
    if (cache := os.environ.pop(USER_CACHE, None)) is not None:
        os.environ.pop("XDG_CACHE_HOME", None)
        os.environ |= {"XDG_CACHE_HOME": cache} if cache else {}
    name = arguments.job
    is_sweep = name.startswith(f"{FOLDER}/")
    plan = load_plan(arguments.profile, runs=is_sweep)
    log = plan.folder / "logs" / f"{name}.log"
    screen = _redirect(log)
    end_with_study(plan.folder)
    started = time.monotonic()
    announce(screen, "started", name)
    run = _train_runs if is_sweep else _prepare_data if name == "data" else _run_notebook
    try:
        run(plan, name)
    except Exception as error:
        if not isinstance(error, NotebookFailed | subprocess.CalledProcessError):
            traceback.print_exc()
        print(error, flush=True)
        announce(screen, "failed", name, time.monotonic() - started)
        return 1
    announce(screen, "done", name, time.monotonic() - started)
    return 0


def _redirect(log: Path) -> int:
    """Send this process's output, and that of the kernels it starts, to the log; return the original output."""
    log.parent.mkdir(parents=True, exist_ok=True)
    screen = os.dup(1)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    return screen


def _prepare_data(plan: Plan, name: str) -> None:
    options = [text for name, value in plan.data.items() for text in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "gcplib", "data", *options, "--features"], check=True)
    with write_atomic(plan.folder / f"{name}.json") as path:
        path.write_text(json.dumps({"data": dict(plan.data), "key": plan.data_key}) + "\n", encoding="utf-8")


def _run_notebook(plan: Plan, name: str) -> None:
    job = plan.jobs[name]
    os.environ["GCPLIB_STUDY"] = "1"
    os.environ.pop("MPLBACKEND", None)  # with a backend set, the kernel would show no figures
    _report_status(plan, name)
    output = plan.folder / "notebooks" / f"{name}.ipynb"
    # The lock waits for a job of a killed study that is still on its way out.
    with locked(output):
        extra = {"key": job.key, "threads": os.environ.get("OMP_NUM_THREADS")}
        execute(job.source, plan.profile.name, job.parameters, output, timeout=job.timeout, extra=extra)


def _train_runs(plan: Plan, name: str) -> None:
    _report_status(plan, name)
    job = plan.sweeps[name]
    with own_device(job.gpus) as device:
        print(f"{len(job.runs)} runs on {f'GPU {device}' if device else 'the CPU'}", flush=True)
        train_runs(job, plan.folder)


def _report_status(plan: Plan, name: str) -> None:
    """Have loops say how far they are in a file: thousands of redrawn bars do not belong into a log."""
    os.environ["GCPLIB_PROGRESS"] = "0"
    status = status_file(plan, name)
    status.unlink(missing_ok=True)  # of a study that was killed
    os.environ["GCPLIB_STATUS"] = str(status)


if __name__ == "__main__":
    sys.exit(main())
