"""A page for each claim: its verdicts, the effects behind them, a figure, and the commands that make each."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from gcplib.lab.markdown import table
from gcplib.lab.site.interval_plots import interval_figure
from gcplib.lab.site.notebooks import CoursePage, Figure
from gcplib.lab.site.pages import Sources, fence, toctree
from gcplib.lab.study.claims import assess_records
from gcplib.lab.study.evidence import before_protocol, images_of, kept_profiles, kept_records
from gcplib.lab.study.evidence_pages import RULE, claim_details, command_of, deciding, measured_on, verdict_tables
from gcplib.lab.study.verdicts import COUNTED, FAILS, HOLDS, PARTLY, Claim, claims

__all__ = ["badge", "badges", "whole", "write_claims"]

# Behind the name of a study whose site this is, beside what is kept of it.
HERE = ", this run"
# Colors of verdicts, and of what became of notebooks; the others show nothing, and are gray.
CSS = {HOLDS: "holds", PARTLY: "partly", FAILS: "fails", "ok": "holds", "out of date": "partly", "failed": "fails"}


def badge(word: str, text: str = "") -> str:
    """Return a verdict or a state in its color.

    >>> badge("failed")
    '<span class="badge fails">failed</span>'
    """
    return f'<span class="badge {CSS.get(word, "other")}">{text or word}</span>'


def whole(text: str) -> str:
    """Return text that is not broken, such as a date."""
    return f'<span class="whole">{text}</span>'


def badges(words: str) -> str:
    """Return a verdict, or the two of a claim against averages, in their colors.

    >>> badges("not tested")
    '<span class="badge other">not tested</span>'
    """
    known, parts = sorted(COUNTED, key=len, reverse=True), []
    for part in filter(None, words.split("; ")):
        word = next((word for word in known if part.startswith(word)), part)
        parts.append(badge(word) + part.removeprefix(word))
    return "<br>".join(parts)


def write_claims(sources: Sources, study: str, records: Sequence[dict], pages: Mapping[str, CoursePage]) -> None:
    """Write the table of claims, and the page of each.

    Args:
        sources: of the site.
        study: whose site it is.
        records: what it has found.
        pages: its notebooks by their names; one that did not run has no figures.
    """
    kept = {name: kept_records(name) for name in kept_profiles()}
    for claim in claims().values():
        found = {study + HERE: list(records), **kept}
        shown = _intervals(claim, found, sources)
        sources.add(f"claims/{claim.id}.md", _page(claim, study, found, shown, pages), "docs/claims.md")
    links = {id: f"[{id}](claims.md#{id.lower()})" for id in claims()}
    lead = f"What the papers claim, and what was measured. The verdicts of this study: [{study}](../index.md). {RULE}"
    plain = "\n".join(f"* {links[id]}: {claim.text}" for id, claim in claims().items())
    parts = ["# Claims", lead, *(verdict_tables(links, badges) + measured_on() if kept else [plain])]
    parts.append(toctree("Claims", [f"{id}: {claim.text} <{id}>" for id, claim in claims().items()]))
    sources.add("claims/index.md", "\n\n".join(parts) + "\n", "docs/claims.md")


def _page(
    claim: Claim, study: str, found: Mapping[str, list[dict]], shown: str, pages: Mapping[str, CoursePage]
) -> str:
    parts = [f"# {claim.id}: {claim.text}", f"Source: {claim.source}.", *_history(claim, found), shown]
    parts += [_figures(claim, pages), "## What decides", *deciding(claim), RULE]
    if effects := claim_details(claim, found):
        parts += ["## Effects and their intervals", "A positive effect supports the claim.", *effects]
    return "\n\n".join(filter(None, parts + _commands(claim, found, study))) + "\n"


def _intervals(claim: Claim, found: Mapping[str, list[dict]], sources: Sources) -> str:
    """The figure of what decides, written beside the pages; nothing where nothing was measured."""
    if not (png := interval_figure(claim.id, found)):
        return ""
    alt = "The effects that decide, with 95 % intervals: right of zero they support the claim."
    more = " Verdicts follow after Holm's correction, where there are several; every number is below."
    figure = Figure(f"{claim.id}-intervals", alt, "", False, png)
    sources.add_figure(figure.name, png)
    return figure.markdown("../figures", alt + more)


def _history(claim: Claim, found: Mapping[str, list[dict]]) -> list[str]:
    """Every verdict that is known, the oldest first."""
    known, rows = [], []
    if before := before_protocol().get(claim.id):
        commits = ", ".join(f"`{text}`" for text in before["commit"].split())
        known.append(("before the protocol", "", "typefaces", badges(before["verdict"]), commits))
    for name, records in found.items():
        if own := [entry for entry in records if entry["claim"] == claim.id]:
            days = " to ".join(sorted({entry["date"][:10] for entry in own}))
            commits = ", ".join(dict.fromkeys(f"`{entry['machine']['commit'] or 'none'}`" for entry in own))
            images = images_of(name.removesuffix(HERE)) or own[0]["data"].partition(",")[0].lower()
            rows.append((whole(days), f"`{name}`", images, badges(assess_records(claim.id, own).words), commits))
    known += sorted(rows, key=lambda row: row[0])
    if not known:
        return ["Nobody has tested it yet."]
    return ["## Verdicts, the oldest first", table(["measured", "study", "images", "verdict", "commit"], known)]


def _figures(claim: Claim, pages: Mapping[str, CoursePage]) -> str:
    """The figures that findings about the claim follow, and where else it is tested."""
    parts, tested = [], []
    for name, page in pages.items():
        opening = page.cells[0]["source"] if page.cells else ""
        if claim.id in opening.partition("**Claims under test**")[2]:
            tested.append(f"[{page.title}](../notebooks/{name}.ipynb)")
        if figure := page.figure_of(claim.id):
            where = f'<a href="../notebooks/{name}.html#cell-{figure.cell}">in its notebook</a>'
            parts.append(figure.markdown("../figures", f"{figure.caption} ({where})"))
    parts += [f"Tested in {', '.join(tested)}."] if tested else []
    return "\n\n".join(["## Where it is measured", *parts]) if parts else ""


def _commands(claim: Claim, found: Mapping[str, list[dict[str, Any]]], study: str) -> list[str]:
    lines = []
    for name, records in found.items():
        made: dict[str, set[str]] = {}
        for entry in records if name != study else ():  # which is made by what makes this run
            if entry["claim"] == claim.id:
                options = "".join(f" --set {shlex.quote(text)}" for text in entry.get("changes", ()))
                made.setdefault(options, set()).add(entry["notebook"])
        command = command_of(name.removesuffix(HERE))
        lines += [f"{command} --only {' '.join(sorted(notebooks))}{options}" for options, notebooks in made.items()]
    about = "The commands that make these records; what is up to date is not run again."
    return ["## Make it again", about, fence("\n".join(lines), "sh")] if lines else []
