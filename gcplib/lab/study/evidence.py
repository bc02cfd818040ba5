"""What is kept in ``data/evidence`` of what studies measured: effects by profile, and by the images of the protocol."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from gcplib.lab.files import project_root
from gcplib.lab.study.verdicts import PROTOCOL

__all__ = ["before_protocol", "images_of", "kept_path", "kept_profiles", "kept_records", "records_by_images"]

SUFFIX = "_verdicts.json"
# The protocol's profile, and the images that it is about, in docs/protocol.md.
PHOTOGRAPHS, IMAGES = "photographs", ("typefaces", "birds", "cars", "groceries", "scenes")


def kept_records(profile: str) -> list[dict]:
    """Return the records of a profile that are kept in the repository; none if there are none."""
    path = kept_path(profile)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def kept_profiles() -> list[str]:
    """Return the names of the profiles of which something is kept."""
    return sorted(path.name.removesuffix(SUFFIX) for path in kept_path("").parent.glob(f"*{SUFFIX}"))


def records_by_images() -> dict[str, list[dict]]:
    """Return what is kept of studies by the protocol of today, by the name of their images; some may have nothing."""
    found: dict[str, list[dict]] = {name: [] for name in IMAGES}
    for profile in kept_profiles():
        if images := images_of(profile):
            found[images] = [record for record in kept_records(profile) if record.get("protocol") == PROTOCOL]
    return found


def images_of(profile: str) -> str:
    """Return the name of the images of a study by the protocol, and nothing for another study.

    >>> images_of("photographs-birds"), images_of("photographs"), images_of("study")
    ('birds', 'typefaces', '')
    """
    name, _, images = profile.partition("-")
    return (images or IMAGES[0]) if name == PHOTOGRAPHS else ""


def before_protocol() -> dict[str, dict[str, str]]:
    """Return what the evidence on typefaces said before the protocol, at one stage and by the effects of then."""
    path = kept_path("").with_name("before_protocol.csv")
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
    return {row["claim"]: row for row in rows}


def kept_path(profile: str) -> Path:
    """Return the file of what is kept of a profile."""
    return project_root() / "data" / "evidence" / f"{profile}{SUFFIX}"
