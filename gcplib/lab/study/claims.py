"""The claims of the papers, and the verdicts that measurements give them.

A claim is recorded by a notebook with one or more measured effects, each with a 95 % interval; the verdict follows
from the intervals by one fixed rule, so nobody words it by hand.
"""

from __future__ import annotations

import csv
import datetime
import functools
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gcplib.lab.files import runs_dir, write_atomic
from gcplib.lab.machine import describe_machine

if TYPE_CHECKING:
    import pandas as pd

    from gcplib.lab.analysis import Interval

__all__ = ["Claim", "Evidence", "claims", "claims_table", "forget_claims", "read_records", "record", "verdict"]

HOLDS, PARTLY, UNDECIDED, FAILS = "holds", "holds in part", "undecided here", "does not hold here"
UNTESTED = "not tested"


@dataclass(frozen=True)
class Claim:
    """One claim: its id (``C01`` to ``C31``), the paper it comes from, its text, and what a test of it takes."""

    id: str
    source: str
    text: str
    takes: str


@functools.cache
def claims() -> dict[str, Claim]:
    """Return every claim under test, by id."""
    with open(Path(__file__).with_name("claims.csv"), encoding="utf-8", newline="") as file:
        return {row["id"]: Claim(**row) for row in csv.DictReader(file)}


@dataclass(frozen=True)
class Evidence:
    """One measured effect, signed so that a positive number supports the claim.

    Args:
        name: what was measured, in words ("root minus average, fine labels").
        effect: the effect itself.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        n: the number of seeds, or of other independent units, behind it.
        unit: of the effect; percentage points by default.

    Raises:
        ValueError: a number is not finite, the effect lies outside its interval, or ``n`` is below 1.
    """

    name: str
    effect: float
    low: float
    high: float
    n: int
    unit: str = "points"

    def __post_init__(self) -> None:
        for field in ("effect", "low", "high"):
            value = float(getattr(self, field))  # a NumPy or torch scalar would not survive JSON
            if not math.isfinite(value):
                raise ValueError(f"evidence {self.name!r}: {field} must be finite, got {value}")
            object.__setattr__(self, field, value)
        if not self.low <= self.effect <= self.high:
            numbers = f"{self.low}, {self.effect}, {self.high}"
            raise ValueError(f"evidence {self.name!r}: expected low <= effect <= high, got {numbers}")
        if int(self.n) != self.n or self.n < 1:
            raise ValueError(f"evidence {self.name!r}: n must be an integer of at least 1, got {self.n}")
        object.__setattr__(self, "n", int(self.n))

    @classmethod
    def of(cls, name: str, interval: Interval, unit: str = "points") -> Evidence:
        """Make evidence of an interval (``gcplib.lab.analysis.mean_interval`` or ``paired_difference``)."""
        return cls(name, interval.mean, interval.low, interval.high, interval.n, unit)

    @property
    def amount(self) -> str:
        """The effect as text with its sign, such as ``+19.0``."""
        return self._text(self.effect, sign="+")

    @property
    def interval(self) -> str:
        """The interval as text, such as ``[17.5, 20.5]``."""
        return f"[{self._text(self.low)}, {self._text(self.high)}]"

    def _text(self, value: float, sign: str = "") -> str:
        # As many decimals as the interval can tell apart: two digits of its width.
        width = self.high - self.low or abs(self.effect) or 1.0
        return f"{value:{sign}.{max(0, 1 - math.floor(math.log10(width)))}f}".replace("-", "\N{MINUS SIGN}")

    def __str__(self) -> str:
        return f"{self.name}: {self.amount} {self.unit} {self.interval}, n = {self.n}"


