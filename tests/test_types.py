"""The types of the core and of what reads settings are right: ``make types``, beside the other tests."""

import subprocess
import sys
from pathlib import Path


def test_types():
    run = subprocess.run([sys.executable, "-m", "mypy"], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
