"""Keep what a study measured: verdicts with their provenance, a figure, and the README's block that shows them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from gcplib.lab.files import around_block, project_root, renew_block, runs_dir, write_atomic
from gcplib.lab.study.claims import UNTESTED, Evidence, claims, read_records, verdict

__all__ = ["keep_evidence", "kept_records", "readme_block"]

BEGIN, END = "<!-- verdicts: written by python -m gcplib report --keep -->", "<!-- end of verdicts -->"
# The profile of many seeds, whose verdicts stand beside those of the profile that anyone can run.
MORE = "evidence"
# The figure of the README: the headline figure of this number in this notebook.
FIGURE = "07_train_fine_grained-02.png"


def keep_evidence(profile: str) -> list[Path]:
    """Copy a finished study's verdicts and headline figure to ``data/evidence`` and renew the README's block.

    Of the profile ``evidence`` the verdicts are kept alone; the block shows them beside those of the profile kept next.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: the study has no records or no figure yet.
        ValueError: a record was made by hand, not by the study, so that its parameters are not the profile's.
    """
    records = read_records(profile)
    figure = runs_dir() / profile / "report" / "figures" / FIGURE
    if not records or (profile != MORE and not figure.is_file()):
        raise FileNotFoundError(f"study {profile!r} has no verdicts or no figure {FIGURE}; run it first")
    if by_hand := [record["notebook"] for record in records if record["by"] != "study"]:
        raise ValueError(f"{sorted(set(by_hand))} ran by hand; run the study {profile!r}, then keep it")
    around_block(BEGIN, END)  # what cannot be shown is not kept
    folder = project_root() / "data" / "evidence"
    verdicts, image = folder / f"{profile}_verdicts.json", folder / "accuracy.png"
    with write_atomic(verdicts) as temporary:
        temporary.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if profile == MORE:
        return [verdicts]
    with write_atomic(image) as temporary:
        shutil.copyfile(figure, temporary)
    return [verdicts, image, renew_block(BEGIN, END, readme_block(records, kept_records(MORE)))]


def kept_records(profile: str) -> list[dict]:
    """Return the records of a profile that are kept in the repository; none if there are none."""
    path = project_root() / "data" / "evidence" / f"{profile}_verdicts.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def readme_block(records: list[dict], more: Sequence[dict] = ()) -> str:
    """Return Markdown: a table of all claims, with verdict and effects to unfold, and what they were measured on.

    Args:
        records: of one profile. more: of the profile of many seeds, for a second column.
    """
    lines = [f"| claim | `{records[0]['profile']}` | with more seeds |", "|---|---|---|"]
    for claim in claims().values():
        cell = _cell(claim.id, records) or f"**{UNTESTED}**: a test takes {claim.takes}"
        lines.append(f"| {claim.id} {claim.text} | {cell} | {_cell(claim.id, more)} |")
    return "\n\n".join(["\n".join(lines), *filter(None, map(_origin, (records, more)))])


def _cell(claim: str, records: Sequence[dict]) -> str:
    """Return a verdict, with the effects behind it to unfold; nothing where there is none."""
    found = [record for record in records if record["claim"] == claim]
    if not found:
        return ""
    effects = [Evidence(**item) for record in found for item in record["evidence"]]
    text = [f"{e.name}: **{e.amount}** {e.unit} {e.interval}, n = {e.n}" for e in effects]
    text.append("On " + "; ".join(dict.fromkeys(record["data"] for record in found)))
    above = f"{sum(effect.low > 0 for effect in effects)} of {len(effects)} above zero"
    return f"**{verdict(effects)}** <details><summary>{above}</summary>{'<br>'.join(text)}</details>"


def _origin(records: Sequence[dict]) -> str:
    if not records:
        return ""
    machine = records[0]["machine"]
    commits = ", ".join(f"`{name}`" for name in dict.fromkeys(record["machine"]["commit"] for record in records))
    days = " to ".join(sorted({record["date"][:10] for record in records}))
    device = f"{machine['cpu']}, {machine['cores']} cores{', ' + machine['gpu'] if machine['gpu'] else ''}"
    return (
        f"Profile `{records[0]['profile']}`: {device}; torch {machine['versions']['torch']}, commit {commits}, {days}."
    )
