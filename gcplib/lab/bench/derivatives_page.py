"""What was measured of derivatives, products and export: the file that is kept, goals, and the page that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from gcplib.lab.bench.derivatives import GUARD_ROUNDS, PARTS
from gcplib.lab.bench.layers import Report, evidence_path, keep_report, number, scientific
from gcplib.lab.bench.measure import SIZES
from gcplib.lab.machine import installed_versions
from gcplib.lab.markdown import page, table

NAME = "derivatives_cpu"
COMMAND = "python -m gcplib bench derivatives"
LEAD = f"""\
What a layer costs beside forward and backward: second derivatives, `torch.func.vmap`, the root by products, ONNX files,
and the guard that keeps products in float32. `{COMMAND}` measures it; with `--keep` the last result
is kept and this page renewed. Features are random normal in float32, batch x channels x positions. The cases of a part
take turns in shuffled rounds. Times are medians with quartiles; ratios, taken within rounds, are medians with 95 %
intervals by the sign test; errors are relative, against float64. Beside other packages:
[benchmarks.md](benchmarks.md)."""
NOT_MEASURED = f"**Not measured yet.** On a quiet machine: `{COMMAND}`, then `{COMMAND} --keep`."

ABOUT = {
    "second derivatives": "First order: forward and the gradient `g = dl/dX`. Second order: both, and the gradient of "
    "`|g|^2`, a penalty on gradients. torch's `eigh` under autograd takes eigenvalues clamped at eps, as in MPN-COV's "
    "releases; where eigenvalues vanish or repeat, its error says what its speed is worth.",
    "gradients of each image": "The gradients of each image's loss by all weights and by the image's features: "
    "`vmap(grad(loss))`, and a loop over the images, whose gradients are not put together.",
    "products": '`route="products"` takes no eigenvalues. The steps are on the smaller side, too, and are held against '
    "the same function of the eigenvalues, as they are not the root.",
    "ONNX": "`gcplib.export` of the pool `mpn_cov`, in onnxruntime on as many threads as torch has. By products torch "
    "computes what the file holds.",
    "guard of precision": "`covariance_map` with the products of `gcplib.linalg` as they are, and with a plain `@` in "
    f"their place, in {GUARD_ROUNDS} times as many rounds. The same twice shows what noise alone looks like.",
}


# The most that a column may be in the rows of a case.
GOALS = {
    "second derivatives": ("exact root (gcplib)", "ratio", 4),
    "guard of precision": ("exact root, forward and backward", "cost, %", 2),
}


def goal_sentence(part: str, rows: Sequence[dict]) -> str:
    """Return where a part meets its goal and where not, if the whole interval says so; else it is open."""
    case, column, most = GOALS[part]
    sizes: dict[str, list[str]] = {"met": [], "missed": [], "open": []}
    for row in rows:
        if row["case"] == case:
            low, high = row[column]["low"], row[column]["high"]
            known = low is not None
            outcome = "met" if known and high <= most else "missed" if known and low > most else "open"
            sizes[outcome].append(_size(row))
    found = "; ".join(f"{outcome} at {', '.join(names)}" for outcome, names in sizes.items() if names)
    return f"Goal for the {case}, {column}: at most {most}, by the whole interval: {found}."


def new_report(rounds: int) -> Report:
    """Return a report without rows, with the versions of what ONNX files need."""
    peers = installed_versions(("onnx", "onnxruntime", "onnxscript"))
    return Report("cpu", torch.get_num_threads(), rounds, [], peers=peers)


def _size(row: dict) -> str:
    return "{batch} x {channels} x {positions}".format(**row)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        if value["n"] == 1:
            return f"{number(value['median'])} once"
        return f"{number(value['median'])} [{number(value['low'])}, {number(value['high'])}]"
    return scientific(value) if value is None or isinstance(value, float) else str(value)


def derivatives_cells(rows: Sequence[dict]) -> list[dict[str, str]]:
    """Return rows of one part as text by column; a row without a value of a column has an empty cell there."""
    hidden = ("part", "batch", "channels", "positions")
    columns = list(dict.fromkeys(column for row in rows for column in row if column not in hidden))
    return [{"size": _size(row)} | {c: _cell(row[c]) if c in row else "" for c in columns} for row in rows]


def keep_derivatives() -> Path:
    """Copy the last result to ``data/evidence``; see ``keep_report``."""
    whole = {(size, part) for part in PARTS for size in SIZES}
    return keep_report(NAME, COMMAND, "measurements", "part", lambda _: whole)


def derivatives_page(report: Report | None = None) -> str:
    """Return the page that shows a report, or the one that is kept, or how to make it."""
    title, path = "Derivatives, products and export", evidence_path(NAME)
    if report is None:
        if not path.is_file():
            return page(title, LEAD, NOT_MEASURED)
        report = Report.read(path)
    packages = {"torch": report.machine["versions"]["torch"]} | report.peers
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    about = f"{report.processor}. {report.rounds} rounds. {versions}; commit "
    parts = [f"{about}`{report.machine['commit']}`, {report.date[:10]}."]
    for part in PARTS:
        rows = [row for row in report.rows if row["part"] == part]
        found = derivatives_cells(rows)
        goal = goal_sentence(part, rows) if part in GOALS else ""
        parts += [f"## {part[0].upper()}{part[1:]}", ABOUT[part], goal]
        parts.append(table(list(found[0]), [list(cell.values()) for cell in found]))
    return page(title, LEAD, *parts)
