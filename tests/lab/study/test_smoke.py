"""The main job on the real notebooks: the smoke profile from the command line, then again."""

import os
import subprocess
import sys

import pytest

from gcplib.lab.files import runs_dir
from gcplib.lab.study.profiles import make_plan
from gcplib.lab.study.verdicts import claims


def _study():
    environment = {**os.environ, "GCPLIB_PROGRESS": "0"}
    command = [sys.executable, "-m", "gcplib", "study", "--profile", "smoke"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # thirteen notebooks
def test_smoke_study_makes_the_report_and_does_nothing_the_second_time():
    first = _study()
    assert first.returncode == 0, first.stdout + first.stderr
    page = (runs_dir() / "smoke" / "report" / "index.html").read_text()
    for expected in (*(job.label for job in make_plan("smoke").of("notebooks")), *claims()):
        assert expected in page
    assert (runs_dir() / "smoke" / "report" / "figures.html").read_text().count("<figure") >= 6
    before = {path: path.stat().st_mtime_ns for path in (runs_dir() / "smoke" / "notebooks").iterdir()}
    second = _study()
    assert second.returncode == 0
    assert "Nothing to do" in second.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (runs_dir() / "smoke" / "notebooks").iterdir()}
