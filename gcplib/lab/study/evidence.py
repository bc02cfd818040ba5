"""Keep what a study measured, and show it: the pages of verdicts and of claims, and three lines of the README."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from gcplib.lab.files import project_root, runs_dir, write_atomic, write_json, write_text
from gcplib.lab.machine import machine_line
from gcplib.lab.markdown import page, table
from gcplib.lab.study.claims import assess_records, read_records
from gcplib.lab.study.verdicts import Claim, claims, count_verdicts

__all__ = ["claims_page", "keep_evidence", "kept_records", "readme_lines", "verdicts_page", "with_lines"]

BEGIN, END = "<!-- verdicts: written by `python -m gcplib report --keep` -->", "<!-- end of verdicts -->"
# Of the README: the profile of many seeds and the one that anyone can run, whose headline figure it shows.
PROFILES = ("evidence", "study")
SUFFIX = "_verdicts.json"
FIGURE = "07_train_fine_grained-02.png"

RULE = "How a verdict is formed, and what the words say: [how_verdicts_are_formed.md](how_verdicts_are_formed.md)."


def keep_evidence(profile: str) -> list[Path]:
    """Keep a study: verdicts and figure in ``data/evidence``, the page of verdicts, three lines of the README.

    The figure is that of the profile ``study``.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: the study has no records or no figure yet.
        ValueError: a record was made by hand, not by the study, so that its parameters are not the profile's.
    """
    records = read_records(profile)
    figure = runs_dir() / profile / "report" / "figures" / FIGURE
    with_figure = profile == PROFILES[1]
    if not records or (with_figure and not figure.is_file()):
        raise FileNotFoundError(f"study {profile!r} has no verdicts or no figure {FIGURE}; run it first")
    if by_hand := [record["notebook"] for record in records if record["by"] != "study"]:
        raise ValueError(f"{sorted(set(by_hand))} ran by hand; run the study {profile!r}, then keep it")
    readme = project_root() / "README.md"
    before = readme.read_text(encoding="utf-8")
    with_lines(before, "")  # what cannot be shown is not kept
    written = [write_json(_kept_path(profile), records)]
    if with_figure:
        written.append(written[0].with_name("accuracy.png"))
        with write_atomic(written[-1]) as temporary:
            shutil.copyfile(figure, temporary)
    written.append(write_text(project_root() / "docs" / "verdicts.md", verdicts_page()))
    return [*written, write_text(readme, with_lines(before, readme_lines()))]


def kept_records(profile: str) -> list[dict]:
    """Return the records of a profile that are kept in the repository; none if there are none."""
    path = _kept_path(profile)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def readme_lines() -> str:
    """Return three lines: how many claims have which verdict in both profiles, and where the rest is."""
    lines = [f"* `{name}`: {_counts(records)}." for name in PROFILES if (records := kept_records(name))]
    rest = "[every effect with its interval](docs/verdicts.md), [which effects decide, and why](docs/claims.md)"
    return "\n".join([*lines, f"* {rest}."])


def verdicts_page() -> str:
    """Return the page of what is kept: a table of all claims, and below every effect with its interval."""
    names = [path.name.removesuffix(SUFFIX) for path in _kept_path("").parent.glob(f"*{SUFFIX}")]
    kept = {name: kept_records(name) for name in sorted(names)}
    details = {claim.id: _details(claim, kept) for claim in claims().values()}
    rows = []
    for claim in claims().values():
        link = f"[{claim.id}]({'' if details[claim.id] else 'claims.md'}#{claim.id.lower()})"
        rows.append((link, claim.text, *(assess_records(claim.id, records).words for records in kept.values())))
    summary = "\n".join(f"* `{name}`: {_counts(records)}." for name, records in kept.items())
    overview = table(["claim", "", *(f"`{name}`" for name in kept)], rows)
    origins = [f"* {_origin(name, records)}" for name, records in kept.items()]
    parts = ("## All claims", overview, *itertools.chain(*details.values()), "## Measured on", "\n".join(origins))
    return page("Verdicts", RULE, summary, *parts)


def claims_page() -> str:
    """Return the page that says of every claim which effects decide, and why."""
    parts = []
    for claim in claims().values():
        names = "\n".join(f"* `{pattern}`" for pattern in claim.primary)
        parts += [f"## {claim.id}", f"**{claim.text}** ({claim.source})", names]
        if claim.strongest:
            names = "\n".join(f"* `{pattern}`" for pattern in claim.strongest)
            parts += ["And by themselves, against the strongest average:", names]
        parts += [claim.why]
        parts += [f"A test takes {claim.takes}."]
    return page("The claims, and the effects that decide", RULE, *parts)


def with_lines(readme: str, body: str) -> str:
    """Return the text of the README with other lines of verdicts.

    Raises:
        ValueError: it does not hold each of the two markers once.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md must hold the lines {BEGIN!r} and {END!r} once each")
    return f"{readme.split(BEGIN)[0]}{BEGIN}\n{body}\n{END}{readme.split(END)[1]}"


def _details(claim: Claim, kept: dict[str, list[dict]]) -> list[str]:
    """The section of one claim: per profile its verdict and effects; nothing where nothing was measured."""
    parts = []
    for name, records in kept.items():
        found, own = assess_records(claim.id, records), [entry for entry in records if entry["claim"] == claim.id]
        if not own:
            continue
        data = "; ".join(dict.fromkeys(entry["data"] for entry in own))
        rows = [
            (item.name, "**primary**" if primary else "", f"{item.amount} {item.unit}", item.interval, item.n, _p(p))
            for item, primary, p in found.effects
        ]
        parts += [f"`{name}`: **{found.words}**, on {data}."]
        parts += [table(["effect", "", "size", "95 % interval", "n", "corrected p"], rows)]
        parts += [f"Not measured: {', '.join(f'`{text}`' for text in found.missing)}."] if found.missing else []
        parts += ["\n".join(f"* {entry['notebook']}: {entry['note']}." for entry in own if entry["note"])]
    title = f"{claim.text} ({claim.source}; [what decides](claims.md#{claim.id.lower()}))"
    return [f"## {claim.id}", title, *parts] if parts else []


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _counts(records: Sequence[dict]) -> str:
    words = [assess_records(claim, records).verdict for claim in claims()]
    return f"of {len(words)} claims, {count_verdicts(words)}"


def _origin(name: str, records: Sequence[dict]) -> str:
    machine = records[0]["machine"]
    commits = ", ".join(dict.fromkeys(f"`{record['machine']['commit'] or 'none'}`" for record in records))
    days = " to ".join(sorted({record["date"][:10] for record in records}))
    return f"`{name}`: {machine_line(machine)}; torch {machine['versions']['torch']}; commit {commits}; {days}."


def _kept_path(profile: str) -> Path:
    return project_root() / "data" / "evidence" / f"{profile}{SUFFIX}"
