"""Scores of robustness relative to a reference network: errors under corruptions, and predictions that flip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RelativeScore", "corruption_error", "flip_rate", "relative_flip_rate"]

# Noise that is new in every image makes no film: there each image is compared with the first.
UNORDERED = ("gaussian_noise",)

# Shares of images are sums of fractions: what is below is rounding, and dividing by it would drown all other kinds.
ROUNDING = 1e-9


@dataclass(frozen=True)
class RelativeScore:
    """A mean over kinds of a network's score over the reference's; below 1 is better than the reference.

    Attributes:
        value: the mean. by_kind: the ratio of each kind that counts. left_out: kinds without a ratio, because the
            reference made no error, or lost nothing.
    """

    value: float
    by_kind: dict[str, float]
    left_out: tuple[str, ...]


def _mean_ratio(scores: Mapping[str, float], reference: Mapping[str, float], what: str) -> RelativeScore:
    if set(scores) != set(reference) or not scores:
        raise ValueError(f"need the same kinds of both networks, got {sorted(scores)} and {sorted(reference)}")
    values = np.array([[scores[kind], reference[kind]] for kind in scores], dtype=float)
    if not np.isfinite(values).all():
        raise ValueError(f"need finite numbers of every kind, got {dict(zip(scores, values.tolist(), strict=True))}")
    counts = {kind: float(reference[kind]) > ROUNDING for kind in scores}
    if not any(counts.values()):
        raise ValueError(f"the reference has no {what} under any of {', '.join(scores)}: there is nothing to compare")
    ratios = {kind: float(scores[kind] / reference[kind]) for kind in scores if counts[kind]}
    left_out = tuple(kind for kind in scores if not counts[kind])
    return RelativeScore(float(np.mean(list(ratios.values()))), ratios, left_out)


def corruption_error(
    errors: pd.DataFrame, reference: pd.DataFrame, clean: tuple[float, float] | None = None
) -> RelativeScore:
    """Return the mean corruption error (mCE) relative to a reference, or the relative mCE.

    ``mCE = mean_k (sum_s e[s, k] / sum_s r[s, k])`` over kinds k and severities s, and with the errors on clean
    images, e0 and r0, the relative one, ``mean_k (sum_s (e[s, k] - e0) / sum_s (r[s, k] - r0))``: how much is lost,
    which a network that is bad everywhere can be good at. ImageNet-C's reference is AlexNet; here it is the same
    network with average pooling.

    Args:
        errors, reference: one row a ``kind`` and ``severity``, with its ``error``. clean: e0 and r0.

    Raises:
        ValueError: a column is missing, kinds or severities of both differ, some are there twice, numbers are not
            finite, or the reference has no error, or no loss, under any kind.

    Source: Hendrycks and Dietterich, ICLR 2019.

    >>> import pandas as pd
    >>> there = pd.DataFrame({"kind": ["fog", "jpeg"], "severity": 1, "error": [0.2, 0.4]})
    >>> corruption_error(there, there.assign(error=[0.4, 0.4])).value
    0.75
    """
    tables = []
    for table in (errors, reference):
        if missing := {"kind", "severity", "error"} - set(table):
            raise ValueError(f"a table of errors has no column {sorted(missing)[0]!r}; there are {', '.join(table)}")
        cells = table.set_index(["kind", "severity"]).error
        if cells.index.has_duplicates:
            kind, severity = cells.index[cells.index.duplicated()][0]
            raise ValueError(f"a table has {kind} of severity {severity} twice; give one row each")
        tables.append(cells)
    if set(tables[0].index) != set(tables[1].index):
        differ = sorted(set(tables[0].index) ^ set(tables[1].index))
        raise ValueError(f"need the same kinds and severities of both networks; only one has {differ[:3]}")
    starts = (0.0, 0.0) if clean is None else clean
    sums = [
        (cells - start).groupby(level="kind", sort=False).sum() for cells, start in zip(tables, starts, strict=True)
    ]
    return _mean_ratio(dict(sums[0]), dict(sums[1]), "error" if clean is None else "loss")


def flip_rate(predictions: ArrayLike, kind: str) -> float:
    """Return the share of predictions that change from one image of a film to the next, over all films.

    ``gaussian_noise`` is no film: there it is the share that differ from those of the first image, as in ImageNet-P.

    Args:
        predictions: classes, ``(films, length)``. kind: of the film.

    Raises:
        ValueError: not a table of films of two images or more.

    Source: the flip probability of Hendrycks and Dietterich, ICLR 2019.

    >>> flip_rate([[3, 3, 5, 3]], "rotate"), flip_rate([[3, 3, 5, 5]], "gaussian_noise")
    (0.6666666666666666, 0.6666666666666666)
    """
    table = np.asarray(predictions)
    if table.ndim != 2 or not len(table) or table.shape[1] < 2:
        raise ValueError(f"need predictions (films, length) with a length of 2 or more, got {table.shape}")
    before = table[:, :1] if kind in UNORDERED else table[:, :-1]
    return float((table[:, 1:] != before).mean())


def relative_flip_rate(rates: Mapping[str, float], reference: Mapping[str, float]) -> RelativeScore:
    """Return the mean flip rate (mFR): the mean over kinds of a network's flip rate over the reference's.

    Raises:
        ValueError: kinds of both differ, numbers are not finite, or no prediction of the reference flips.

    >>> relative_flip_rate({"rotate": 0.1, "fog": 0.0}, {"rotate": 0.2, "fog": 0.0})
    RelativeScore(value=0.5, by_kind={'rotate': 0.5}, left_out=('fog',))
    """
    return _mean_ratio(rates, reference, "flip")
