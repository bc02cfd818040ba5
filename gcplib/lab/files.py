"""Where things live on disk, and how they are written so that a half-written file is never read as whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

__all__ = ["cache_dir", "digest", "locked", "project_root", "read_json", "runs_dir"]
__all__ += ["is_verified", "mark_verified", "write_atomic", "write_json", "write_text"]


def project_root() -> Path:
    """Return the checkout that holds this package, or the working directory for an installed wheel.

    The environment variable ``GCPLIB_ROOT`` overrides both.
    """
    if root := os.environ.get("GCPLIB_ROOT"):
        return Path(root).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def cache_dir() -> Path:
    """Return the folder of rendered images and cached features (``data/cache``; override: ``GCPLIB_CACHE``)."""
    return Path(os.environ.get("GCPLIB_CACHE") or project_root() / "data" / "cache").expanduser().resolve()


def runs_dir() -> Path:
    """Return the folder of training runs and reports (``runs``; override: ``GCPLIB_RUNS``)."""
    return Path(os.environ.get("GCPLIB_RUNS") or project_root() / "runs").expanduser().resolve()


def digest(value: Any, length: int = 12) -> str:
    """Return a short name for a JSON-like value: the first digits of its SHA-256.

    Keys are sorted, so equal settings have equal names on every machine.

    >>> digest({"b": 1, "a": [1, 2]}) == digest({"a": [1, 2], "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


_verified: set[tuple] = set()


def mark_verified(path: Path) -> None:
    """Remember that the file's checksum is right, as long as nothing writes to it."""
    _verified.add(_state(path))


def is_verified(path: Path) -> bool:
    """Say whether this process has verified the file as it is now.

    A checksum reads every byte; short runs on a large file would spend a tenth of their time on it again and again.
    """
    return _state(path) in _verified


def _state(path: Path) -> tuple:
    facts = path.stat()
    return path, facts.st_ino, facts.st_size, facts.st_mtime_ns


@contextlib.contextmanager
def write_atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move it there only if the block succeeds.

    A full disk, an exception or a killed process leaves the old file, or none, never a part of the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        # mkstemp and safetensors make files private; give this one the permissions of any other new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text as ``write_atomic`` does, and return the path."""
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file holds; nothing if it is not there, or only half."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_json(path: Path, values: Any) -> Path:
    """Write values as JSON, whole or not at all, and return the path."""
    return write_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold an inter-process lock named after ``path``, so that two notebooks never make the same file twice."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / f".{path.name}.lock"):
        yield
