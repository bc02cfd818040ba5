"""What a result was measured on: processor, versions and commit. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from gcplib import __version__
from gcplib.lab.files import project_root

__all__ = ["allotted_cores", "cpu_count", "describe_machine", "machine_line"]

PACKAGES = ("torch", "timm", "numpy", "scikit-learn", "pandas", "snakemake", "papermill")


def cpu_count() -> int:
    """Return the number of cores this process may use (a container or ``taskset`` may allow fewer than exist)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allotted_cores() -> int:
    """Return how many cores the numeric work of this process is meant to use: ``OMP_NUM_THREADS``, or all.

    A study gives its jobs their share by this variable. Threads that do not have a core each wait for one another at
    every step.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(given), cpu_count()) if given.isdigit() and int(given) else cpu_count()


@functools.cache
def describe_machine() -> dict:
    """Return processor, cores, GPU (the first that this process may use), versions and git commit."""
    return {
        "cpu": _cpu_model(),
        "cores": cpu_count(),
        "gpu": _gpu(),
        "system": platform.platform(terse=True),
        "versions": {"python": platform.python_version(), "gcplib": __version__} | installed_versions(PACKAGES),
        "commit": _commit(),
    }


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine_line(machine: dict) -> str:
    """Return the machine in one line of text."""
    parts = [machine["cpu"], f"{machine['cores']} cores", machine.get("gpu"), machine["system"]]
    return " · ".join(part for part in parts if part)


def _gpu() -> str | None:
    """The name of the GPU that torch would take; without torch, which takes seconds to import, the driver says it."""
    if torch := sys.modules.get("torch"):
        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first in ("", "-1"):
        return None
    return _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", f"--id={first}"])


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(errors="replace") if cpuinfo.is_file() else ""
    named = re.search(r"^model name\s*:\s*(.+)", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout, with a plus sign when tracked files differ from it; None outside a checkout."""
    root = project_root()
    # No tag is to take the commit's place.
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--exclude=*", "--abbrev=12"]
    return _output([*command, "--dirty=+"]) if (root / ".git").exists() else None


def _output(command: list[str]) -> str | None:
    """What a command prints; None if there is no such command, it fails or says nothing."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
