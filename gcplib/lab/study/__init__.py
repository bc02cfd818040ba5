"""The study: claims and their evidence, the notebook runner, the report and the command line.

Notebooks need only the names exported here:

>>> verdict("C04", Evidence("Gaussian minus covariance, both square-rooted, fine labels", 2.0, low=1.5, high=2.5, n=5))
'holds'
"""

from gcplib.lab.study.claims import claims_table, record
from gcplib.lab.study.parameters import options_of
from gcplib.lab.study.tables import evidence_table, save_table
from gcplib.lab.study.verdicts import Evidence, verdict

__all__ = ["Evidence", "claims_table", "evidence_table", "options_of", "record", "save_table", "verdict"]
