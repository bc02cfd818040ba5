"""What was measured: as a file with its provenance, and as tables on the screen."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gcplib.lab.bench.methods import METHODS
from gcplib.lab.files import runs_dir, write_atomic
from gcplib.lab.machine import describe_machine

__all__ = ["Report", "number", "report_path", "scientific", "table"]


def _peer_versions() -> dict[str, str]:
    versions = {}
    for package in sorted({method.package for method in METHODS if method.package}):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True)
class Report:
    """The rows of ``measure`` with what they were measured on; ``skipped`` holds the reasons by method."""

    device: str
    threads: int
    rounds: int
    rows: list[dict]
    skipped: dict[str, str] = field(default_factory=dict)
    machine: dict = field(default_factory=describe_machine)
    peers: dict[str, str] = field(default_factory=_peer_versions)
    date: str = field(default_factory=lambda: datetime.datetime.now().astimezone().isoformat(timespec="seconds"))

    @property
    def processor(self) -> str:
        """What ran the methods, in words."""
        return self.machine["gpu"] if self.device == "cuda" else f"{self.machine['cpu']}, {self.threads} threads"

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, allow_nan=False)
        with write_atomic(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Return what ``write`` wrote.

        Raises:
            FileNotFoundError: nothing was measured yet.
        """
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def report_path(name: str) -> Path:
    """Return where the last benchmark of this name (a device, or a device and ``_sweep``) is."""
    return runs_dir() / "bench" / f"{name}.json"


def number(value: float | None) -> str:
    """Return three digits, and all of those before the point.

    >>> [number(value) for value in (0.01234, 12.34, 12345.6, None)]
    ['0.0123', '12.3', '12,346', '-']
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def scientific(error: float | None) -> str:
    """Return an error with its power of ten; None says that the value was not finite."""
    return "not finite" if error is None else f"{error:.1e}"


def table(rows: Sequence[dict]) -> str:
    """Return the rows of one size as text for the screen; the first row is what the others are compared with."""
    first = rows[0]
    shape = f"batch {first['batch']}, {first['channels']} channels, {first['positions']} positions"
    heads = "forward", "backward", "total", "quartiles", "ratio", "saved MB", "peak MB", "error", "of dl/dX"
    widths = 10, 10, 10, 18, 8, 10, 10, 11, 11
    lines = [shape, _line("milliseconds, float32", heads, widths)]
    for row in rows:
        total = row["total_ms"]
        cells = [number(row[key]["median"]) for key in ("forward_ms", "backward_ms", "total_ms")]
        cells.append(f"[{number(total['low'])}, {number(total['high'])}]" if row["rounds"] > 1 else "once")
        cells += [number(total["median"] / first["total_ms"]["median"]), number(row["saved_mb"])]
        cells += [number(row["peak_mb"]), scientific(row["error"]), scientific(row["gradient_error"])]
        line = _line(row["method"], cells, widths)
        if row["kind"] not in ("covariance", "exact root"):
            distances = (scientific(row[key]) for key in ("root_distance", "root_gradient_distance"))
            line += "  from the root: " + ", ".join(distances)
        if row["ridge"]:
            line += f"  ridge {row['ridge']:g}"
        lines.append(line)
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"  {name:32s}" + "".join(f"{cell:>{width}s}" for cell, width in zip(cells, widths, strict=True))
