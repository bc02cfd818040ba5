"""Run a whole study: check everything, let Snakemake run what is due, then write the report."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gcplib.lab.files import cache_dir, runs_dir
from gcplib.lab.machine import cpu_count
from gcplib.lab.progress import counted
from gcplib.lab.study.alive import PIPE, kill_tree, only_study
from gcplib.lab.study.devices import VISIBLE, visible_devices
from gcplib.lab.study.jobs import USER_CACHE
from gcplib.lab.study.notebooks import notebooks_dir
from gcplib.lab.study.plan import Plan, write_plan
from gcplib.lab.study.profiles import make_plan
from gcplib.lab.study.watch import Watch
from gcplib.lab.validation import unknown

__all__ = ["run_study"]

FREE_BYTES = 1 << 30


def run_study(
    profile: str | Path,
    write_report: Callable[[Plan], Path],
    cores: int | None = None,
    only: Sequence[str] | None = None,
    gpus: int | None = None,
    data: tuple[str, str] | None = None,
    changes: Sequence[str] = (),
) -> int:
    """Train the runs and run the notebooks of a profile that are not up to date, and write the report.

    Args:
        profile: name of a profile, or path of one.
        write_report: makes the pages of what has run, and returns the first; should it fail, the study is kept.
        cores: cores to use, all by default.
        only: names of the notebooks to run, or how they begin, all of the profile by default; what they read is trained
            first.
        gpus: GPUs to use, all by default.
        data, changes: see ``make_plan``.

    Returns:
        0 if all is well, 1 if anything failed, 130 if it was interrupted. A run that diverged is a result.

    Raises:
        ValueError: profile, parameters, GPUs or free space are not in order; nothing has run.
        StudyRunning: a study of the profile is running.
    """
    plan = make_plan(profile, data, changes)
    wanted = [_notebook(plan, name.removesuffix(".ipynb")) for name in only or ()]
    if not (notebooks_dir() / "Snakefile").is_file():
        raise FileNotFoundError(f"no Snakefile in {notebooks_dir()}; run from the checkout, or set GCPLIB_NOTEBOOKS")
    for folder in (runs_dir(), cache_dir()):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if (free := shutil.disk_usage(existing).free) < FREE_BYTES:
            least = "a study needs 1 GB (free some, or set GCPLIB_RUNS and GCPLIB_CACHE)"
            raise ValueError(f"only {free / 1e9:.2f} GB are free for {folder}; {least}")
    devices = _devices(plan, gpus)
    # Like Ctrl-C; not by way of SIGINT, which a script's background jobs ignore.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with only_study(plan.folder):
            write_plan(plan)
            # The data are prepared if something needs them that is due.
            selected = wanted or [name for name in plan.jobs if name != "data"]
            due, cores = plan.due(selected), cores or cpu_count()
            if not due and _is_current(plan):
                print(f"Nothing to do: study {plan.profile!r} is up to date.\nReport: {plan.report}", flush=True)
                return 0
            watch = Watch(plan, due, cores)
            code = _snakemake(plan, due, cores, devices, watch) if due else 0
            failed = watch.summary(selected, code)
            try:
                print(f"Report: {write_report(plan)}", flush=True)
            except Exception as error:  # whatever it is, hours of results are not to seem lost
                failed = True
                print(f"The report is not whole: {error}\nAll results are kept in {plan.folder}.", flush=True)
            return 1 if failed or code else 0
    except KeyboardInterrupt:
        print(f"\nInterrupted. What is finished is kept: the same command continues ({plan.folder}).", flush=True)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _notebook(plan: Plan, name: str) -> str:
    """Return the key of the notebook of a plan that has this name, or the only one whose name begins so."""
    known = [job.label for job in plan.of("notebooks")]
    fitting = [name] if name in known else [label for label in known if label.startswith(name)]
    if len(fitting) != 1:
        raise ValueError(unknown(f"notebook of profile {plan.profile!r}", name, known))
    return f"notebooks/{fitting[0]}"


def _devices(plan: Plan, gpus: int | None) -> list[str] | None:
    """Return the GPUs that the jobs may use, or None if nobody asked for any: they see what there is."""
    wanted = sum(job.gpus for job in plan.jobs.values())
    devices = visible_devices(gpus) if wanted or gpus is not None else None
    if wanted and not devices:
        print(f"No GPU to use: {counted(wanted, 'job')} of training runs will use the CPU.", flush=True)
    return devices


def _snakemake(plan: Plan, due: list[str], cores: int, devices: list[str] | None, watch: Watch) -> int:
    """Run Snakemake, showing how far its jobs are; what it says itself goes to its log."""
    targets = [str(plan.stamp(plan.jobs[name]).relative_to(plan.folder)) for name in due]
    command = [sys.executable, "-m", "snakemake", *targets, "--snakefile", str(notebooks_dir() / "Snakefile")]
    command += ["--directory", str(plan.folder), "--cores", str(cores)]
    command += ["--resources", f"gpu={len(devices)}"] if devices else []
    if first := [target for target, name in zip(targets, due, strict=True) if plan.jobs[name].first]:
        command += ["--prioritize", *first]
    # A file is there or not, and nothing else counts. The lock of only_study replaces Snakemake's own, which a killed
    # run would leave behind.
    command += ["--rerun-triggers", "params", "--ignore-incomplete", "--nolock", "--keep-going", "--nocolor", "--quiet"]
    paths = (str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH"))
    environment = os.environ | {PIPE: "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # Snakemake would make a folder in the user's cache; its jobs get the user's setting back.
    environment[USER_CACHE] = os.environ.get("XDG_CACHE_HOME", "")
    environment["XDG_CACHE_HOME"] = str(plan.folder / ".snakemake" / "cache")
    environment |= {} if devices is None else {VISIBLE: ",".join(devices)}
    log = plan.folder / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        # A group of its own: Ctrl-C reaches the runner alone, which then ends the group.
        options = {"stdin": subprocess.PIPE, "stdout": file, "stderr": subprocess.STDOUT, "start_new_session": True}
        process = subprocess.Popen(command, env=environment, **options)
        try:
            while process.poll() is None:
                time.sleep(0.3)
                watch.look()
            return process.returncode
        finally:
            kill_tree(process.pid)
            process.stdin.close()


def _is_current(plan: Plan) -> bool:
    # The time of a folder changes when a file in it is added, replaced or removed.
    parts = ("plan.json", "notebooks", "claims", "sweeps", "done")
    sources = [path for part in parts if (path := plan.folder / part).exists()]
    return plan.report.is_file() and all(path.stat().st_mtime <= plan.report.stat().st_mtime for path in sources)
