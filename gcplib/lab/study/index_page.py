"""The report of a study: one page with verdicts and figures, and every executed notebook as a page beside it."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

import jinja2

from gcplib.lab.files import write_atomic, write_text
from gcplib.lab.machine import describe_machine, machine_line
from gcplib.lab.progress import counted, duration
from gcplib.lab.study.claims import assess_records, read_records
from gcplib.lab.study.plan import Job, Plan
from gcplib.lab.study.verdicts import FAILS, HOLDS, PARTLY, UNTESTED, claims, count_verdicts

__all__ = ["build_report", "report_path"]

# Colors of verdicts and of notebooks; the others show nothing, and are gray.
CSS = {HOLDS: "holds", PARTLY: "partly", FAILS: "fails", "ok": "holds", "out of date": "partly", "failed": "fails"}
JINJA = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}


def report_path(plan: Plan) -> Path:
    """Return where the report of a plan is, or will be."""
    return plan.folder / "report" / "index.html"


def build_report(plan: Plan) -> Path:
    """Write ``runs/<profile>/report/`` from what has run, and return its ``index.html``.

    The pages and figures are written first and ``index.html`` last, each whole or not at all.
    """
    folder = report_path(plan).parent
    notebooks = [_notebook(plan, job, folder) for job in plan.of("notebooks")]
    kept = {Path(item["page"]).name for item in notebooks if item["page"]}
    kept |= {f"{figure['name']}.png" for item in notebooks for figure in item["figures"]}
    for path in [*folder.glob("notebooks/*.html"), *folder.glob("figures/*.png")]:
        if path.name not in kept:  # of an earlier report
            path.unlink()
    template = Path(__file__).with_name("index.html.j2").read_text(encoding="utf-8")
    rows = _claims(plan)
    # Some claims have secondary effects alone.
    tested = [row["verdict"] for row in rows if row["verdict"] != UNTESTED]
    values = {"plan": plan, "notebooks": notebooks, "claims": rows, "tested": tested, "css": CSS}
    values |= {"verdicts": count_verdicts(tested), "counted": counted, "runs": plan.count_runs()}
    values |= {"unfinished": plan.runs("failed", "diverged"), "origin": _provenance(plan)}
    return write_text(report_path(plan), jinja2.Environment(**JINJA).from_string(template).render(values))


def _notebook(plan: Plan, job: Job, folder: Path) -> dict[str, Any]:
    """Write the page and the figures of one notebook, and return what the report shows of it."""
    from gcplib.lab.study.notebook_page import Page

    status, facts = plan.status(job), plan.facts(job)
    found = {"name": job.label, "title": job.label, "status": status, "figures": [], "page": None, "failure": None}
    found |= {"time": duration(facts.get("seconds")), "date": _when(facts["date"]) if facts else ""}
    if status == "failed":
        lines = facts["failure"]["source"].splitlines()
        # The last lines of the cell: the statement that fails is more often late than early.
        found["failure"] = facts["failure"] | {"source": "\n".join((["..."] if lines[12:] else []) + lines[-12:])}
    executed = plan.file(job, ".failed.ipynb" if status == "failed" else ".ipynb")
    if not executed.is_file():
        return found
    page = Page(executed, found["failure"])
    write_text(folder / "notebooks" / f"{job.label}.html", page.html)
    for figure in page.figures:
        with write_atomic(folder / "figures" / f"{figure['name']}.png") as path:
            path.write_bytes(base64.b64decode(figure["png"]))
    return found | {"title": page.title, "figures": page.figures, "page": f"notebooks/{job.label}.html"}


def _claims(plan: Plan) -> list[dict[str, Any]]:
    records, rows = read_records(plan.profile), []
    for claim in claims().values():
        own = [record for record in records if record["claim"] == claim.id]
        found, origin = assess_records(claim.id, own), {e["name"]: record for record in own for e in record["evidence"]}
        effects = [(item, primary, p, origin[item.name]) for item, primary, p in found.effects]
        notes = [record["note"] for record in own if record["note"]]
        told = {"verdict": found.verdict, "words": found.words}
        rows.append({"claim": claim, **told, "effects": effects, "notes": notes})
    return rows


def _provenance(plan: Plan) -> dict[str, Any]:
    """The facts that a reader needs to place the numbers, from the newest run rather than from this machine."""
    ran = sorted(filter(None, map(plan.facts, plan.of("notebooks"))), key=lambda entry: entry["date"])
    machines = [entry["machine"] for entry in ran] or [describe_machine()]
    found = {"machine": machine_line(machines[-1]), "versions": machines[-1]["versions"]}
    found["commits"] = dict.fromkeys(machine["commit"] or "none" for machine in machines)
    found["dates"] = dict.fromkeys(_when(entry["date"]) for entry in (ran[:1] + ran[-1:]))
    return found | {"time": duration(sum(entry["seconds"] for entry in ran))}


def _when(date: str) -> str:
    return f"{datetime.datetime.fromisoformat(date):%Y-%m-%d %H:%M}"
