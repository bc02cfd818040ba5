"""Keep what a study measured, and show it: the pages of verdicts and of claims, and three lines of the README."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from gcplib.lab.files import project_root, runs_dir, write_atomic, write_json, write_text
from gcplib.lab.machine import machine_line
from gcplib.lab.markdown import page, table
from gcplib.lab.study.accuracies import accuracies
from gcplib.lab.study.claims import assess_records, read_records
from gcplib.lab.study.verdicts import HOLDS, PROTOCOL, UNTESTED, Claim, claims, count_verdicts

__all__ = [
    "claims_page",
    "images_of",
    "keep_evidence",
    "kept_records",
    "readme_lines",
    "records_by_images",
    "verdicts_page",
    "with_lines",
]

BEGIN, END = "<!-- verdicts: written by `python -m gcplib report --keep` -->", "<!-- end of verdicts -->"
# Of the README: the profile of many seeds, and the one that anyone can run, whose headline figure it shows.
PROFILES = ("evidence", "study")
SUFFIX = "_verdicts.json"
FIGURE = "07_train_fine_grained-02.png"

# The protocol's profile, and the images that it is about, in docs/protocol.md.
PHOTOGRAPHS, IMAGES = "photographs", ("typefaces", "birds", "cars", "groceries", "scenes")

RULE = "How a verdict is formed, and what the words say: [how_verdicts_are_formed.md](how_verdicts_are_formed.md)."


def keep_evidence(profile: str) -> list[Path]:
    """Keep a study: verdicts and figure in ``data/evidence``, the page of verdicts, three lines of the README.

    The figure is that of the profile ``study``. What is kept of notebooks that did not run stays: a study of many
    hours is made part by part. Each record has the commit that it is of.

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
    ran = {record["notebook"] for record in records}
    records += [record for record in kept_records(profile) if record["notebook"] not in ran]
    records.sort(key=lambda record: (record["claim"], record["notebook"]))
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
    """Return three lines: how many claims have which verdict by the protocol and in a study, and where the rest is."""
    found = {
        images: [assess_records(claim, records).verdict for claim in claims()]
        for images, records in records_by_images().items()
    }
    tested = {images: [word for word in words if word != UNTESTED] for images, words in found.items()}
    by = [f"**{images}**: {len(words)} tested, {count_verdicts(words)}" for images, words in tested.items() if words]
    lines = [f"* By [the protocol](docs/protocol.md), of {len(claims())} claims on {'; '.join(by)}."] if by else []
    # Until the protocol has been run, there is what was measured before it.
    lines += [f"* `{name}`: {_counts(records)}." for name in PROFILES[bool(by) :] if (records := kept_records(name))]
    rest = "[every effect with its interval](docs/verdicts.md), [which effects decide, and why](docs/claims.md)"
    return "\n".join([*lines, f"* {rest}."])


def images_of(profile: str) -> str:
    """Return the name of the images of a study by the protocol, and nothing for another study.

    >>> images_of("photographs-birds"), images_of("photographs"), images_of("study")
    ('birds', 'typefaces', '')
    """
    name, _, images = profile.partition("-")
    return (images or IMAGES[0]) if name == PHOTOGRAPHS else ""


def verdicts_page() -> str:
    """Return the page of what is kept: claims by data set, then of other profiles, and below every effect."""
    kept = {name: kept_records(name) for name in _kept_profiles()}
    others = {name: records for name, records in kept.items() if not images_of(name)}
    details = {claim.id: _details(claim, kept) for claim in claims().values()}
    links = {id: f"[{id}]({'' if found else 'claims.md'}#{id.lower()})" for id, found in details.items()}
    rows = [
        (links[claim.id], claim.text, *(assess_records(claim.id, records).words for records in others.values()))
        for claim in claims().values()
    ]
    summary = "\n".join(f"* `{name}`: {_counts(records)}." for name, records in kept.items())
    origins = [f"* {_origin(name, records)}" for name, records in kept.items()]
    parts = ["## By the protocol", *_by_images(links)]
    parts += accuracies(_kept_path("").parent, list(records_by_images()))
    parts += ["## Other profiles", table(["claim", "", *(f"`{name}`" for name in others)], rows)]
    parts += [*itertools.chain(*details.values()), "## Measured on", "\n".join(origins)]
    return page("Verdicts", RULE, summary, *parts)


def records_by_images() -> dict[str, list[dict]]:
    """Return what is kept of studies by the protocol of today, by the name of their images; some may have nothing."""
    found: dict[str, list[dict]] = {name: [] for name in IMAGES}
    for profile in _kept_profiles():
        if images := images_of(profile):
            found[images] = [record for record in kept_records(profile) if record.get("protocol") == PROTOCOL]
    return found


def _kept_profiles() -> list[str]:
    return sorted(path.name.removesuffix(SUFFIX) for path in _kept_path("").parent.glob(f"*{SUFFIX}"))


def _by_images(links: dict[str, str]) -> list[str]:
    """The claims by data set, with what the evidence before the protocol said, and the commands that fill the table."""
    columns = records_by_images()
    path, before = _kept_path("").with_name("before_protocol.csv"), {}
    if path.is_file():
        before = {row["claim"]: row["verdict"] for row in csv.DictReader(path.read_text("utf-8").splitlines())}
    rows = []
    for claim in claims().values():
        found = {name: _judged(claim.id, records) for name, records in columns.items()}
        tested = [found for found in found.values() if found not in (UNTESTED, "not run")]
        count = f"{sum(words.split(' at ')[0] == HOLDS for words in tested)} of {len(tested)}" if tested else ""
        rows.append((links[claim.id], claim.text, *found.values(), count, before.get(claim.id, "")))
    about = (
        f"Version {PROTOCOL} of [the protocol](protocol.md). *Holds on* counts the data sets on which a claim holds, "
        "at equal stage where it is judged twice, of those on which it was tested. *Before* is the verdict of the "
        "evidence on typefaces that was kept before the protocol, at one stage and by the primary effects of then."
    )
    start = f"python -m gcplib study --profile {PHOTOGRAPHS}"
    commands = [f"* {name}: `{start}{'' if name == IMAGES[0] else f' --data {name}=PATH'}`" for name in columns]
    fill = "What is not run is filled by these, followed by `report` with the same options and `--keep --keep-tables`:"
    return [about, table(["claim", "", *columns, "holds on", "before"], rows), fill, "\n".join(commands)]


def _judged(claim: str, records: Sequence[dict]) -> str:
    """The verdict of what was recorded, if anything was."""
    ran = any(entry["claim"] == claim for entry in records)
    return assess_records(claim, records).words if ran else "not run"


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
