"""What was found about a claim, in a sentence that is written from the tables, so that it cannot go stale."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gcplib.lab.study.claims import assess_records
from gcplib.lab.study.evidence import kept_records, records_by_images
from gcplib.lab.study.verdicts import TOO_FEW, UNTESTED, Assessment, claims

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Finding", "finding"]

# The study of typefaces that counts where the protocol has not been run.
FEW_SEEDS = "study", "typefaces, few seeds"


@dataclass(frozen=True)
class Finding:
    """A sentence or two, shown as text by a notebook."""

    text: str

    def __str__(self) -> str:
        return self.text.replace("*", "")

    def _repr_markdown_(self) -> str:
        return self.text


def finding(claim: str, own: pd.DataFrame | None = None) -> Finding:
    """Return what the kept evidence says about a claim, by images, and where one's own run differs.

    Args:
        claim: its id, such as ``C16``.
        own: what ``gcplib.lab.study.record`` has returned for it, if it has been recorded.

    Raises:
        ValueError: there is no such claim.

    >>> str(finding("C06"))
    'C06, Newton-Schulz is much faster than EIG/SVD on a GPU, end to end: nobody has tested it yet.'
    """
    kept = _kept(claim)
    by_words = defaultdict(list)
    for images, found in kept.items():
        by_words[found.words].append(images)
    said = "; ".join(f"**{words}** on {', '.join(images)}" for words, images in by_words.items())
    text = f"**{claim}**, {claims()[claim].text}: {said or 'nobody has tested it yet'}."
    if numbers := _numbers(kept):
        text += f" {numbers}"
    if own is not None and len(own):
        here = own["verdict"].iloc[0]
        beside = f", {'as in' if here in by_words else 'unlike'} the kept evidence"
        if not kept or here.startswith((TOO_FEW, UNTESTED)):  # no verdict, so nothing to agree with
            beside = ""
        text += f" With the numbers of this run: **{here}**{beside}."
    return Finding(text)


def _kept(claim: str) -> dict[str, Assessment]:
    """Assessments by images; that of another study where the protocol has not been run."""
    found = {images: assess_records(claim, records) for images, records in records_by_images().items()}
    tested = {images: judged for images, judged in found.items() if judged.verdict != UNTESTED}
    profile, images = FEW_SEEDS
    if not tested and (few := assess_records(claim, kept_records(profile))).verdict != UNTESTED:
        tested = {images: few}
    return tested


def _numbers(kept: dict[str, Assessment]) -> str:
    """The first primary effect of each."""
    shown = {}
    for images, found in kept.items():
        first = next((item for item, primary, _ in found.effects if primary), None)
        if first is not None:
            shown.setdefault(first.name, []).append(f"{first.amount} {first.unit} {first.interval} on {images}")
    return " ".join(f"{name[:1].upper()}{name[1:]}: {', '.join(values)}." for name, values in shown.items())
