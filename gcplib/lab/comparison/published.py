"""Differences between methods as papers report them, from one table each, beside one's own."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from gcplib.lab.files import project_root

__all__ = ["beside_published"]

TABLE = ["dataset", "backbone", "source"]


def beside_published(reference: str, own: Mapping[str, str]) -> pd.DataFrame:
    """Return published accuracies minus that of a method in the same table, with one's own differences before them.

    Args:
        reference: a pool.
        own: differences to the same method as text, by pool, joined by + where one takes over from another.

    Returns:
        One row per published method, one column per table that has the reference.
    """
    published = pd.read_csv(project_root() / "data" / "published.csv")
    theirs = published[published.pool == reference].set_index(TABLE).accuracy.rename("reference")
    both = published[published.pool != reference].dropna(subset="pool").join(theirs, on=TABLE, how="inner")
    gain = (both.accuracy - both.reference).map("{:+.2f}".format, na_action="ignore")
    both["gain"] = gain.fillna("no convergence")
    paper = both.source.str.split().str[0]
    both["table"] = both.dataset + ", " + both.backbone + " (" + paper + ")"
    wide = both.pivot(index=["pool", "method"], columns="table", values="gain")
    wide = wide.reindex(both[["pool", "method"]].drop_duplicates())
    wide.insert(0, "here", [own.get(pool, "") for pool, _ in wide.index])
    return wide.droplevel("pool").fillna("").rename_axis(None, axis=1)
