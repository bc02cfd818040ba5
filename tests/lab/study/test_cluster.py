"""The workflow through an executor of clusters, whose jobs are scripts that a command submits; with real training."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import yaml

from gcplib.lab.site import build_site
from gcplib.lab.study.profiles import make_plan
from tests.lab.study.conftest import SNAKEFILE

# A cluster of this machine: a job begins at once, and its number is that of its process.
SUBMIT = """#!/bin/sh
sh "$1" >> "$LOGS/cluster.log" 2>&1 &
echo $!
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_runs_through_the_generic_executor(tmp_path, tiny_spec, monkeypatch):
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LOGS", str(tmp_path))
    submit = tmp_path / "submit.sh"
    submit.write_text(SUBMIT)
    submit.chmod(0o755)
    base = {"reduction": 8, "data": dataclasses.asdict(tiny_spec), "recipe": {"epochs": 1}}
    profile = tmp_path / "tiny.yaml"
    profile.write_text(yaml.safe_dump({"runs": {"head": {"base": base, "grid": {"pool": ["gap", "cov"]}}}}))
    command = [sys.executable, "-m", "snakemake", "-s", str(SNAKEFILE), "--config", f"profile={profile}"]
    command += ["--directory", str(tmp_path / "runs" / "tiny"), "--rerun-triggers", "params", "--keep-going"]
    command += ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", str(submit), "-j", "2"]
    # Machines of a cluster see each other's files late; here they do not.
    command += ["--latency-wait", "2", "--seconds-between-status-checks", "1"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=240)
    log = tmp_path / "cluster.log"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    assert done.stderr.count("with external jobid") == 2
    plan = make_plan(profile)
    assert plan.count_runs() == (2, "2 finished")
    for job in plan.of("sweeps"):
        (name,) = job.values
        result = json.loads((tmp_path / "runs" / "train" / name / "result.json").read_text())
        assert result["outcome"] == "finished"
    assert "Of 2 training runs, 2 finished." in build_site(plan).read_text()

    again = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stderr
