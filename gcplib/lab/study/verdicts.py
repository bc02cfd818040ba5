"""The claims of the papers, and the verdict that measured effects give one.

Which effects decide stands in ``claims.yaml``; the verdict follows from them by one fixed rule, so nobody words it by
hand.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gcplib.lab.holm import holm, p_value
from gcplib.lab.validation import read_yaml, unknown

if TYPE_CHECKING:
    from gcplib.lab.analysis import Interval

__all__ = ["PROTOCOL", "Assessment", "Claim", "Evidence", "assess", "claims", "count_verdicts", "verdict"]

HOLDS, PARTLY, UNDECIDED, FAILS = "holds", "holds in part", "undecided here", "does not hold here"
TOO_FEW, UNTESTED = "too few seeds", "not tested"
# Each verdict of one claim, and of several, in a sentence.
COUNTED = {
    HOLDS: ("holds", "hold"),
    PARTLY: ("holds in part", "hold in part"),
    UNDECIDED: ("is undecided", "are undecided"),
    FAILS: ("does not hold", "do not hold"),
    TOO_FEW: ("has too few seeds", "have too few seeds"),
    UNTESTED: ("is not tested", "are not tested"),
}
# Version of docs/protocol.md, by which claims.yaml was written; evidence of another is not counted with it.
PROTOCOL = 1
DECIMALS, SHOWN = 12, 4  # of an effect: kept, beyond which rounding alone makes a difference; and shown, at most
LEVEL, LEAST_N = 0.05, 3  # two values always have an interval, but nothing says whether they are alike by chance


@dataclass(frozen=True)
class Claim:
    """One claim: where it is from, what a test of it takes, and which effects decide, and why these.

    ``primary`` are regular expressions for the names of effects. A claim against average pooling is judged twice, each
    time by effects of their own: at equal stage of the network, by ``primary``, and by ``strongest`` against the best
    average that its features give at any stage, which is what a user would take. ``images`` are those on which the
    protocol asks about it.
    """

    id: str
    source: str
    text: str
    takes: str
    primary: tuple[str, ...]
    why: str
    strongest: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    def is_primary(self, name: str) -> bool:
        """Whether an effect of this name decides."""
        return _any_matches(self.primary + self.strongest, name)


@functools.cache
def claims() -> dict[str, Claim]:
    """Return every claim under test, by id."""
    found = read_yaml(Path(__file__).with_name("claims.yaml"))
    lists = ("primary", "strongest", "images")
    return {
        id: Claim(id, **fields | {name: tuple(fields[name]) for name in lists if name in fields})
        for id, fields in found.items()
    }


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
        freedom: degrees of freedom of the interval, where they are not n - 1.

    Raises:
        ValueError: a number is not finite, the effect lies outside its interval, or ``n`` is below 1.
    """

    name: str
    effect: float
    low: float
    high: float
    n: int
    unit: str = "points"
    freedom: float | None = None

    def __post_init__(self) -> None:
        for field in ("effect", "low", "high"):
            # JSON has no scalars of NumPy or torch; and differences of equal accuracies differ by rounding, alike for
            # every seed, which would be a significant effect of 1e-14 points.
            object.__setattr__(self, field, round(float(getattr(self, field)), DECIMALS) + 0.0)
        if not -math.inf < self.low <= self.effect <= self.high < math.inf:
            numbers = f"{self.low}, {self.effect}, {self.high}"
            raise ValueError(f"evidence {self.name!r}: expected finite low <= effect <= high, got {numbers}")
        if int(self.n) != self.n or self.n < 1:
            raise ValueError(f"evidence {self.name!r}: n must be an integer of at least 1, got {self.n}")
        object.__setattr__(self, "n", int(self.n))

    @classmethod
    def of(cls, name: str, interval: Interval, unit: str = "points") -> Evidence:
        """Make evidence of an interval (``gcplib.lab.analysis.mean_interval`` or ``paired_difference``)."""
        return cls(name, interval.mean, interval.low, interval.high, interval.n, unit, interval.freedom)

    @property
    def p_value(self) -> float:
        """The two-sided p value of no effect that belongs to the interval; see ``gcplib.lab.holm.p_value``."""
        return p_value(self.effect, self.low, self.high, self.n, self.freedom)

    @property
    def amount(self) -> str:
        """The effect as text with its sign, such as ``+19.0``."""
        return self._text(self.effect, sign="+")

    @property
    def interval(self) -> str:
        """The interval as text, such as ``[17.5, 20.5]``."""
        return f"[{self._text(self.low)}, {self._text(self.high)}]"

    def _text(self, value: float, sign: str = "") -> str:
        # As many decimals as the interval can tell apart: two digits of its width, and no more than can matter.
        width = self.high - self.low or abs(self.effect) or 1.0
        decimals = min(SHOWN, max(0, 1 - math.floor(math.log10(width))))
        return f"{value:{sign}.{decimals}f}".replace("-", "\N{MINUS SIGN}")

    def __str__(self) -> str:
        return f"{self.name}: {self.amount} {self.unit} {self.interval}, n = {self.n}"


