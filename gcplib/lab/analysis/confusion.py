"""Which classes a network takes for each other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

__all__ = ["confused_pairs"]


def confused_pairs(predictions: Iterable[pd.DataFrame], classes: int) -> list[tuple[int, int]]:
    """Return pairs of classes, those that are confused most first, each class in one pair at most.

    Args:
        predictions: of several runs, with the columns ``label`` and ``prediction``.
        classes: their number.

    >>> confused_pairs([pd.DataFrame({"label": [0, 2, 2], "prediction": [0, 1, 1]})], 4)
    [(1, 2), (0, 3)]
    """
    counts = np.zeros((classes, classes))
    for table in predictions:
        np.add.at(counts, (table.label, table.prediction), 1)
    pairs: list[tuple[int, int]] = []
    both_ways = np.triu(counts + counts.T, 1)
    for place in np.argsort(-both_ways, axis=None, kind="stable"):
        one, other = divmod(int(place), classes)
        if one < other and not {one, other} & {label for pair in pairs for label in pair}:
            pairs.append((one, other))
    return pairs
