"""What probes found: a table, a figure, and a sentence that says what to take."""

from __future__ import annotations

import base64
import html
import io
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from gcplib.lab.analysis.statistics import Interval, crossed_bootstrap
from gcplib.lab.files import write_atomic, write_text
from gcplib.lab.markdown import table as markdown_table
from gcplib.lab.probing import ProbeSpec, Result

__all__ = ["advice", "probe_table", "write_report"]

LEVEL = 0.05
STYLE = """body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em} td,th{padding:.2em .7em}
td,th{text-align:right} td:nth-child(-n+2),th:nth-child(-n+2){text-align:left} tr:nth-child(even){background:#f3f3f3}
img{max-width:100%}"""


def probe_table(results: list[Result]) -> pd.DataFrame:
    """Return one row for each probe, the best first: accuracy in percent with its interval, size and cost.

    ``gain`` is the difference to the best average, in points, with an interval that is wide enough for as many
    comparisons as there are probes of second order.
    """
    best = strongest_average(results)
    rows = []
    for result in results:
        accuracy = crossed_bootstrap(100.0 * result.correct)
        gain = difference(result, best, results) if result is not best else None
        rows.append(
            {
                "probe": result.name,
                "what": result.what,
                "width": result.width,
                "features": result.stage,
                "accuracy": accuracy.mean,
                "low": accuracy.low,
                "high": accuracy.high,
                "gain": gain.mean if gain else 0.0,
                "gain_low": gain.low if gain else 0.0,
                "gain_high": gain.high if gain else 0.0,
                "length": result.length,
                "parameters": result.parameters,
                "milliseconds": result.milliseconds,
                "order": result.order,
                "setting": ", ".join(f"{value:g}" for value in dict.fromkeys(result.chosen)),
                "at_end": result.at_end,
            }
        )
    return pd.DataFrame(rows).sort_values("accuracy", ascending=False, ignore_index=True)


def strongest_average(results: list[Result]) -> Result:
    """Return the best of the probes of first order: the opponent that a user would take."""
    return max((result for result in results if result.order == 1), key=lambda result: result.correct.mean())


def difference(result: Result, other: Result, results: list[Result]) -> Interval:
    """Return the paired difference in points, over seeds and test images, corrected for the number of comparisons."""
    count = max(1, sum(found.order == 2 for found in results))
    return crossed_bootstrap(100.0 * result.correct - 100.0 * other.correct, 1 - LEVEL / count)


def advice(results: list[Result]) -> str:
    """Return a sentence or two on what to take."""
    average = strongest_average(results)
    seconds = sorted((found for found in results if found.order == 2), key=lambda found: -found.correct.mean())
    gains = {found.name + found.stage: difference(found, average, results) for found in seconds}
    best = seconds[0]
    gain = gains[best.name + best.stage]
    first = f"the {_called(average)} ({_percent(average)})"
    if gain.low > 0:
        # Of those that are as good for all that is known, the shortest.
        level = [
            found
            for found in seconds
            if gains[found.name + found.stage].low > 0 and difference(best, found, results).low <= 0
        ]
        take = min(level, key=lambda found: found.length)
        found = gains[take.name + take.stage]
        text = (
            f"Take the {_called(take)}: {_percent(take)}, {found.mean:.1f} points [{found.low:.1f}, {found.high:.1f}] "
            f"above the strongest average, {first}. Its vector has {take.length:,} entries, that of the average "
            f"{average.length:,}."
        )
        if take is not best:
            text += f" The {_called(best)} has {_percent(best)}, no more than chance explains, with {best.length:,}."
        return text
    text = f"Take {first}, with {average.length:,} entries: second-order pooling "
    if gain.high < 0:
        return (
            text
            + f"does worse; the best, {_called(best)}, by {-gain.mean:.1f} points [{gain.low:.1f}, {gain.high:.1f}]."
        )
    text += (
        f"is not better beyond chance; the best, {_called(best)}, by {gain.mean:+.1f} points [{gain.low:.1f}, "
        f"{gain.high:.1f}]."
    )
    if gain.high - gain.low > 4:
        text += f" {best.correct.shape[1]:,} test images cannot tell less than {(gain.high - gain.low) / 2:.0f} points."
    return text