class Weighed(NamedTuple):
    """An effect, whether it is a primary one, and its corrected p value (None for what decides nothing)."""

    evidence: Evidence
    primary: bool
    p: float | None


class Assessment(NamedTuple):
    """A verdict, the effects it is made of, primary ones first, and the primary ones that were not measured.

    ``against`` is the second verdict, against the strongest average, of claims that have one.
    """

    verdict: str
    effects: tuple[Weighed, ...]
    missing: tuple[str, ...]
    against: str | None = None

    @property
    def words(self) -> str:
        """The verdict, or both."""
        if self.against is None:
            return self.verdict
        return f"{self.verdict} at equal stage; {self.against} against the strongest average"


def assess(claim: str, evidence: Evidence | Iterable[Evidence]) -> Assessment:
    """Return the verdict that the primary effects of a claim give, and what it is made of.

    Their p values are corrected by Holm's method, those that were not measured counting as 1, and compared with 5 %:
    ``holds`` if all are significantly positive, ``holds in part`` if some are, else ``does not hold here`` if one is
    significantly negative, and ``undecided here`` if none is. It is ``too few seeds`` where a primary effect has fewer
    than three, and ``not tested`` where no primary effect was measured, whatever the secondary ones say. Effects
    against the strongest average are corrected and judged by themselves, in the same way.

    Args:
        claim: its id.
        evidence: everything that was measured about it; may be empty.

    Raises:
        ValueError: the claim does not exist, or something is not ``Evidence``.
    """
    if claim not in claims():
        raise ValueError(unknown("claim", claim, claims()))
    items = (evidence,) if isinstance(evidence, Evidence) else tuple(evidence)
    if wrong := [item for item in items if not isinstance(item, Evidence)]:
        raise ValueError(f"expected Evidence, got {type(wrong[0]).__name__}: {wrong[0]!r}")
    claim = claims()[claim]
    word, weighed, missing = _judged(claim.primary, items)
    against = None
    if claim.strongest:
        against, more, lacking = _judged(claim.strongest, items)
        weighed, missing = weighed + more, missing + lacking
    others = [Weighed(item, False, None) for item in items if not claim.is_primary(item.name)]
    return Assessment(word, (*weighed, *others), tuple(missing), against)


def _judged(patterns: Sequence[str], items: Sequence[Evidence]) -> tuple[str, list[Weighed], list[str]]:
    """Return the verdict of the effects that patterns name, these with corrected p values, and what is missing."""
    primary = [item for item in items if _any_matches(patterns, item.name)]
    missing = [text for text in patterns if not any(re.fullmatch(text, item.name) for item in primary)]
    few = any(item.n < LEAST_N for item in primary)
    if few or not primary:
        return TOO_FEW if few else UNTESTED, [Weighed(item, True, None) for item in primary], missing
    p_values = holm([item.p_value for item in primary] + [1.0] * len(missing)).tolist()
    signs = {math.copysign(1, item.effect) if p < LEVEL else 0 for item, p in zip(primary, p_values, strict=False)}
    shown = HOLDS if signs == {1} and not missing else PARTLY
    word = shown if 1 in signs else FAILS if -1 in signs else UNDECIDED
    return word, [Weighed(item, True, p) for item, p in zip(primary, p_values, strict=False)], missing


def _any_matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def verdict(claim: str, evidence: Evidence | Iterable[Evidence]) -> str:
    """Return the verdict that ``assess`` finds.

    >>> verdict("C31", Evidence("accuracy: orthogonal minus kaiming, with the path", 2, low=1, high=3, n=5))
    'holds'
    >>> verdict("C31", Evidence("something else", 2, low=1, high=3, n=5))
    'not tested'
    """
    return assess(claim, evidence).verdict


def count_verdicts(words: Iterable[str]) -> str:
    """Return how many claims have each verdict.

    >>> count_verdicts(["holds", "not tested", "not tested"])
    '1 holds, 2 are not tested'
    """
    counts = Counter(words)
    return ", ".join(f"{counts[word]} {text[counts[word] > 1]}" for word, text in COUNTED.items() if counts[word])
