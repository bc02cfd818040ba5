"""The study: claims and their evidence, the notebook runner, the report and the command line.

Notebooks need only the names exported here:

>>> verdict([Evidence("root minus average", effect=19.0, low=17.5, high=20.5, n=5)])
'holds'
"""

from gcplib.lab.study.claims import Evidence, claims_table, record, verdict
from gcplib.lab.study.kept import kept_effects
from gcplib.lab.study.parameters import options_of
from gcplib.lab.study.tables import evidence_table, save_table

__all__ = [
    "Evidence",
    "claims_table",
    "evidence_table",
    "kept_effects",
    "options_of",
    "record",
    "save_table",
    "verdict",
]
