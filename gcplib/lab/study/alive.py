"""One study at a time, and no orphans: what was started by a study ends with it, even if it is killed outright.

The runner holds a file lock, and one end of a pipe whose other end is the standard input of all that it starts. The
operating system releases both whatever way the runner ends. A process id would not do: ids are reused.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

__all__ = ["PIPE", "StudyRunning", "end_with_study", "kill_tree", "only_study"]

PIPE = "GCPLIB_STUDY_PIPE"


class StudyRunning(RuntimeError):
    """Another study of the same profile is running."""


@contextlib.contextmanager
def only_study(folder: Path) -> Iterator[None]:
    """Hold the study of a folder; raises StudyRunning if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".study.pid"
    try:
        with FileLock(folder / ".study.lock", blocking=False):
            owner.write_text(str(os.getpid()))
            yield
    except Timeout:
        who = owner.read_text() if owner.exists() else "unknown"
        raise StudyRunning(f"a study of this profile is already running (process {who}, {folder})") from None


def end_with_study() -> None:
    """Watch the study that started this process, in the background; without one (plain Snakemake) do nothing."""
    if os.environ.get(PIPE):
        threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    os.read(0, 1)  # returns when nobody holds the other end
    kill_tree(os.getpid(), itself=False)
    # Snakemake and its other jobs are in this process's group: the runner made one for them.
    os.killpg(os.getpgrp(), signal.SIGKILL)


def kill_tree(pid: int, itself: bool = True) -> None:
    """Kill what a process has started, and the process. Files are written atomically, so none is left half-written."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for member in [*process.children(recursive=True), *([process] if itself else [])]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
