"""What notebooks record about the claims of the papers."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gcplib.lab.files import runs_dir, write_json
from gcplib.lab.machine import describe_machine
from gcplib.lab.study.verdicts import PROTOCOL, UNTESTED, Assessment, Evidence, assess

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["assess_records", "check_name", "forget_claims", "read_records", "record"]


def record(
    claim: str, evidence: Evidence | Iterable[Evidence], *, notebook: str, profile: str, data: str, note: str = ""
) -> pd.DataFrame:
    """Write what a notebook measured about a claim, and return it as a table with one row per effect.

    The file is ``runs/<profile>/claims/<claim>-<notebook>.json``; recording again replaces it. ``p`` is corrected, and
    empty for secondary effects; the verdict is that of these effects alone, without those of other notebooks.

    Args:
        claim: id of the claim, such as ``"C01"``.
        evidence: the measured effects.
        notebook: name of the notebook, without ``.ipynb``.
        profile: name of the profile, as the notebook received it.
        data: the data it was measured on, in words.
        note: what a reader should know beside the numbers.

    Raises:
        ValueError: the claim does not exist, there is no evidence, or a name is not usable as a file name.
    """
    import pandas as pd  # here, because the runner and the command line need no pandas

    found = assess(claim, evidence)
    if not found.effects:
        raise ValueError("a claim needs at least one Evidence; leave it unrecorded if it was not tested")
    check_name(notebook=notebook, profile=profile)
    document = {
        "claim": claim,
        "protocol": PROTOCOL,
        "notebook": notebook,
        "profile": profile,
        "data": data,
        "note": note,
        "evidence": [asdict(item) for item, *_ in found.effects],
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        # A notebook run by hand may have had other numbers in it than the profile's: the report says which it was.
        "by": "study" if os.environ.get("GCPLIB_STUDY") else "hand",
        "changes": json.loads(os.environ.get("GCPLIB_CHANGES", "[]")),  # of parameters, to make it again
        "machine": describe_machine(),
    }
    write_json(_folder(profile) / f"{claim}-{notebook}.json", document)
    word = f"{UNTESTED}: none of these is a primary effect" if found.words == UNTESTED else found.words
    rows = [
        {"claim": claim, **asdict(item), "role": "primary" if primary else "secondary", "p": p, "verdict": word}
        for item, primary, p in found.effects
    ]
    return pd.DataFrame(rows)


def check_name(**names: str) -> None:
    """Raise ``ValueError`` for a name that is not usable as a file name."""
    for label, name in names.items():
        if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
            raise ValueError(f"{label} must be a plain name such as '07_train_fine_grained', got {name!r}")


def forget_claims(profile: str, notebook: str) -> None:
    """Remove what a notebook recorded before, so that nothing outlives the run that measured it."""
    for path in _folder(profile).glob(f"C*-{notebook}.json"):
        path.unlink(missing_ok=True)


def read_records(profile: str) -> list[dict]:
    """Return every record of a profile, in order of claim and notebook."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(_folder(profile).glob("C*-*.json"))]


def assess_records(claim: str, records: Iterable[dict]) -> Assessment:
    """Return the assessment of a claim over all that was recorded about it."""
    items = (item for entry in records if entry["claim"] == claim for item in entry["evidence"])
    return assess(claim, [Evidence(**item) for item in items])


def _folder(profile: str) -> Path:
    return runs_dir() / profile / "claims"