def _called(result: Result) -> str:
    return (
        result.name
        if result.stage in ("own", "tokens")
        else f"{result.name} at {result.stage.replace('stride', 'stride ')}"
    )


def _percent(result: Result) -> str:
    found = crossed_bootstrap(100.0 * result.correct)
    return f"{found.mean:.1f} % [{found.low:.1f}, {found.high:.1f}]"


def figure(table: pd.DataFrame, title: str) -> bytes:
    """Return a PNG: accuracy with intervals against the length of the vector's table row, the best first."""
    from matplotlib.figure import Figure

    drawn = table.iloc[::-1].reset_index(drop=True)
    picture = Figure(figsize=(8, 0.34 * len(drawn) + 1.9), layout="constrained")
    axes = picture.subplots()
    # Colors of Okabe and Ito, and other marks for whom colors say little.
    for order, color, mark, label in (
        (1, "#0072B2", "o", "averages: own, plain, class token, attention"),
        (2, "#D55E00", "s", "second order"),
    ):
        rows = drawn[drawn.order == order]
        errors = np.array([rows.accuracy - rows.low, rows.high - rows.accuracy])
        axes.errorbar(rows.accuracy, rows.index, xerr=errors, fmt=mark, color=color, capsize=3, label=label)
    names = [
        row.probe if row.features in ("own", "tokens") else f"{row.probe}, {row.features.replace('stride', 'stride ')}"
        for row in drawn.itertuples()
    ]
    axes.set_yticks(drawn.index, names)
    axes.set_xlabel("test accuracy in %, with 95 % interval over seeds and images")
    axes.grid(axis="x", alpha=0.3)
    picture.legend(loc="outside lower center", ncols=2, fontsize=9)  # within, it would lie on a point
    picture.suptitle("\n".join(textwrap.wrap(title, 90)), fontsize=10)
    data = io.BytesIO()
    picture.savefig(data, format="png", dpi=130)
    return data.getvalue()


def write_report(spec: ProbeSpec, results: list[Result], about: dict[str, str], folder: Path) -> pd.DataFrame:
    """Write ``table.csv``, ``figure.png``, ``report.md`` and ``report.html`` into a folder, and return the table."""
    table = probe_table(results)
    write_text(folder / "table.csv", table.to_csv(index=False))
    picture = figure(table, f"{about['images']}, {spec.backbone}, {spec.labels} labels")
    with write_atomic(folder / "figure.png") as temporary:
        temporary.write_bytes(picture)
    facts = [f"{name}: {value}" for name, value in about.items()]
    rows = [shown.split("\t") for shown in _rows(table)]
    text = "\n\n".join(
        ["# Probes of a frozen network", advice(results), "  \n".join(facts), markdown_table(*rows[:1], rows[1:])]
    )
    if ends := table[table.at_end]["probe"].tolist():
        text += f"\n\nA setting was still at the end of what was tried: {', '.join(ends)}."
    write_text(folder / "report.md", text + "\n")
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows[1:])
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    lines = ["<!doctype html><html lang='en'><meta charset='utf-8'><title>Probes</title>", f"<style>{STYLE}</style>"]
    lines += ["<h1>Probes of a frozen network</h1>", f"<p><b>{html.escape(advice(results))}</b></p>"]
    lines += [f"<p>{'<br>'.join(map(html.escape, facts))}</p>"]
    image = base64.b64encode(picture).decode()
    lines += [f"<img alt='test accuracy of every probe with its interval' src='data:image/png;base64,{image}'>"]
    write_text(folder / "report.html", "\n".join([*lines, f"<table><tr>{head}</tr>\n{cells}</table></html>"]))
    return table


def _rows(table: pd.DataFrame) -> list[str]:
    rows = ["probe\tfeatures\taccuracy, %\tagainst the best average, points\tlength\tweights\tms an image\tsetting"]
    for row in table.itertuples():
        gain = "" if row.gain == row.gain_low == 0 else f"{row.gain:+.1f} [{row.gain_low:.1f}, {row.gain_high:.1f}]"
        rows.append(
            f"{row.probe}\t{row.features}\t{row.accuracy:.1f} [{row.low:.1f}, {row.high:.1f}]\t{gain}\t{row.length:,}\t"
            f"{row.parameters:,}\t{row.milliseconds:.2f}\t{row.setting}"
        )
    return rows
