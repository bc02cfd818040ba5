"""The first page: what this is, what became of a study, what it says about the claims, and where the rest is."""

from __future__ import annotations

import datetime
import html
from collections.abc import Mapping, Sequence

from gcplib.lab.files import project_root
from gcplib.lab.machine import describe_machine, machine_line
from gcplib.lab.markdown import table
from gcplib.lab.progress import counted, duration
from gcplib.lab.site.claim_pages import badge, badges, whole
from gcplib.lab.site.notebooks import CoursePage
from gcplib.lab.site.pages import Sources, code, fence, toctree
from gcplib.lab.study.claims import assess_records
from gcplib.lab.study.keep import FIGURE
from gcplib.lab.study.plan import Plan
from gcplib.lab.study.verdicts import COUNTED, UNTESTED, claims, count_verdicts

__all__ = ["front_page", "gallery", "notebook_about"]

# Pages of the repository by what they are for; those that are in no list come last.
GUIDES = {
    "Use it": "README docs/your_pictures docs/running docs/data_sets docs/recipes docs/profiles docs/clusters docs/gpu "
    "docs/colab data/README",
    "Library": "docs/layers docs/pools docs/transforms api/index",
    "Speed": "docs/benchmarks docs/speed docs/derivatives docs/training_speed",
    "About": "docs/protocol docs/how_verdicts_are_formed docs/teaching docs/compatibility docs/citing CHANGELOG "
    "CONTRIBUTING",
}

# Of runs that were lost for one reason, this many are named.
NAMED = 3


def front_page(plan: Plan, pages: Mapping[str, CoursePage], records: Sequence[dict], sources: Sources) -> str:
    """Return the first page, with the lists of pages that stand beside every page."""
    parts = ["# Global covariance pooling, put to the test", _what_it_is(), "## This study", _summary(plan, records)]
    parts += [_headline(pages), "## Notebooks", *_notebooks(plan, pages)]
    parts += ["## Claims", f"What the study `{plan.profile}` says; [every effect, and other studies](claims/index.md)."]
    rows = [
        (f"[{id}](claims/{id}.md)", claim.text, badges(assess_records(id, records).words))
        for id, claim in claims().items()
    ]
    parts += [table(["claim", "", "verdict"], rows), "## Where the numbers come from", *_provenance(plan)]
    course = [f"notebooks/{name}" for name in pages]
    names = {"README": "Read me <README>"}
    names |= {place: f"{pages[name].short} <{place}>" for name, place in zip(pages, course, strict=True)}
    lists = {"Course": [*course, "docs/notebooks", "notebooks/NOTATION"], "Findings": ["claims/index", "figures"]}
    lists |= {caption: places.split() for caption, places in GUIDES.items()}
    listed = {place for places in lists.values() for place in places}
    others = {place.removesuffix(".md") for place in sources.written} - listed
    lists["About"] += sorted(place for place in others if not place.startswith(("claims/", "api/")))
    shown = {caption: list(filter(sources.has, places)) for caption, places in lists.items()}
    trees = [toctree(caption, [names.get(place, place) for place in places]) for caption, places in shown.items()]
    return "\n\n".join([*filter(None, parts), *trees]) + "\n"


def gallery(pages: Mapping[str, CoursePage]) -> str:
    """Return the page of every notebook's main figures."""
    parts = ["# Figures"]
    for name, page in pages.items():
        if page.headlines:
            parts += [f"## [{page.title}](notebooks/{name}.md)", '<div class="gallery">']
            for figure in page.headlines:
                link = f'<a href="notebooks/{name}.html#cell-{figure.cell}">{html.escape(figure.caption)}</a>'
                parts.append(figure.markdown("figures", link))
            parts.append("</div>")
    return "\n\n".join(parts if parts[1:] else [*parts, "No notebook has drawn one yet."]) + "\n"


def notebook_about(plan: Plan, name: str) -> str:
    """Return what a reader should know of a notebook's run, in a line below its title."""
    job = plan.jobs.get(f"notebooks/{name}")
    state, facts = (plan.status(job), plan.facts(job)) if job else ("not in this profile", {})
    if state == "failed":
        said = f"This notebook **failed** {_where(facts['failure'])}: {code(facts['failure']['error'])}"
        return fence(said, "{error}")
    if not facts:
        return fence(f"{state[:1].upper()}{state[1:]}: there are no outputs.", "{note}")
    line = f"{badge(state)} {_when(facts['date'])}, {duration(facts['seconds'])}, profile `{plan.profile}`"
    return f"{line}, commit `{facts['machine']['commit'] or 'none'}`."


