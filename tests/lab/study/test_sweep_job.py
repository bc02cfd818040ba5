"""One job of a sweep on real runs, what a person sees of it, and the GPU that it may take."""

import dataclasses
import json
import os

import pytest
import torch

from gcplib.lab.study.devices import VISIBLE, own_device, usable_devices, visible_devices
from gcplib.lab.study.profiles import Plan, Profile
from gcplib.lab.study.progress import Progress
from gcplib.lab.study.summary import print_summary
from gcplib.lab.study.sweep_job import Position, read_position, train_runs
from gcplib.lab.study.sweeps import SweepJob, plan_sweeps


@pytest.fixture
def job(tiny_spec, tmp_path, monkeypatch):
    """Three runs: a good one, one whose data set is missing, one that goes too far."""
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    typefaces = dataclasses.asdict(tiny_spec)
    how = [
        {"data": typefaces},
        {"data": {"layout": "folder", "root": str(tmp_path / "images"), "pixels": 64}},
        {"data": typefaces, "recipe": {"learning_rate": 1e30, "clip": 0}},
    ]
    grid = {"batch": 3, "base": {"pool": "cov", "reduction": 8, "recipe": {"epochs": 1}}, "grid": {"how": how}}
    problems = []
    (job,) = plan_sweeps({"tiny": grid}, {}, problems).values()
    assert problems == []
    return job


def test_each_run_is_recorded_with_what_became_of_it(job, tmp_path, capsys):
    entries = train_runs(job, tmp_path)
    document = json.loads((tmp_path / "sweeps" / "tiny-1.json").read_text())
    assert document["runs"] == entries
    assert document["key"] == job.key
    assert [entry["outcome"] for entry in entries] == ["finished", "failed", "diverged"]
    assert [entry["directory"] for entry in entries] == list(job.runs)
    assert all(entry["seconds"] > 0 for entry in entries)
    good, failed, diverged = (entry["reason"] for entry in entries)
    assert good == ""
    assert failed.startswith("FileNotFoundError: ")
    assert str(tmp_path / "images") in failed
    assert "epoch 0" in diverged or "evaluation" in diverged
    # The log has the whole error.
    assert "Traceback" in capsys.readouterr().err
    assert read_position(job.name, tmp_path) is None

    # Again: what is there is read, what failed is tried.
    results = [tmp_path / "runs" / "train" / name / "result.json" for name in job.runs]
    assert [path.exists() for path in results] == [True, False, True]
    times = [path.stat().st_mtime_ns for path in results[::2]]
    assert [entry["outcome"] for entry in train_runs(job, tmp_path)] == ["finished", "failed", "diverged"]
    assert [path.stat().st_mtime_ns for path in results[::2]] == times


def test_the_run_that_a_process_died_in_comes_last_the_next_time(job, tmp_path, monkeypatch):
    tried = []

    def die(spec):
        tried.append(spec)
        assert read_position(job.name, tmp_path).done == (len(tried) - 1) % 3
        if len(tried) == 1:
            raise KeyboardInterrupt  # what no recording catches, as the end of the process
        raise RuntimeError("no\n  luck")

    monkeypatch.setattr("gcplib.lab.training.ensure", die)
    with pytest.raises(KeyboardInterrupt):
        train_runs(job, tmp_path)
    assert read_position(job.name, tmp_path) == Position(0, job.runs[0])
    assert not (tmp_path / "sweeps").exists()
    tried.append(None)
    tried.append(None)
    entries = train_runs(job, tmp_path)
    assert tried[3:] == [job.specs[1], job.specs[2], job.specs[0]]
    assert [entry["directory"] for entry in entries] == list(job.runs)
    assert {entry["reason"] for entry in entries} == {"RuntimeError: no luck"}


@pytest.fixture
def plan(tmp_path):
    """Two jobs of ten runs each, of which nothing is on disk."""
    runs = [tuple(f"{name}-{number}" for number in range(10)) for name in "ab"]
    jobs = [SweepJob(f"sweeps/all-{place}", (), names, 1, 0, False) for place, names in enumerate(runs, 1)]
    path = tmp_path / "x.yaml"
    return Plan(Profile("x", path, "", {}, {}), tmp_path, {}, "", {}, {job.name: job for job in jobs})


def write_entries(plan, name, outcomes):
    job = plan.sweeps[name]
    entries = [
        {"directory": run, "outcome": outcome, "seconds": 1.0, "reason": "why"}
        for run, outcome in zip(job.runs, outcomes, strict=True)
    ]
    path = plan.folder / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"job": name, "key": job.key, "runs": entries}))


