"""Pages of what is kept: verdicts by data set and profile, what decides about each claim, and lines of the README."""

from __future__ import annotations

import html
import itertools
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
from gcplib.lab.study.verdicts import HOLDS, PROTOCOL, UNTESTED, Claim, claims, count_verdicts

__all__ = ["claim_details", "claims_page", "command_of", "deciding", "measured_on", "readme_lines", "verdict_tables"]
__all__ += ["verdicts_page"]

# The profile that anyone can run, whose headline figure the README shows.
STUDY = "study"
RULE = "How a verdict is formed, and what the words say: [how_verdicts_are_formed.md](how_verdicts_are_formed.md)."


def readme_lines() -> str:
    """Return some lines: how many claims have which verdict by the protocol and in a study, and where the rest is."""
    found = {
        images: [assess_records(claim, records).verdict for claim in claims()]
        for images, records in records_by_images().items()
    }
    tested = {images: [word for word in words if word != UNTESTED] for images, words in found.items()}
    by = [f"**{images}**: {len(words)} tested, {count_verdicts(words)}" for images, words in tested.items() if words]
    lines = [f"* By [the protocol](docs/protocol.md), of {len(claims())} claims on {'; '.join(by)}."] if by else []
    lines += [f"* `{STUDY}`: {_counts(records)}."] if (records := kept_records(STUDY)) else []
    rest = "[every effect with its interval](docs/verdicts.md), [which effects decide, and why](docs/claims.md)"
    return "\n".join([*lines, f"* {rest}."])


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
    rows = []
    for claim in claims().values():
        words = [assess_records(claim.id, records).words for records in others.values()]
        rows.append((links[claim.id], claim.text, *map(show, words)))
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
    before, rows = before_protocol(), []
    for claim in claims().values():
        found = {name: _judged(claim.id, records) for name, records in columns.items()}
        tested = [found for found in found.values() if found not in (UNTESTED, "not run")]
        count = f"{sum(words.split(' at ')[0] == HOLDS for words in tested)} of {len(tested)}" if tested else ""
        then = before.get(claim.id, {}).get("verdict", "")
        rows.append((links[claim.id], claim.text, *map(show, found.values()), count, show(then)))
    about = (
        f"Version {PROTOCOL} of [the protocol](protocol.md). *Holds on* counts the data sets on which a claim holds, "
        "at equal stage where it is judged twice, of those on which it was tested. *Before* is the verdict of the "
        "evidence on typefaces that was kept before the protocol, at one stage and by the primary effects of then."
    )
    profiles = {name: PHOTOGRAPHS + f"-{name}" * (name != IMAGES[0]) for name in columns}
    commands = [f"* {name}: `{command_of(profile)}`" for name, profile in profiles.items()]
    fill = "What is not run is filled by these, followed by `report` with the same options and `--keep --keep-tables`:"
    return [about, table(["claim", "", *columns, "holds on", "before"], rows), fill, "\n".join(commands)]


def command_of(study: str) -> str:
    """Return the command that makes a study.

    >>> command_of("photographs-birds")
    'python -m gcplib study --profile photographs --data birds=PATH'
    """
    profile, images = study, ""
    if not (notebooks_dir() / "profiles" / f"{study}.yaml").is_file() and "-" in study:
        profile, _, images = study.rpartition("-")
    return f"python -m gcplib study --profile {profile}" + f" --data {images}=PATH" * bool(images)


def _judged(claim: str, records: Sequence[dict]) -> str:
    """The verdict of what was recorded, if anything was."""
    ran = any(entry["claim"] == claim for entry in records)
    return assess_records(claim, records).words if ran else "not run"


def claims_page() -> str:
    """Return the page that says of every claim which effects decide, and why."""
    parts = []
    for claim in claims().values():
        parts += [f"## {claim.id}", f"**{claim.text}** ({claim.source})", *deciding(claim)]
    return page("The claims, and the effects that decide", RULE, *parts)


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
            (
                html.escape(item.name, quote=False),
                "**primary**" if primary else "",
                f"{item.amount} {item.unit}",
                item.interval,
                item.n,
                _p(p),
            )
            for item, primary, p in found.effects
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