def _where(failure: dict, page: str = "") -> str:
    # A kernel that dies at its start has no cell to blame.
    link = f'in <a href="{page}#cell-{failure["id"]}">cell [{failure["number"]}]</a>'
    return link if failure["id"] else "before its first cell"


def _what_it_is() -> str:
    """The beginning of the README, up to its figure."""
    path = project_root() / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text.partition("\n\n")[2].partition("\n\n![")[0]


def _summary(plan: Plan, records: Sequence[dict]) -> str:
    states = [plan.status(job) for job in plan.of("notebooks")]
    said = [f"{states.count('ok')} of {counted(len(states), 'notebook')} ran through"] if states else []
    said += [f"{states.count('failed')} failed"] if "failed" in states else []
    text = f"{', '.join(said)}. " if said else ""
    total, outcomes = plan.count_runs()
    text += f"Of {counted(total, 'training run')}, {outcomes}. " if total else ""
    verdicts = [assess_records(id, records).verdict for id in claims()]
    tested = [word for word in verdicts if word != UNTESTED]
    were = "was" if len(tested) == 1 else "were"
    text += f"Of {len(verdicts)} claims, {len(tested)} {were} tested in this profile"
    text += f": {count_verdicts(tested)}." if tested else "."
    counts = {word: tested.count(word) for word in COUNTED}
    return f"{text}\n\n" + " ".join(
        badge(word, count_verdicts([word] * count)) for word, count in counts.items() if count
    )


def _headline(pages: Mapping[str, CoursePage]) -> str:
    figures = [figure for page in pages.values() for figure in page.headlines]
    first = next((figure for figure in figures if f"{figure.name}.png" == FIGURE), figures[0] if figures else None)
    return first.markdown("figures", f"{first.caption}. [All figures](figures.md)") if first else ""


def _notebooks(plan: Plan, pages: Mapping[str, CoursePage]) -> list[str]:
    rows, failures = [], []
    for job in plan.of("notebooks"):
        state, facts, title = plan.status(job), plan.facts(job), pages[job.label].title
        when = _when(facts["date"]) if facts else ""
        rows.append(
            (f"[{title}](notebooks/{job.label}.md)", badge(state), whole(duration(facts.get("seconds"))), whole(when))
        )
        if state == "failed":
            failure = facts["failure"]
            where = _where(failure, f"notebooks/{job.label}.html")
            # The last lines of the cell: the statement that fails is more often late than early.
            lines = failure["source"].splitlines()
            source = "\n".join((["..."] if lines[12:] else []) + lines[-12:])
            failures += [f"**{job.label}** stopped {where}: {code(failure['error'])}", fence(source, "python")]
    return [table(["notebook", "state", "time", "run"], rows), *failures] if rows else ["None in this profile."]


def _provenance(plan: Plan) -> list[str]:
    """The facts that a reader needs to place the numbers, from the runs rather than from this machine."""
    ran = sorted(filter(None, map(plan.facts, plan.of("notebooks"))), key=lambda entry: entry["date"])
    machines = [entry["machine"] for entry in ran] or [describe_machine()]
    versions = " · ".join(f"{name} {version}" for name, version in machines[-1]["versions"].items())
    about = f"{plan.profile}: {html.escape(plan.description, quote=False)}" if plan.description else plan.profile
    rows = [("profile", about)]
    if plan.shared:
        rows.append(("settings", ", ".join(f"{name} {code(value)}" for name, value in plan.shared.items())))
    rows += [("machine", machine_line(machines[-1])), ("versions", versions)]
    rows += [("commit", ", ".join(dict.fromkeys(code(machine["commit"] or "none") for machine in machines)))]
    if ran:
        rows.append(("run", " to ".join(dict.fromkeys(_when(entry["date"]) for entry in (ran[0], ran[-1])))))
        rows.append(("time", f"{duration(sum(entry['seconds'] for entry in ran))} in all, summed over notebooks"))
    lost: dict[tuple[str, str], list[str]] = {}
    for run in plan.runs("failed", "diverged"):
        lost.setdefault((run["outcome"], run["reason"] or "no reason"), []).append(code(run["directory"]))
    for (outcome, reason), names in lost.items():
        more = f" and {len(names) - NAMED} more" * (len(names) > NAMED)
        rows.append((outcome, f"{', '.join(names[:NAMED])}{more}: {code(reason)}"))
    return [table(["", ""], rows)]


def _when(date: str) -> str:
    return f"{datetime.datetime.fromisoformat(date):%Y-%m-%d %H:%M}"
