"""``python -m gcplib``: data, training, the study and its report from a shell."""

import sys

from gcplib.study.cli import main

sys.exit(main())
