"""The benchmark that the README shows: kept with its provenance, in few digits, and turned into a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from gcplib.lab.bench.measure import SIZES
from gcplib.lab.bench.methods import METHODS
from gcplib.lab.bench.report import Report, number, report_path, scientific
from gcplib.lab.files import around_block, project_root, renew_block

__all__ = ["BEGIN", "DEVICES", "END", "keep", "kept_reports", "readme_block"]

BEGIN, END = "<!-- benchmark: written by python -m gcplib.lab.bench --keep -->", "<!-- end of benchmark -->"
DEVICES = ("cpu", "cuda")
DIGITS = 4

OURS, FLOOR = "exact root, auto route", "covariance, decomposed too"
PRODUCTS, EIGENVALUES = "Newton-Schulz, products", "Newton-Schulz, eigenvalues"
HEADS = (
    "batch × channels × positions",
    "covariance: gcplib, plain",
    "covariance, decomposed too",
    "exact root: gcplib",
    "root over covariance: gcplib, plain",
    "fastest exact peer",
    "Newton-Schulz: gcplib",
    "Newton-Schulz: pytorchcv",
    "error of the root's dl/dX: gcplib, most exact peer",
)


def keep(device: str) -> list[Path]:
    """Copy the last benchmark on a device to ``data/evidence``, rounded, and renew the README's block.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: nothing was measured on this device yet.
        ValueError: only some sizes or methods were measured, or the README lacks the block's two markers.
    """
    path = report_path(device)
    if not path.is_file():
        raise FileNotFoundError(
            f"nothing was measured on {device} yet; run python -m gcplib.lab.bench --device {device}"
        )
    report = Report.read(path)
    wanted = {(size, method.name) for size in SIZES for method in METHODS if method.name not in report.skipped}
    if missing := wanted - {(_size(row), row["method"]) for row in report.rows}:
        size, method = min(missing)
        raise ValueError(
            f"{path.name} lacks {len(missing)} of {len(wanted)} rows, for example {method!r} at {size}; "
            f"run python -m gcplib.lab.bench --device {device} with all sizes and methods"
        )
    around_block(BEGIN, END)  # what cannot be shown is not kept
    kept = _kept_path(device)
    dataclasses.replace(report, rows=_rounded(report.rows)).write(kept)
    return [kept, renew_block(BEGIN, END, readme_block(kept_reports()))]


def _kept_path(device: str) -> Path:
    return project_root() / "data" / "evidence" / f"bench_{device}.json"


def kept_reports() -> list[Report]:
    """Return the benchmarks kept so far, one a device."""
    return [Report.read(path) for device in DEVICES if (path := _kept_path(device)).is_file()]


def readme_block(reports: Iterable[Report]) -> str:
    """Return Markdown: for each device a table with a row a size, and what it was measured on."""
    return "\n\n".join(_device_block(report) for report in reports) or "Nothing is kept yet."


def _device_block(report: Report) -> str:
    sizes: dict[tuple, dict[str, dict]] = {}
    for row in report.rows:
        sizes.setdefault(_size(row), {})[row["method"]] = row
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    lines += [f"| {' × '.join(map(str, size))} | {' | '.join(_cells(rows))} |" for size, rows in sizes.items()]
    machine = report.machine
    packages = {"torch": machine["versions"]["torch"]} | report.peers
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    lines += [
        "",
        f"Milliseconds, forward and backward, median of {report.rounds} rounds; * timed once. "
        f"{report.processor}; {versions}; commit `{machine['commit']}`, {report.date[:10]}.",
    ]
    return "\n".join(lines)


def _cells(rows: Mapping[str, dict]) -> list[str]:
    """Return the cells of one size; a dash where a peer is missing."""
    ours, bare = rows[OURS], [rows["covariance"], rows["covariance, plain autograd"]]
    peers = [row for row in rows.values() if row["kind"] == ours["kind"] and not row["ours"] and _finite(row)]
    fastest = min(peers, key=_total, default=None)
    finest = min(peers, key=lambda row: row["gradient_error"], default=None)
    best = min((rows[PRODUCTS], rows[EIGENVALUES]), key=_total)
    theirs = rows.get("Newton-Schulz, pytorchcv")
    return [
        ", ".join(map(_time, bare)),
        _time(rows[FLOOR]),
        _time(ours),
        ", ".join(_times(ours, row) for row in bare),
        f"{_name(fastest)}: {_time(fastest)}, {_times(fastest, ours)}" if fastest else "–",
        f"{_name(best)}: {_time(best)}",
        f"{_time(theirs)}, {_times(theirs, best)}" if theirs else "–",
        scientific(ours["gradient_error"])
        + (f", {_name(finest)}: {scientific(finest['gradient_error'])}" if finest else ""),
    ]


def _size(row: dict) -> tuple[int, int, int]:
    return row["batch"], row["channels"], row["positions"]


def _finite(row: dict) -> bool:
    return row["error"] is not None and row["gradient_error"] is not None


def _total(row: dict) -> float:
    return row["total_ms"]["median"]


def _time(row: dict) -> str:
    return number(_total(row)) + "*" * (row["rounds"] == 1)


def _times(row: dict, other: dict) -> str:
    return f"{_total(row) / _total(other):.1f} ×"


def _name(row: dict) -> str:
    return row["method"].partition(", ")[2]


def _rounded(value: object) -> object:
    """Return a JSON-like value with its floats at ``DIGITS`` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
