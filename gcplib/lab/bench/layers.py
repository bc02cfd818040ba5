"""The benchmark of layers: as a file with its provenance, on the screen, and as the page that is kept."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gcplib.lab.bench.measure import SIZES
from gcplib.lab.bench.methods import METHODS
from gcplib.lab.files import project_root, runs_dir, write_text
from gcplib.lab.machine import describe_machine, installed_versions
from gcplib.lab.markdown import page, table

PEERS = sorted({method.package for method in METHODS if method.package})


@dataclass(frozen=True)
class Report:
    """The rows of ``measure`` with what they were measured on; ``skipped`` holds the reasons by method."""

    device: str
    threads: int
    rounds: int
    rows: list[dict]
    skipped: dict[str, str] = field(default_factory=dict)
    machine: dict = field(default_factory=describe_machine)
    peers: dict[str, str] = field(default_factory=lambda: installed_versions(PEERS))
    date: str = field(default_factory=lambda: datetime.datetime.now().astimezone().isoformat(timespec="seconds"))

    @property
    def processor(self) -> str:
        """What ran the methods, in words."""
        return self.machine["gpu"] if self.device == "cuda" else f"{self.machine['cpu']}, {self.threads} threads"

    def write(self, path: Path) -> Path:
        """Write everything as JSON, and return the path."""
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, allow_nan=False)
        return write_text(path, text + "\n")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Return what ``write`` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def report_path(name: str) -> Path:
    """Return where the last benchmark of this name (a device, or a device and ``_sweep``) is."""
    return runs_dir() / "bench" / f"{name}.json"


def number(value: float | None) -> str:
    """Return three digits, and all of those before the point.

    >>> [number(value) for value in (0.01234, 12.34, 12345.6, None)]
    ['0.0123', '12.3', '12,346', '-']
    """
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def scientific(error: float | None) -> str:
    """Return an error with its power of ten; None says that the value was not finite."""
    return "not finite" if error is None else f"{error:.1e}"


def cells(rows: Sequence[dict]) -> list[dict[str, str]]:
    """Return the rows of one size as text by column; ``ratio`` is to the first of them."""
    first, found = rows[0]["total_ms"]["median"], []
    for row in rows:
        total, apart = row["total_ms"], row["kind"] not in ("covariance", "exact root")
        name = f"{row['method']} (gcplib)" if row["ours"] else row["method"]
        cell = {"method": name + (f", ridge {row['ridge']:g}" if row["ridge"] else "")}
        cell |= {key: number(row[f"{key}_ms"]["median"]) for key in ("forward", "backward", "total")}
        cell["quartiles"] = f"[{number(total['low'])}, {number(total['high'])}]" if row["rounds"] > 1 else "once"
        cell |= {"ratio": number(total["median"] / first), "saved MB": number(row["saved_mb"])}
        cell |= {"peak MB": number(row["peak_mb"])} if row["peak_mb"] else {}
        cell |= {"error": scientific(row["error"]), "of dl/dX": scientific(row["gradient_error"])}
        cell["from the root"] = scientific(row["root_distance"]) if apart else ""
        found.append(cell | {"its dl/dX": scientific(row["root_gradient_distance"]) if apart else ""})
    return found


def shape(row: dict) -> str:
    """Return the size of a row in words."""
    return "batch {batch}, {channels} channels, {positions} positions".format(**row)


def size_tables(rows: Iterable[dict]) -> list[str]:
    """Return a heading and a table of ``cells`` for every size."""
    parts = []
    for text, group in itertools.groupby(rows, shape):
        found = cells(list(group))
        parts += [f"### {text}", table(list(found[0]), [list(cell.values()) for cell in found])]
    return parts


def four_digits(text: str) -> float:
    """Return a number of a JSON file as it is kept."""
    return float(f"{float(text):.4g}")


def evidence_path(name: str) -> Path:
    """Return where the kept benchmark of this name is."""
    return project_root() / "data" / "evidence" / f"bench_{name}.json"


def keep_report(name: str, command: str, what: str, key: str, wanted: Callable[[Report], set[tuple]]) -> Path:
    """Copy the last benchmark of this name to ``data/evidence``, in four digits, and return the file.

    Args:
        name: of the benchmark.
        command: that measures all of it.
        what: its rows are, in the plural.
        key: in a row, of the case that was measured.
        wanted: the sizes and cases that a whole benchmark has.

    Raises:
        FileNotFoundError: nothing was measured yet.
        ValueError: only some sizes or cases were measured.
    """
    path = report_path(name)
    if not path.is_file():
        raise FileNotFoundError(f"nothing was measured yet; run {command}")
    report = Report.read(path)
    whole = wanted(report)
    if missing := whole - {((row["batch"], row["channels"], row["positions"]), row[key]) for row in report.rows}:
        size, case = min(missing)
        lacks = f"{path.name} lacks {len(missing)} of {len(whole)} {what}, for example {case} at {size}"
        raise ValueError(f"{lacks}; run {command} with all sizes and {what}")
    few = json.loads(json.dumps(report.rows), parse_float=four_digits)
    return dataclasses.replace(report, rows=few).write(evidence_path(name))


def keep(device: str) -> Path:
    """Copy the last benchmark on a device to ``data/evidence``; see ``keep_report``."""

    def whole(report: Report) -> set[tuple]:
        return {(size, method.name) for size in SIZES for method in METHODS if method.name not in report.skipped}

    return keep_report(device, f"python -m gcplib bench layers --device {device}", "methods", "method", whole)


def kept_reports() -> list[Report]:
    """Return the benchmarks kept so far, one per device."""
    paths = [project_root() / "data" / "evidence" / f"bench_{device}.json" for device in ("cpu", "cuda")]
    return [Report.read(path) for path in paths if path.is_file()]


def speed_page() -> str:
    """Return the page that shows the kept benchmarks: for each device a table per size."""
    parts = ["How it is measured, and what the columns say: [benchmarks.md](benchmarks.md)."]
    for report in kept_reports():
        packages = {"torch": report.machine["versions"]["torch"]} | report.peers
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        about = f"Milliseconds in float32, median of {report.rounds} rounds. {versions}; commit "
        parts += [f"## {report.processor}", f"{about}`{report.machine['commit']}`, {report.date[:10]}."]
        parts += size_tables(report.rows)
    return page("Speed and exactness of the layers", *parts)
