"""Pages of what is kept: verdicts by data set and profile, what decides about each claim, and lines of the README."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Mapping, Sequence

from gcplib.lab.machine import machine_line
from gcplib.lab.markdown import page, table
from gcplib.lab.study.accuracies import accuracies
from gcplib.lab.study.claims import assess_records
from gcplib.lab.study.evidence import (
    IMAGES,
    PHOTOGRAPHS,
    before_protocol,
    images_of,
    kept_path,
    kept_profiles,
    kept_records,
    records_by_images,
)
from gcplib.lab.study.notebooks import notebooks_dir
from gcplib.lab.study.verdicts import COUNTED, HOLDS, PROTOCOL, UNTESTED, Claim, Evidence, claims, count_verdicts

__all__ = ["HEADLINES", "claim_details", "claims_page", "command_of", "deciding", "measured_on", "readme_lines"]
__all__ += ["verdict_tables", "verdicts_page"]

# The profile that anyone can run, whose headline figure the README shows.
STUDY = "study"
CHOSEN = "root of the stage chosen on validation images minus the best average, fine labels"
# What the README shows of the protocol's effects, all of fine labels: in words, the claim, and the effect's name.
HEADLINES = (
    ("root over average, both of the last stage", "C01", "root minus average, stride 32, fine labels"),
    ("the same, vectors equally long", "C01", "root as long as the average minus it, stride 32, fine labels"),
    ("root over the best average of any stage", "C01", CHOSEN),
    ("root over plain covariance, both of the last stage", "C02", "root minus covariance, stride 32, fine labels"),
    ("Newton-Schulz over exact root", "C08", "Newton-Schulz minus exact root, fine labels"),
    ("small eigenvalues kept over cut, gradient as released", "C16", "exact root minus svd_top_n, fine labels"),
    ("small eigenvalues kept over cut, exact gradient", "C16", "exact root minus truncated, fine labels"),
    ("Scaling Eigen Branch (SEB), as released, over none", "C19", "SEB minus exact root, fine labels"),
)
WORDS = tuple(COUNTED)[:4]  # of a claim that was tested, with seeds enough
RULE = "How a verdict is formed, and what the words say: [how_verdicts_are_formed.md](how_verdicts_are_formed.md)."


def readme_lines() -> str:
    """Return the headline effects and verdicts by data set, the verdicts of a study, and where the rest is."""
    columns = {images: records for images, records in records_by_images().items() if records}
    lines = []
    if columns:
        heads = ["points of test accuracy gained on fine labels, with 95 % intervals", *columns]
        rows = [[words, *(_effect(*of, id, name) for of in columns.items())] for words, id, name in HEADLINES]
        words = {id: [assess_records(claim, kept).verdict for claim in claims()] for id, kept in columns.items()}
        counts = [" / ".join(str(found.count(word)) for word in WORDS) for found in words.values()]
        rows.append([f"of {len(claims())} claims: {' / '.join(WORDS)}", *counts])
        by = "Read from a frozen EfficientNet-Lite0, tuned alike, by [a protocol](docs/protocol.md) set before:"
        lines = [by, "", *table(heads, rows).splitlines(), ""]
    lines += [f"* `{STUDY}`: {_counts(records)}."] if (records := kept_records(STUDY)) else []
    rest = "[every effect with its interval](docs/verdicts.md), [which effects decide, and why](docs/claims.md)"
    return "\n".join([*lines, f"* {rest}."])


def _effect(images: str, records: Sequence[dict], claim: str, name: str) -> str:
    """An effect of this name with its interval, or that it was not measured; nothing where nobody asks."""
    items = (item for entry in records if entry["claim"] == claim for item in entry["evidence"])
    found = [Evidence(**item) for item in items if item["name"] == name]
    if found:
        return f"{found[0].amount} {found[0].interval}"
    return "not run" if images in claims()[claim].images else ""


def verdicts_page() -> str:
    """Return the page of what is kept: claims by data set, then of other profiles, and below every effect."""
    kept = {name: kept_records(name) for name in kept_profiles()}
    details = {claim.id: _section(claim, kept) for claim in claims().values()}
    links = {id: f"[{id}]({'' if found else 'claims.md'}#{id.lower()})" for id, found in details.items()}
    parts = [*verdict_tables(links), *itertools.chain(*details.values()), *measured_on()]
    return page("Verdicts", RULE, *parts)


def verdict_tables(links: Mapping[str, str], show: Callable[[str], str] = str) -> list[str]:
    """Return the claims by data set, what probes read, and the claims by other profiles.

    Args:
        links: what stands for each claim.
        show: what stands for a verdict.
    """
    kept = {name: kept_records(name) for name in kept_profiles()}
    others = {name: records for name, records in kept.items() if not images_of(name)}
    words = {id: [show(assess_records(id, records).words) for records in others.values()] for id in claims()}
    rows = [(links[id], claim.text, *words[id]) for id, claim in claims().items()]
    parts = ["\n".join(f"* `{name}`: {_counts(records)}." for name, records in kept.items())]
    parts += ["## By the protocol", *_by_images(links, show)]
    parts += accuracies(kept_path("").parent, list(records_by_images()))
    return [*parts, "## Other profiles", table(["claim", "", *(f"`{name}`" for name in others)], rows)]


def measured_on() -> list[str]:
    """Return of what machine, version and commit everything is that is kept."""
    return ["## Measured on", "\n".join(f"* {_origin(name, kept_records(name))}" for name in kept_profiles())]


def _by_images(links: Mapping[str, str], show: Callable[[str], str]) -> list[str]:
    """The claims by data set, with what was known before the protocol, and the commands that fill the table."""
    columns = records_by_images()
    before, rows, lacking = before_protocol(), [], {name: set[str]() for name in columns}
    for claim in claims().values():
        found = {name: _judged(claim, name, records) for name, records in columns.items()}
        for name in (name for name, words in found.items() if words == "not run"):
            lacking[name].add(re.search(r"\d\d_\w+", claim.takes)[0])
        tested = [found for found in found.values() if found not in (UNTESTED, "not run", "")]
        count = f"{sum(words.split(' at ')[0] == HOLDS for words in tested)} of {len(tested)}" if tested else ""
        then = before.get(claim.id, {}).get("verdict", "")
        rows.append((links[claim.id], claim.text, *map(show, found.values()), count, show(then)))
    about = (
        f"Version {PROTOCOL} of [the protocol](protocol.md). *Holds on* counts the data sets on which a claim holds, "
        "at equal stage where it is judged twice, of those on which it was tested; where a cell is empty, the protocol "
        "does not ask. *Before* is the verdict of the evidence on typefaces that was kept before the protocol, at one "
        "stage and by the primary effects of then."
    )
    profiles = {name: PHOTOGRAPHS + f"-{name}" * (name != IMAGES[0]) for name in columns}
    commands = [
        f"* {name}: `{command_of(profiles[name])} --only {' '.join(sorted(names))}`"
        for name, names in lacking.items()
        if names
    ]
    fill = "What is not run is filled by these, followed by `report` with the same options and `--keep --keep-tables`:"
    parts = [about, table(["claim", "", *columns, "holds on", "before"], rows)]
    return [*parts, fill, "\n".join(commands)] if commands else parts


def command_of(study: str) -> str:
    """Return the command that makes a study.

    >>> command_of("photographs-birds")
    'python -m gcplib study --profile photographs --data birds=PATH'
    """
    profile, images = study, ""
    if not (notebooks_dir() / "profiles" / f"{study}.yaml").is_file() and "-" in study:
        profile, _, images = study.rpartition("-")
    return f"python -m gcplib study --profile {profile}" + f" --data {images}=PATH" * bool(images)


def _judged(claim: Claim, images: str, records: Sequence[dict]) -> str:
    """The verdict of what was recorded, if anything was, or that it was not run; nothing where nobody asks."""
    if any(entry["claim"] == claim.id for entry in records):
        return assess_records(claim.id, records).words
    return "not run" if images in claim.images else ""


def claims_page() -> str:
    """Return the page that says of every claim which effects decide, and why."""
    found = ((f"## {c.id}", f"**{c.text}** ({c.source})", *deciding(c)) for c in claims().values())
    return page("The claims, and the effects that decide", RULE, *itertools.chain(*found))


def deciding(claim: Claim) -> list[str]:
    """Return the effects that decide about a claim, why these, and what a test takes."""
    parts = ["\n".join(f"* `{pattern}`" for pattern in claim.primary)]
    if claim.strongest:
        names = "\n".join(f"* `{pattern}`" for pattern in claim.strongest)
        parts += ["And by themselves, against the strongest average:", names]
    return [*parts, claim.why, f"A test takes {claim.takes}."]


def claim_details(claim: Claim, kept: dict[str, list[dict]]) -> list[str]:
    """Return per profile the verdict of a claim and its effects; nothing where nothing was measured."""
    parts = []
    for name, records in kept.items():
        found, own = assess_records(claim.id, records), [entry for entry in records if entry["claim"] == claim.id]
        if not own:
            continue
        data = "; ".join(dict.fromkeys(entry["data"] for entry in own))
        rows = [
            (html.escape(e.name, quote=False), "**primary**" * first, f"{e.amount} {e.unit}", e.interval, e.n, _p(p))
            for e, first, p in found.effects
        ]
        parts += [f"`{name}`: **{found.words}**, on {data}."]
        parts += [table(["effect", "", "size", "95 % interval", "n", "corrected p"], rows)]
        parts += [f"Not measured: {', '.join(f'`{text}`' for text in found.missing)}."] if found.missing else []
        parts += ["\n".join(f"* {entry['notebook']}: {entry['note']}." for entry in own if entry["note"])]
    return parts


def _section(claim: Claim, kept: dict[str, list[dict]]) -> list[str]:
    title = f"{claim.text} ({claim.source}; [what decides](claims.md#{claim.id.lower()}))"
    parts = claim_details(claim, kept)
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
