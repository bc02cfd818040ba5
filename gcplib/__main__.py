"""``python -m gcplib``: data, training, the study and its report from a shell."""

import sys

from gcplib.lab.cli import main

sys.exit(main())