def verdict(evidence: Evidence | Iterable[Evidence]) -> str:
    """Return the verdict that the intervals give.

    ``holds`` if every interval lies above 0, ``holds in part`` if at least one does. If none does, ``undecided here``
    where every interval reaches 0, so that nothing was shown either way, and ``does not hold here`` otherwise.

    >>> verdict([Evidence("a", 2, 1, 3, n=5), Evidence("b", 0.5, -1, 2, n=5)])
    'holds in part'
    >>> verdict(Evidence("c", 5, -25, 35, n=3))
    'undecided here'
    """
    evidence = _as_tuple(evidence)
    above = [item.low > 0 for item in evidence]
    if any(above):
        return HOLDS if all(above) else PARTLY
    return FAILS if any(item.high < 0 for item in evidence) else UNDECIDED


def _as_tuple(evidence: Evidence | Iterable[Evidence]) -> tuple[Evidence, ...]:
    items = (evidence,) if isinstance(evidence, Evidence) else tuple(evidence)
    if not items:
        raise ValueError("a claim needs at least one Evidence; leave it unrecorded if it was not tested")
    if wrong := [item for item in items if not isinstance(item, Evidence)]:
        raise ValueError(f"expected Evidence, got {type(wrong[0]).__name__}: {wrong[0]!r}")
    return items


def record(
    claim: str, evidence: Evidence | Iterable[Evidence], *, notebook: str, profile: str, data: str, note: str = ""
) -> pd.DataFrame:
    """Write what a notebook measured about a claim, and return it as a table with one row an effect.

    The file is ``runs/<profile>/claims/<claim>-<notebook>.json``; recording again replaces it.

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
    if claim not in claims():
        raise ValueError(f"no claim {claim!r}; the claims are {', '.join(claims())}")
    for label, name in (("notebook", notebook), ("profile", profile)):
        if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
            raise ValueError(f"{label} must be a plain name such as '07_train_fine_grained', got {name!r}")
    items = _as_tuple(evidence)
    document = {
        "claim": claim,
        "notebook": notebook,
        "profile": profile,
        "data": data,
        "note": note,
        "evidence": [asdict(item) for item in items],
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        # A notebook run by hand may have had other numbers in it than the profile's: the report says which it was.
        "by": "study" if os.environ.get("GCPLIB_STUDY") else "hand",
        "machine": describe_machine(),
    }
    with write_atomic(_folder(profile) / f"{claim}-{notebook}.json") as path:
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return _frame([{"claim": claim, **asdict(item), "verdict": verdict(items)} for item in items])


def forget_claims(profile: str, notebook: str) -> None:
    """Remove what a notebook recorded before, so that nothing outlives the run that measured it."""
    for path in _folder(profile).glob(f"C*-{notebook}.json"):
        path.unlink(missing_ok=True)


def read_records(profile: str) -> list[dict]:
    """Return every record of a profile, in order of claim and notebook."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(_folder(profile).glob("C*-*.json"))]


def claims_table(profile: str) -> pd.DataFrame:
    """Return one row for each of the claims, with the verdict over everything that the profile's notebooks measured.

    Columns: id, source, claim, verdict, evidence (text, one effect a line), seeds, data, notebooks.
    """
    records: dict[str, list[dict]] = {}
    for item in read_records(profile):
        records.setdefault(item["claim"], []).append(item)
    rows = []
    for claim in claims().values():
        found = records.get(claim.id, [])
        evidence = [Evidence(**item) for entry in found for item in entry["evidence"]]
        counts = sorted({item.n for item in evidence})
        rows.append(
            {
                "id": claim.id,
                "source": claim.source,
                "claim": claim.text,
                "verdict": verdict(evidence) if evidence else UNTESTED,
                "evidence": "\n".join(map(str, evidence)),
                "seeds": "" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}",
                "data": "; ".join(dict.fromkeys(entry["data"] for entry in found)),
                "notebooks": ", ".join(entry["notebook"] for entry in found),
            }
        )
    return _frame(rows)


def _folder(profile: str) -> Path:
    return runs_dir() / profile / "claims"


def _frame(rows: list[dict]) -> pd.DataFrame:
    import pandas as pd  # here, because the runner and the command line need no pandas

    return pd.DataFrame(rows)