def test_progress_tells_runs_done_and_the_time_at_their_pace(plan, monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Progress(plan, 2, {}, expected=("sweeps/all-1", "sweeps/all-2", "last"))
    for job in (1, 2):
        assert progress.handle(f"[gcplib] sweeps/all-{job} started\n")
    progress.heartbeat()
    assert capsys.readouterr().out.splitlines()[-1].endswith("all-2 0.0 s · 0 of 20 runs done · 3 to go")
    logs = plan.folder / "logs" / "sweeps"
    logs.mkdir(parents=True)
    (logs / "all-2.position").write_text('{"done": 5, "current": "b-5"}')
    (logs / "all-2.status").write_text("gap, fine labels, seed 0: 2 of 9 done")
    now = 130.0
    write_entries(plan, "sweeps/all-1", ["finished"] * 7 + ["diverged"] + ["failed"] * 2)
    progress.handle("[gcplib] sweeps/all-1 done after 30.0 s\n")
    # 15 runs in 30 seconds, 5 to go.
    done = "done in 30 s, 1 diverged, 2 failed · 15 of 20 runs done · 2 to go "
    assert capsys.readouterr().out.endswith(f"{done}(about 10 s for the runs; no estimate yet: first run of last)\n")
    progress.heartbeat()
    out = capsys.readouterr().out
    assert "running: sweeps/all-2 30 s, 5 of 10 runs done (gap, fine labels, seed 0: 2 of 9 done)" in out


def test_the_summary_names_failed_runs_first_and_not_hundreds(plan, capsys):
    write_entries(plan, "sweeps/all-1", ["diverged"] * 10)
    write_entries(plan, "sweeps/all-2", ["finished", *["failed"] * 9])
    more = SweepJob("sweeps/more-1", (), ("m-0", "m-1"), 1, 0, False)
    plan = dataclasses.replace(plan, sweeps={**plan.sweeps, "sweeps/more-1": more})
    write_entries(plan, "sweeps/more-1", ["diverged", "diverged"])
    print_summary(plan, [], Progress(plan, 2, {}), 1)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == "FAILED   runs  22: 1 finished, 12 diverged, 9 failed"
    assert lines[3:12] == [f"failed    b-{number}  why" for number in range(1, 10)]
    assert lines[12:23] == [f"diverged  a-{number}  why" for number in range(10)] + ["diverged  m-0  why"]
    assert lines[23:] == ["and 1 more, in the report"]


@pytest.fixture
def four_gpus(monkeypatch, tmp_path):
    """As torch would see four; the locks are those of a machine of its own."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # Set and removed, so that the end of the test restores it.
    monkeypatch.setenv(VISIBLE, "")
    monkeypatch.delenv(VISIBLE)


def test_visible_devices_are_those_of_the_environment_or_all(four_gpus, monkeypatch):
    assert visible_devices() == ["0", "1", "2", "3"]
    monkeypatch.setenv(VISIBLE, "2, GPU-8f1a,-1,3")
    assert visible_devices() == ["2", "GPU-8f1a"]
    assert usable_devices(1) == ["2"]
    assert usable_devices(0) == []
    assert usable_devices(None) == ["2", "GPU-8f1a"]
    with pytest.raises(ValueError, match="3 GPUs are asked for, but torch sees 2"):
        usable_devices(3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert visible_devices() == []


def test_every_job_has_a_device_of_its_own(four_gpus, monkeypatch):
    with own_device(1) as first:
        assert os.environ[VISIBLE] == first == "0"
        monkeypatch.setenv(VISIBLE, "0,1")
        with own_device(1) as second:
            assert os.environ[VISIBLE] == second == "1"
            # Both are taken: the third waits until one is free.
            monkeypatch.setenv(VISIBLE, "0,1")
            waited = []
            monkeypatch.setattr("time.sleep", lambda seconds: waited.append(seconds) or pytest.fail("still waiting"))
            with pytest.raises(pytest.fail.Exception, match="still waiting"), own_device(1):
                pass
            assert waited == [1]
    monkeypatch.setenv(VISIBLE, "0,1")
    with own_device(1) as again:
        assert again == "0"


def test_a_single_device_is_not_locked_and_a_job_without_sees_none(four_gpus, monkeypatch):
    for _ in range(2):
        monkeypatch.setenv(VISIBLE, "3")
        with own_device(1) as device:
            assert device == "3"
            monkeypatch.setenv(VISIBLE, "3")
            with own_device(1) as same:
                assert same == "3"
    with own_device(0) as device:
        assert device is None
        assert os.environ[VISIBLE] == ""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with own_device(1) as device:
        assert device is None
