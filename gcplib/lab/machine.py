"""What a result was measured on: processor, versions and commit. Imports nothing heavy."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

from gcplib.lab.files import project_root

__all__ = ["cpu_count", "describe_machine", "machine_line"]

PACKAGES = ("gcplib", "torch", "timm", "numpy", "scikit-learn", "pandas", "snakemake", "papermill")


def cpu_count() -> int:
    """Return the number of cores this process may use (a container or ``taskset`` may allow fewer than exist)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def describe_machine() -> dict:
    """Return processor, cores, GPU (the first that this process may use), versions and git commit."""
    return {
        "cpu": _cpu_model(),
        "cores": cpu_count(),
        "gpu": _gpu(),
        "system": platform.platform(terse=True),
        "versions": {"python": platform.python_version()} | {name: v for name in PACKAGES if (v := _version(name))},
        "commit": _commit(),
    }


def machine_line(machine: dict) -> str:
    """Return the machine in one line of text."""
    parts = [machine["cpu"], f"{machine['cores']} cores", machine.get("gpu"), machine["system"]]
    return " · ".join(part for part in parts if part)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    """The name of the GPU that torch would take; without torch, which takes seconds to import, the driver says it."""
    if torch := sys.modules.get("torch"):
        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first in ("", "-1"):
        return None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", f"--id={first}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):  # no driver, or no such device
        return None


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout, with a plus sign when tracked files differ from it; None outside a checkout."""
    root = project_root()
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
