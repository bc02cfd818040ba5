"""What the GPU kit found: what failed, what it says of claim C06, the page that shows it, and the file that is kept."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

from gcplib.lab.analysis.statistics import mean_interval
from gcplib.lab.bench.layers import four_digits, number, shape, size_tables
from gcplib.lab.files import project_root, runs_dir, write_text
from gcplib.lab.markdown import page, table
from gcplib.lab.study.verdicts import Evidence, assess

STEPS = ("Newton-Schulz, products", "Newton-Schulz, pytorchcv")
LEAD = """\
`make gpu` checks and times the library on an NVIDIA card, in at most eight minutes and without a network: the tests in
`tests/cuda`, single layers beside other packages, whole networks, and claim [C06](claims.md#c06). It writes
`runs/bench/gpu.json`, whatever fails, and ends with status 1 if something did. `python -m gcplib bench gpu --keep`
keeps that file and renews this page. `python -m gcplib bench gpu --device cpu --tiny` tries the kit itself where there
is no card. What the columns say: [benchmarks.md](benchmarks.md)."""
NOT_RUN = "**Not run yet.** On a machine with a card: `make gpu`, then `python -m gcplib bench gpu --keep`."


def gpu_path(tiny: bool = False) -> Path:
    """Return where the last run of the kit is."""
    return runs_dir() / "bench" / ("gpu_tiny.json" if tiny else "gpu.json")


def _kept_path() -> Path:
    return project_root() / "data" / "evidence" / "bench_gpu.json"


def failure(row: dict) -> str | None:
    """Return what went wrong in a row of the kit, in one line; None if nothing did."""
    text = row.get("failed") or (row.get("outcome") == "failed" and (row.get("message") or "failed"))
    return text.splitlines()[0] if text else None


def failures(document: dict) -> list[str]:
    """Return what went wrong, a line each: tests that failed, and parts, sizes or methods without a measurement."""
    lines = []
    for name, part in document["parts"].items():
        lines += [f"{name}: {part['error']}"] if part.get("error") else []
        for row in filter(failure, part["rows"]):
            what = row.get("test") or row.get("method") or "all methods"
            lines.append(f"{name}: {what}{', ' + shape(row) if 'batch' in row else ''}: {failure(row)}")
    return lines


def speed_claim(document: dict) -> dict:
    """Return what was measured about claim C06, "Newton-Schulz is much faster than EIG/SVD on a GPU".

    Whole networks decide: the percentage of the time of each step that Newton-Schulz saves, minus 50, with an interval
    over rounds. Ratios of single layers, geometric means over rounds, stand beside them.
    """
    device, evidence, ratios = document["settings"]["device"], [], []
    for name, part in document["parts"].items():
        rows = [row for row in part["rows"] if "rounds_ms" in row or "seconds" in row]
        if name.startswith("networks"):
            seconds = {row["network"]: row["seconds"] for row in rows}
            if {"Newton-Schulz", "exact root"} <= set(seconds):
                pairs = zip(seconds["Newton-Schulz"], seconds["exact root"], strict=True)
                saved = mean_interval([100 * (1 - steps / exact) for steps, exact in pairs]).shift(-50)
                where = name.removeprefix("networks, ")
                text = f"time saved by Newton-Schulz over the exact root, {where}, minus half"
                evidence.append(asdict(Evidence.of(text, saved, "% of the time")))
        elif name == "layers":
            ratios = _ratios(rows)
    items = [Evidence(**item) for item in evidence]
    word = assess("C06", items).verdict if device == "cuda" else "needs CUDA"
    about = {"claim": "C06", "notebook": "gpu", "profile": "gpu", "by": "kit", "date": document["date"]}
    about["data"] = f"{document['settings']['backbone']}, forward and backward in bf16 autocast, images at hand"
    about["note"] = "n counts rounds on one card, not seeds"
    record = about | {"evidence": evidence, "machine": document["machine"]}
    return {"verdict": word, "ratios": ratios, "record": record}


def _ratios(rows: list[dict]) -> list[dict]:
    """Return by size the time of every exact root over that of Newton-Schulz steps, in the same round."""
    found = []
    for size in dict.fromkeys((row["batch"], row["channels"], row["positions"]) for row in rows):
        own = {r["method"]: r["rounds_ms"] for r in rows if (r["batch"], r["channels"], r["positions"]) == size}
        for exact in [name for name in own if name.startswith("exact root")]:
            for steps in [name for name in STEPS if name in own]:
                # What was slow has one round; it is compared with as many of the other.
                logs = [math.log(a / b) for a, b in zip(own[exact], own[steps], strict=False)]
                mean = mean_interval(logs)
                ends = [math.exp(end) if math.isfinite(end) else None for end in (mean.low, mean.high)]
                row = {"size": "x".join(map(str, size)), "exact": exact, "steps": steps, "ratio": math.exp(mean.mean)}
                found.append(row | {"low": ends[0], "high": ends[1], "n": mean.n})
    return found


def keep_gpu() -> Path:
    """Copy the last run of the kit on a card to ``data/evidence``, in four digits, and return the file.

    Raises:
        FileNotFoundError: the kit did not run yet.
        ValueError: it did not come to its end.
    """
    path = gpu_path()
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: the kit did not run on a card yet; run python -m gcplib bench gpu")
    found = json.loads(path.read_text(encoding="utf-8"), parse_float=four_digits)
    if not found.get("finished"):
        raise ValueError(f"{path} ends after {list(found['parts'])}: the kit was interrupted; run it again")
    return write_text(_kept_path(), json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def gpu_page() -> str:
    """Return the page that shows what is kept, or how to run the kit."""
    if not _kept_path().is_file():
        return page("On a GPU", LEAD, NOT_RUN)
    found = json.loads(_kept_path().read_text(encoding="utf-8"))
    machine, parts = found["machine"], found["parts"]
    about = f"{'; '.join(machine['gpus']) or machine['cpu']}. Driver {machine['driver']}, CUDA {machine['cuda']}, "
    about += f"cuSOLVER {machine['cusolver']}, torch {machine['versions']['torch']}; commit `{machine['commit']}`, "
    wrong = [f"* {line}" for line in failures(found)]
    return page(
        "On a GPU",
        LEAD,
        f"{about}{found['date'][:10]}.",
        *(["## What failed", "\n".join(wrong)] if wrong else []),
        *_tests({name: part["rows"] for name, part in parts.items() if name.startswith("tests")}),
        *_claim(parts["claim C06"]),
        *_networks([row for name, part in parts.items() if name.startswith("networks") for row in part["rows"]]),
        *_layers(parts["layers"]["rows"]),
    )


def _tests(files: dict[str, list[dict]]) -> list[str]:
    heads, counts, numbers, reasons = ["", "passed", "failed", "skipped"], [], [], []
    for name, rows in files.items():
        outcomes = [row["outcome"] for row in rows]
        counts.append([name.removeprefix("tests: "), *map(outcomes.count, heads[1:])])
        numbers += [pair for row in rows for pair in row.get("found", {}).items()]
        reasons += [row["message"] for row in rows if row["outcome"] == "skipped"]
    parts = ["## Tests", table(heads, counts)]
    parts += ["\n".join(f"* Skipped: {reason}." for reason in dict.fromkeys(reasons))]
    return [*parts, *([table(["measured by the tests", ""], numbers)] if numbers else [])]


def _claim(claim: dict) -> list[str]:
    if "error" in claim:
        return []
    keys = ("size", "exact", "steps")
    rows = [(*(row[key] for key in keys), number(row["ratio"]), _interval(row), row["n"]) for row in claim["ratios"]]
    heads = ["batch x channels x positions", "exact", "beside", "times as long", "95 % interval", "rounds"]
    effects = [f"* {Evidence(**item)}" for item in claim["record"]["evidence"]]
    lead = f"Newton-Schulz is much faster than EIG/SVD on a GPU, end to end: **{claim['verdict']}**."
    origin = f"On {claim['record']['data']}; {claim['record']['note']}."
    parts = ["## C06", lead, "\n".join(effects), origin]
    return parts + (["Single layers, forward and backward, in the same round:", table(heads, rows)] if rows else [])


def _interval(row: dict) -> str:
    return "once" if row["low"] is None else f"[{number(row['low'])}, {number(row['high'])}]"


def _networks(rows: list[dict]) -> list[str]:
    heads = ["network", "pixels", "batch", "images per second", "quartiles"]
    shown = [(*(row[key] for key in heads[:3]), number(row["images_per_second"]), _interval(row)) for row in rows]
    lead = "Forward and backward in bf16 autocast, without loading and without the optimizer."
    return ["## Whole networks", lead, table(heads, shown)] if rows else []


def _layers(rows: list[dict]) -> list[str]:
    parts = [f"* {row['method']}: {row['skipped']}." for row in rows if "skipped" in row]
    parts = ["## Layers", "Milliseconds in float32, medians.", "\n".join(["Not timed:", "", *parts]) if parts else ""]
    return parts + size_tables(row for row in rows if "total_ms" in row)
