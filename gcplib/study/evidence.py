"""Keep what a study measured: verdicts with their provenance, a figure, and the README's block that shows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from gcplib.files import around_block, project_root, renew_block, runs_dir, write_atomic
from gcplib.study.claims import UNTESTED, Evidence, claims, read_records, verdict

__all__ = ["keep_evidence", "readme_block"]

BEGIN, END = "<!-- verdicts: written by python -m gcplib report --keep -->", "<!-- end of verdicts -->"
# The figure of the README: the headline figure of this number in this notebook.
FIGURE = "07_train_fine_grained-02.png"


def keep_evidence(profile: str) -> list[Path]:
    """Copy a finished study's verdicts and headline figure to ``data/evidence`` and renew the README's block.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: the study has no records or no figure yet.
        ValueError: a record was made by hand, not by the study, so that its parameters are not the profile's.
    """
    records = read_records(profile)
    figure = runs_dir() / profile / "report" / "figures" / FIGURE
    if not records or not figure.is_file():
        raise FileNotFoundError(f"study {profile!r} has no verdicts or no figure {FIGURE}; run it first")
    if by_hand := [record["notebook"] for record in records if record["by"] != "study"]:
        raise ValueError(f"{sorted(set(by_hand))} ran by hand; run the study {profile!r}, then keep it")
    around_block(BEGIN, END)  # what cannot be shown is not kept
    folder = project_root() / "data" / "evidence"
    verdicts, picture = folder / f"{profile}_verdicts.json", folder / "accuracy.png"
    with write_atomic(verdicts) as temporary:
        temporary.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with write_atomic(picture) as temporary:
        shutil.copyfile(figure, temporary)
    return [verdicts, picture, renew_block(BEGIN, END, readme_block(records))]


def readme_block(records: list[dict]) -> str:
    """Return the records as the Markdown of the README: a table of all claims, with the effects of each to unfold."""
    lines = ["| claim | verdict | measured effects, 95 % intervals |", "|---|---|---|"]
    for claim in claims().values():
        found = [record for record in records if record["claim"] == claim.id]
        if not found:
            lines.append(f"| {claim.id} {claim.text} | **{UNTESTED}** | a test takes {claim.takes} |")
            continue
        effects = [Evidence(**item) for record in found for item in record["evidence"]]
        above = sum(effect.low > 0 for effect in effects)
        text = [f"{e.name}: **{e.amount}** {e.unit} {e.interval}, n = {e.n}" for e in effects]
        text.append("On " + "; ".join(dict.fromkeys(record["data"] for record in found)))
        of = f"{above} of {len(effects)} above zero" if len(effects) > 1 else text.pop(0)
        cell = f"<details><summary>{of}</summary>{'<br>'.join(text)}</details>"
        lines.append(f"| {claim.id} {claim.text} | **{verdict(effects)}** | {cell} |")
    first = records[0]
    machine = first["machine"]
    commits = ", ".join(f"`{name}`" for name in dict.fromkeys(record["machine"]["commit"] for record in records))
    lines += [
        "",
        f"Profile `{first['profile']}`. {machine['cpu']}, {machine['cores']} cores"
        f"{', ' + machine['gpu'] if machine['gpu'] else ''}; "
        f"torch {machine['versions']['torch']}, commit {commits}, {first['date'][:10]}.",
    ]
    return "\n".join(lines)
