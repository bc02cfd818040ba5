"""Run a whole study: check everything, let Snakemake run what is not up to date, then write the report."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gcplib.lab.files import cache_dir, runs_dir
from gcplib.lab.machine import cpu_count
from gcplib.lab.study.alive import StudyRunning, kill_tree, only_study
from gcplib.lab.study.devices import VISIBLE, usable_devices
from gcplib.lab.study.jobs import USER_CACHE
from gcplib.lab.study.notebooks import check_kernel, discover, notebooks_dir
from gcplib.lab.study.parameters import suggest
from gcplib.lab.study.profiles import Plan, load_plan
from gcplib.lab.study.progress import Progress
from gcplib.lab.study.report import build_report, report_path
from gcplib.lab.study.status import data_is_current, forget_failed_runs, study_status, sweep_status
from gcplib.lab.study.summary import counted, print_summary
from gcplib.lab.study.sweeps import FOLDER

__all__ = ["run_study"]

HEARTBEAT = 20  # seconds without news after which the running jobs are listed
FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class _Means:
    """What a study may use: cores, and GPUs (None where nobody asked for any: the jobs see what there is)."""

    cores: int
    devices: list[str] | None


def run_study(
    profile: str | Path, cores: int | None = None, only: Sequence[str] | None = None, gpus: int | None = None
) -> int:
    """Train the runs and run the notebooks of a profile that are not up to date, and write the report.

    Args:
        profile: name of a profile, or path of one.
        cores: cores to use, all by default.
        only: names of the notebooks to run, all of the profile by default; what they read is trained first.
        gpus: GPUs to use, all by default.

    Returns:
        0 if all is well, 1 if anything failed, 130 if it was interrupted. A run that diverged is a result.

    Raises:
        ValueError: profile, parameters, kernel, GPUs or free space are not in order; nothing has run.
        FileNotFoundError: there is no such profile, or no Snakefile.
    """
    plan = load_plan(profile)
    selected = _selected(plan, only)
    if not (notebooks_dir() / "Snakefile").is_file():
        raise FileNotFoundError(f"no Snakefile in {notebooks_dir()}; run from the checkout, or set GCPLIB_NOTEBOOKS")
    if plan.jobs:
        check_kernel()
    _check_space()
    means = _Means(cores or cpu_count(), _devices(plan, gpus))
    try:
        with only_study(plan.folder) as environment, _terminable():
            return _run(plan, selected, only is None, means, environment)
    except StudyRunning as error:
        raise ValueError(str(error)) from None
    except KeyboardInterrupt:
        print(f"\nInterrupted. What is finished is kept: the same command continues ({plan.folder}).", flush=True)
        return 130


def _selected(plan: Plan, only: Sequence[str] | None) -> list[str]:
    names = [name.removesuffix(".ipynb") for name in only or plan.jobs]
    for name in names:
        if name not in plan.jobs:
            raise ValueError(
                f"notebook {name!r} is not in profile {plan.profile.name!r}; {suggest(name, list(plan.jobs), 'it has')}"
            )
    return list(dict.fromkeys(names))


def _devices(plan: Plan, gpus: int | None) -> list[str] | None:
    """Return the GPUs that the jobs may use, or None if nobody asked for any."""
    wanted = sum(job.gpus for job in plan.sweeps.values())
    if not wanted and gpus is None:
        return None
    devices = usable_devices(gpus)
    if wanted and not devices:
        print(f"No GPU to use: {counted(wanted, 'job')} of training runs will use the CPU.", flush=True)
    return devices


def _check_space() -> None:
    for folder in (runs_dir(), cache_dir()):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if (free := shutil.disk_usage(existing).free) < FREE_BYTES:
            raise ValueError(
                f"only {free / 1e9:.2f} GB are free for {folder}; a study needs at least 1 GB "
                "(free some, or set GCPLIB_RUNS and GCPLIB_CACHE)"
            )


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        # Not by way of SIGINT: a script's shell starts what it puts in the background with SIGINT ignored.
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(plan: Plan, selected: list[str], everything: bool, means: _Means, environment: dict[str, str]) -> int:
    _tidy(plan)
    before = study_status(plan)
    expected = [name for name in selected if before[name].state != "ok"]
    # For some notebooks only, train what those are going to read that have to run.
    if expected or everything:
        expected = [name for name, status in sweep_status(plan).items() if status.state != "ok"] + expected
    if any((plan.jobs.get(n) or plan.sweeps[n]).needs_data for n in expected) and not data_is_current(plan):
        expected.insert(0, "data")
    usual = {n: s.facts["usual_seconds"] for n, s in before.items() if s.facts.get("usual_seconds")}
    progress = Progress(plan, means.cores, usual, expected=tuple(expected))
    if expected:
        print(
            f"Study {plan.profile.name!r}: {counted(len(expected), 'job')} to run on {counted(means.cores, 'core')}; "
            f"logs in {plan.folder / 'logs'}",
            flush=True,
        )
    # With nothing out of date there is nothing to ask Snakemake, which takes seconds to start.
    code = _snakemake(plan, expected, means, environment, progress) if expected else 0
    after, sweeps = study_status(plan), sweep_status(plan)
    failed = [name for name in selected if after[name].state != "ok"]
    failed += [name for name in expected if name in sweeps and sweeps[name].state != "ok"]
    failed += [name for name, sweep in sweeps.items() if sweep.outcome("failed")]
    if not progress.started and code == 0 and _report_is_current(plan):
        print(f"Nothing to do: study {plan.profile.name!r} is up to date.\nReport: {report_path(plan)}", flush=True)
        return 0
    report = build_report(plan.profile.path)
    print_summary(plan, selected, progress, code)
    print(f"Report: {report}", flush=True)
    return 1 if failed or code else 0


def _snakemake(plan: Plan, expected: list[str], means: _Means, environment: dict[str, str], progress: Progress) -> int:
    """Run Snakemake, showing the events of its jobs; everything else that it says goes to its log."""
    outputs = [f"notebooks/{name}.ipynb" if name in plan.jobs else f"{name}.json" for name in expected]
    # What is out of date was decided from the files beside the outputs; Snakemake's own memory may have been removed.
    command = [sys.executable, "-m", "snakemake", *outputs, "--forcerun", *outputs]
    if first := [f"notebooks/{name}.ipynb" for name in expected if name in plan.jobs and plan.jobs[name].first]:
        command += ["--prioritize", *first]
    command += ["--snakefile", str(notebooks_dir() / "Snakefile"), "--directory", str(plan.folder)]
    command += ["--cores", str(means.cores)]
    if means.devices:
        command += ["--resources", f"gpu={len(means.devices)}"]
    command += ["--config", f"profile={plan.profile.path}", "--rerun-triggers", "params", "--rerun-incomplete"]
    # The lock of only_study replaces Snakemake's own, which a killed run would leave behind.
    command += ["--nolock", "--keep-going", "--nocolor", "--quiet", "progress", "rules", "host"]
    package = Path(__file__).resolve().parents[3]
    path = os.pathsep.join(part for part in (str(package), os.environ.get("PYTHONPATH")) if part)
    # Snakemake would make a folder in the user's cache; its jobs get the user's setting back.
    cache = {
        "XDG_CACHE_HOME": str(plan.folder / ".snakemake" / "cache"),
        USER_CACHE: os.environ.get("XDG_CACHE_HOME", ""),
    }
    devices = {} if means.devices is None else {VISIBLE: ",".join(means.devices)}
    log = plan.folder / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command,
        env=os.environ | environment | cache | devices | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # a group of its own: Ctrl-C reaches the runner alone, which then ends the group
    )
    try:
        with open(log, "w", encoding="utf-8") as file:
            for line in _lines(process, progress):
                if not progress.handle(line):
                    file.write(line)
                    file.flush()
        return process.wait()
    finally:
        if process.poll() is None:
            kill_tree(process.pid)


def _lines(process: subprocess.Popen, progress: Progress) -> Iterator[str]:
    """Yield the lines of a process; between them, tell how far its jobs are."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    news = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            if time.monotonic() - news >= HEARTBEAT:
                progress.heartbeat()
                news = time.monotonic()
            continue
        if line is None:
            return
        news = time.monotonic()
        yield line


def _tidy(plan: Plan) -> None:
    """Remove what a killed run left half-written, runs that failed, and the claims of notebooks that are no more."""
    forget_failed_runs(plan)
    for path in (plan.folder / "notebooks").glob(".*.ipynb"):
        path.unlink(missing_ok=True)
    existing = discover()
    for path in (plan.folder / "claims").glob("C*-*.json"):
        if path.stem.split("-", 1)[1] not in existing:
            path.unlink(missing_ok=True)


def _report_is_current(plan: Plan) -> bool:
    report = report_path(plan)
    if not report.is_file():
        return False
    made = report.stat().st_mtime
    # The time of a folder changes when a file in it is added, replaced or removed.
    sources = [plan.folder / "notebooks", plan.folder / "claims", plan.folder / FOLDER, plan.profile.path]
    return all(path.stat().st_mtime <= made for path in sources if path.exists())
