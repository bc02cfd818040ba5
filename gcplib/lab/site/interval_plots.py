"""The intervals of what decides about a claim, as a figure: a panel for each effect, a line for each study."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gcplib.lab.study.claims import assess_records

if TYPE_CHECKING:
    from gcplib.lab.study.verdicts import Evidence

__all__ = ["interval_figure"]

# For, against, and neither: of the palette that is told apart without color vision, and told by the marker as well.
LOOKS = {"supports the claim": ("#0173b2", "o"), "opposes it": ("#d55e00", "s"), "undecided": ("#767676", "D")}


def interval_figure(claim: str, found: Mapping[str, Sequence[dict]]) -> bytes | None:
    """Return a PNG of the primary effects of a claim with their 95 % intervals; None where nothing was measured.

    Args:
        claim: its id.
        found: records by the name of their study.
    """
    panels: dict[tuple[str, str], dict[str, Evidence]] = {}
    for study, records in found.items():
        for item, primary, _ in assess_records(claim, records).effects:
            if primary:
                panels.setdefault((item.name, item.unit), {})[study] = item
    return _draw(panels) if panels else None


def _draw(panels: Mapping[tuple[str, str], Mapping[str, Evidence]]) -> bytes:
    from matplotlib.figure import Figure  # without pyplot, which belongs to notebooks

    heights = [len(rows) + 1.6 for rows in panels.values()]
    fig = Figure(figsize=(7.5, 0.27 * sum(heights) + 0.35), dpi=110, layout="constrained")
    axes = fig.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    seen = {}
    for ax, ((name, unit), rows) in zip(axes, panels.items(), strict=True):
        for place, item in enumerate(rows.values()):
            how = "supports the claim" if item.low > 0 else "opposes it" if item.high < 0 else "undecided"
            color, marker = LOOKS[how]
            bar = [[item.effect - item.low], [item.high - item.effect]]
            drawn = ax.errorbar(item.effect, place, xerr=bar, color=color, marker=marker, markersize=5, capsize=2.5)
            seen.setdefault(how, drawn)
        ax.axvline(0, color="0.25", linewidth=0.8)
        ax.set_yticks(range(len(rows)), list(rows), fontsize=8)
        ax.set(ylim=(len(rows) - 0.4, -0.6))
        ax.tick_params(axis="x", labelsize=8)
        ax.set_title("\n".join(textwrap.wrap(f"{name} ({unit})", 95)), fontsize=8.5, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
    fig.legend([*seen.values()], [*seen], loc="outside lower left", ncols=3, fontsize=8, frameon=False)
    with io.BytesIO() as file:
        fig.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()
