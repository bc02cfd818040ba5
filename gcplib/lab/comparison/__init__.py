"""Comparing methods: their runs in tables, whole networks, what is read at each stage, and published differences."""

from gcplib.lab.comparison.methods import Methods, Trained, most_confused, train_methods
from gcplib.lab.comparison.published import beside_published
from gcplib.lab.comparison.stages import draw_stages, gaps_of, stages_table
from gcplib.lab.comparison.whole_networks import draw_whole, pace_of

__all__ = [
    "Methods",
    "Trained",
    "beside_published",
    "draw_stages",
    "draw_whole",
    "gaps_of",
    "most_confused",
    "pace_of",
    "stages_table",
    "train_methods",
]
