"""One study at a time, and no orphans: what was started by a study ends with it, even if it is killed outright.

The runner holds a file lock, which the operating system releases whatever way the runner ends, and writes a token.
Each job looks once a second whether the lock is free, or the token is another study's; then it ends itself and its
relatives. A process id would not do: ids are reused, and a dead parent can linger.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

__all__ = ["StudyRunning", "end_with_study", "kill_tree", "only_study"]

TOKEN = "GCPLIB_STUDY_TOKEN"


class StudyRunning(RuntimeError):
    """Another study of the same profile is running."""


@contextlib.contextmanager
def only_study(folder: Path, patience: float = 3.0) -> Iterator[dict[str, str]]:
    """Hold the study of a folder; yield the environment variables that its children need.

    Raises:
        StudyRunning: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # A dying job of a killed study may hold the lock for an instant while it looks.
        with FileLock(folder / ".study.lock", timeout=patience):
            token = f"{os.getpid()}-{uuid.uuid4().hex}"
            (folder / ".study.token").write_text(token)
            yield {TOKEN: token}
    except Timeout:
        pid = _token(folder).split("-")[0]
        raise StudyRunning(f"a study of this profile is already running (process {pid}, {folder})") from None


def end_with_study(folder: Path) -> None:
    """Watch the study that started this process, in the background; without one (plain Snakemake) do nothing."""
    if token := os.environ.get(TOKEN):
        threading.Thread(target=_watch, args=(folder, token), daemon=True).start()


def _watch(folder: Path, token: str) -> None:
    while _token(folder) == token and not _free(folder):
        time.sleep(1)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    # Snakemake and its other jobs are in this process's group: the runner made one for them.
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _token(folder: Path) -> str:
    try:
        return (folder / ".study.token").read_text()
    except OSError:
        return ""


def _free(folder: Path) -> bool:
    lock = FileLock(folder / ".study.lock")
    try:
        with lock.acquire(blocking=False):
            return True
    except Timeout:
        return False


def kill_tree(pid: int) -> None:
    """Kill a process and everything below it. Files are written atomically, so nothing is left half-written."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)
