"""The study: claims and their evidence, the notebook runner and the report.

Notebooks need only the names exported here:

>>> verdict("C34", Evidence("dropcov minus exact root plus one point, fine labels", 2.0, low=1.5, high=2.5, n=5))
'holds'
"""

from gcplib.lab.study.claims import record
from gcplib.lab.study.effects import effects_of, evidence_of
from gcplib.lab.study.options import check_sizes, options_of
from gcplib.lab.study.tables import effects_table, evidence_by_images, evidence_table, kept_effects, save_table
from gcplib.lab.study.verdicts import Evidence, verdict

__all__ = [
    "Evidence",
    "check_sizes",
    "effects_of",
    "effects_table",
    "evidence_by_images",
    "evidence_of",
    "evidence_table",
    "kept_effects",
    "options_of",
    "record",
    "save_table",
    "verdict",
]
