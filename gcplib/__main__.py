"""``python -m gcplib`` is the command ``gcplib``."""

import sys

from gcplib.lab.cli import main

sys.exit(main())
