"""Tables of measurements, saved by notebooks and shown by later runs, and of the effects of claims, to read."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gcplib.lab.files import project_root, runs_dir, write_atomic
from gcplib.lab.machine import describe_machine
from gcplib.lab.study.claims import assess_records, check_name
from gcplib.lab.study.evidence import IMAGES, images_of, records_by_images
from gcplib.lab.study.verdicts import UNTESTED, Evidence

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

__all__ = ["effects_table", "evidence_by_images", "evidence_table", "keep_tables", "kept_effects", "save_table"]

# In every row, because rows of several machines may be put together.
PROVENANCE = ("profile", "machine", "torch", "commit")


def save_table(frame: pd.DataFrame, name: str, *, profile: str) -> Path:
    """Write ``runs/<profile>/tables/<name>.csv``, with profile, machine, torch version and commit in every row.

    Raises:
        ValueError: the name is not usable as a file name, the frame is empty, or it has one of those columns already.
    """
    check_name(name=name, profile=profile)
    if frame.empty:
        raise ValueError(f"table {name!r} has no rows; there is nothing to keep")
    if taken := [column for column in PROVENANCE if column in frame]:
        raise ValueError(f"table {name!r} has columns {taken}, which are written here; rename them")
    machine, path = describe_machine(), _folder(profile) / f"{name}.csv"
    where = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores"
    values = (profile, where, machine["versions"].get("torch"), machine["commit"])
    with write_atomic(path) as temporary:
        # Five digits are more than any interval can tell apart, and keep the files small.
        frame.assign(**dict(zip(PROVENANCE, values, strict=True))).to_csv(temporary, index=False, float_format="%.5g")
    return path


def evidence_table(name: str) -> pd.DataFrame | None:
    """Return the table of that name of typefaces that is kept in the repository, with a line on its origin, or None."""
    import pandas as pd

    path = project_root() / "data" / "evidence" / f"{name}@{IMAGES[0]}.csv"
    if not path.is_file():
        print(f"No evidence kept yet: `python -m gcplib study --profile photographs` makes {path.name}.")
        return None
    frame = pd.read_csv(path)
    _say_origin(path.name, frame)
    return frame


def evidence_by_images(name: str) -> pd.DataFrame | None:
    """Return the tables of that name of all data sets, told apart by a column ``images``; None where none is kept."""
    import pandas as pd

    kept = sorted((project_root() / "data" / "evidence").glob(f"{name}@*.csv"))
    frames = {path.stem.split("@")[1]: pd.read_csv(path) for path in kept}
    for path, frame in zip(kept, frames.values(), strict=True):
        _say_origin(path.name, frame)
    return pd.concat(frames, names=["images", ""]).reset_index("images") if frames else None


def _say_origin(name: str, frame: pd.DataFrame) -> None:
    for profile, machine, torch, commit in frame[list(PROVENANCE)].drop_duplicates().itertuples(index=False):
        print(f"Evidence: {name}, profile {profile}, {machine}, torch {torch}, commit {commit}.")


def keep_tables(profile: str) -> list[Path]:
    """Copy the tables of a finished study to ``data/evidence``, from where ``evidence_table`` reads them.

    Those of the protocol's profile are named by their images, such as ``stages@birds.csv``.

    Raises:
        FileNotFoundError: the study has saved no table.
    """
    tables = sorted(_folder(profile).glob("*.csv"))
    if not tables:
        raise FileNotFoundError(f"study {profile!r} has no tables in {_folder(profile)}; run it first")
    images, kept = images_of(profile), []
    for table in tables:
        name = f"{table.stem}@{images}.csv" if images else table.name
        kept.append(project_root() / "data" / "evidence" / name)
        with write_atomic(kept[-1]) as temporary:
            shutil.copyfile(table, temporary)
    return kept


def _folder(profile: str) -> Path:
    return runs_dir() / profile / "tables"


def kept_effects(*claims: str) -> Styler:
    """Return the primary effects of claims in the evidence that is kept by the protocol, with the verdicts that follow.

    Args:
        claims: their ids, such as ``C24``.
    """
    rows = []
    for claim, (images, records) in itertools.product(claims, records_by_images().items()):
        found = assess_records(claim, records)
        shown = [item for item, primary, _ in found.effects if primary and found.verdict != UNTESTED]
        rows += [(claim, images, *_cells(item), found.words) for item in shown]
    return _shown(rows, ["claim", "images", "primary effect", "mean", "95 % interval", "unit", "n", "verdict"])


def effects_table(tables: Iterable[pd.DataFrame]) -> Styler:
    """Return what ``record`` has returned for several claims as one table to read."""
    rows = []
    for table in tables:
        for row in table.to_dict("records"):
            item = Evidence(*(row[key] for key in ("name", "effect", "low", "high", "n", "unit")))
            rows.append((row["claim"], *_cells(item), row["role"], row["verdict"]))
    return _shown(rows, ["claim", "effect", "mean", "95 % interval", "unit", "n", "role", "verdict"])


def _cells(item: Evidence) -> tuple[str, str, str, str, int]:
    return item.name, item.amount, item.interval, item.unit, item.n


def _shown(rows: list[tuple], columns: list[str]) -> Styler:
    import pandas as pd

    left = [{"selector": "th, td", "props": [("text-align", "left")]}]
    return pd.DataFrame(rows, columns=columns).style.hide(axis="index").set_table_styles(left)
