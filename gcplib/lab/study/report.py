"""The report of a study: one page with verdicts and figures, and every executed notebook as a page beside it."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass
from pathlib import Path

from gcplib.lab.files import write_atomic
from gcplib.lab.machine import describe_machine, machine_line
from gcplib.lab.study.claims import read_records
from gcplib.lab.study.profiles import Plan, load_plan
from gcplib.lab.study.progress import duration
from gcplib.lab.study.status import NotebookStatus, count_runs, study_status, sweep_status
from gcplib.lab.study.verdicts import FAILS, HOLDS, PARTLY, UNTESTED, Evidence, claims, count_verdicts, verdict

__all__ = ["build_report", "report_path"]

CSS_CLASS = {HOLDS: "holds", PARTLY: "partly", FAILS: "fails"}  # the others show nothing, and are gray


def report_path(plan: Plan) -> Path:
    """Return where the report of a plan is, or will be."""
    return plan.folder / "report" / "index.html"


def build_report(profile: str | Path) -> Path:
    """Write ``runs/<profile>/report/`` from what has run, and return its ``index.html``.

    The pages and figures are written first and ``index.html`` last, each whole or not at all.

    Raises:
        ValueError: the profile does not fit the notebooks.
        FileNotFoundError: there is no such profile.
    """
    import jinja2

    plan = load_plan(profile)
    folder = report_path(plan).parent
    notebooks = [_write_notebook(folder, status) for status in study_status(plan).values()]
    _remove_others(folder, notebooks)
    tested, untested = _claims(plan)
    template = Path(__file__).with_name("index.html.j2").read_text(encoding="utf-8")
    options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    html = (
        jinja2.Environment(**options)
        .from_string(template)
        .render(
            plan=plan,
            profile=plan.profile,
            notebooks=notebooks,
            pages={notebook.status.name: notebook.page for notebook in notebooks},
            tested=tested,
            untested=untested,
            summary=_summary(plan, notebooks, tested, untested),
            provenance=_provenance(plan, notebooks) + _runs(plan),
            made=_when(datetime.datetime.now()),
        )
    )
    with write_atomic(report_path(plan)) as path:
        path.write_text(html, encoding="utf-8")
    return report_path(plan)


@dataclass(frozen=True)
class _Notebook:
    """What the page shows of one notebook."""

    status: NotebookStatus
    title: str
    page: str | None
    figures: list[dict]

    @property
    def css(self) -> str:
        return {"ok": "holds", "failed": "fails", "not run": "untested", "out of date": "partly"}[self.status.state]

    @property
    def time(self) -> str:
        return duration(self.status.seconds) if self.status.seconds is not None else ""

    @property
    def date(self) -> str:
        return _when(datetime.datetime.fromisoformat(self.status.facts["date"])) if self.status.facts else ""

    @property
    def excerpt(self) -> str:
        """The last lines of the failing cell: the statement that fails is more often late than early."""
        lines = (self.status.failure or {}).get("source", "").splitlines()
        return "\n".join((["..."] if len(lines) > 12 else []) + lines[-12:])


def _write_notebook(folder: Path, status: NotebookStatus) -> _Notebook:
    if status.executed is None:
        return _Notebook(status, status.name, None, [])
    import nbformat

    from gcplib.lab.study.pages import figures_of, notebook_page, notebook_title

    with write_atomic(folder / "notebooks" / f"{status.name}.html") as path:
        path.write_text(notebook_page(status.executed, status.failure), encoding="utf-8")
    figures = []
    for figure in figures_of(status.executed):
        with write_atomic(folder / "figures" / f"{figure.name}.png") as path:
            path.write_bytes(figure.png)
        source = "data:image/png;base64," + base64.b64encode(figure.png).decode()
        link = f"notebooks/{status.name}.html#{figure.anchor}"
        figures.append({"name": figure.name, "caption": figure.caption, "source": source, "link": link})
    title = notebook_title(nbformat.read(status.executed, as_version=4)) or status.name
    return _Notebook(status, title, f"notebooks/{status.name}.html", figures)


def _remove_others(folder: Path, notebooks: list[_Notebook]) -> None:
    """Remove pages and figures of an earlier report that this one does not have."""
    kept = {f"{notebook.status.name}.html" for notebook in notebooks if notebook.page}
    kept |= {f"{figure['name']}.png" for notebook in notebooks for figure in notebook.figures}
    for path in [*folder.glob("notebooks/*.html"), *folder.glob("figures/*.png")]:
        if path.name not in kept:
            path.unlink()


def _claims(plan: Plan) -> tuple[list[dict], list[dict]]:
    records: dict[str, list[dict]] = {}
    for record in read_records(plan.profile.name):
        records.setdefault(record["claim"], []).append(record)
    tested, untested = [], []
    for claim in claims().values():
        found = records.get(claim.id, [])
        evidence = [(Evidence(**item), record) for record in found for item in record["evidence"]]
        word = verdict(claim.id, [item for item, _ in evidence])
        row = {"claim": claim, "verdict": word, "css": CSS_CLASS.get(word, "untested"), "evidence": evidence}
        row["notes"] = [record["note"] for record in found if record.get("note")]
        (tested if evidence else untested).append(row)
    return tested, untested


def _summary(plan: Plan, notebooks: list[_Notebook], tested: list[dict], untested: list[dict]) -> str:
    ran = [notebook for notebook in notebooks if notebook.status.state == "ok"]
    failed = [notebook for notebook in notebooks if notebook.status.state == "failed"]
    found = [row["verdict"] for row in tested if row["verdict"] != UNTESTED]  # some have secondary effects alone
    text = ""
    if notebooks:
        text += f"{len(ran)} of {len(notebooks)} notebooks ran through"
        text += f", {len(failed)} failed. " if failed else ". "
    if plan.sweeps:
        total, words = count_runs(sweep_status(plan).values())
        text += f"Of {total} training run{'s' * (total > 1)}, {words}. "
    were = "was" if len(found) == 1 else "were"
    text += f"Of {len(tested) + len(untested)} claims, {len(found)} {were} tested in this profile"
    return text + (f": {count_verdicts(found)}." if found else ".")


def _provenance(plan: Plan, notebooks: list[_Notebook]) -> list[tuple[str, str]]:
    """The facts that a reader needs to place the numbers, from the newest run rather than from this machine."""
    facts = [notebook.status.facts for notebook in notebooks if notebook.status.facts]
    newest = max(facts, key=lambda entry: entry["date"], default={})
    machine = newest.get("machine") or describe_machine()
    commits = sorted({entry["machine"].get("commit") or "none" for entry in facts})
    dates = sorted(_when(datetime.datetime.fromisoformat(entry["date"])) for entry in facts)
    total = sum(entry.get("seconds") or 0 for entry in facts)
    rows = [("Profile", f"{plan.profile.name}: {plan.profile.description}".rstrip(": "))]
    if plan.profile.shared:
        rows.append(("Settings", ", ".join(f"{name} {value}" for name, value in plan.profile.shared.items())))
    rows.append(("Machine", machine_line(machine)))
    rows.append(("Versions", " · ".join(f"{name} {version}" for name, version in machine["versions"].items())))
    rows.append(("Commit", ", ".join(commits) if facts else str(machine.get("commit") or "none")))
    if facts:
        rows.append(("Run", " to ".join(dict.fromkeys((dates[0], dates[-1])))))
        rows.append(("Time", f"{duration(total)} in all, summed over notebooks"))
    return rows


def _runs(plan: Plan) -> list[tuple[str, str]]:
    """The row that tells what became of the training runs, with each that did not finish and why."""
    if not plan.sweeps:
        return []
    from gcplib.lab.study.pages import runs_fragment

    sweeps = sweep_status(plan).values()
    unfinished = [run for which in ("failed", "diverged") for sweep in sweeps for run in sweep.outcome(which)]
    return [("Training", runs_fragment("{} runs: {}".format(*count_runs(sweeps)), unfinished))]


def _when(date: datetime.datetime) -> str:
    return f"{date:%Y-%m-%d %H:%M}"
