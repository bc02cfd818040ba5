"""One job of a sweep on real runs, what a person sees of it, and the GPU that it may take."""

import dataclasses
import json
import os

import pytest
import torch

from gcplib.lab.files import read_json, write_json
from gcplib.lab.study.devices import VISIBLE, own_device, visible_devices
from gcplib.lab.study.jobs import main, train_runs
from gcplib.lab.study.plan import Job, Plan, write_plan
from gcplib.lab.study.sweeps import plan_sweeps
from gcplib.lab.study.watch import Watch
from gcplib.lab.training import RunSpec


@pytest.fixture
def plan(tiny_spec, tmp_path, monkeypatch):
    """A job of three runs: a good one, one whose data set is missing, one that goes too far."""
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv(VISIBLE, "")  # jobs change it; the end of the test restores it
    typefaces = dataclasses.asdict(tiny_spec)
    how = [
        {"data": typefaces},
        {"data": {"dataset": "folder", "root": str(tmp_path / "images"), "pixels": 64}},
        {"data": typefaces, "recipe": {"learning_rate": 1e30, "clip": 0}},
    ]
    grid = {"batch": 3, "base": {"pool": "cov", "reduction": 8, "recipe": {"epochs": 1}}, "grid": {"how": how}}
    problems = []
    jobs = plan_sweeps({"tiny": grid}, None, problems)
    assert problems == []
    return Plan("tiny", tmp_path / "tiny", jobs=jobs)


def tell(**values):
    pass


def test_each_run_is_recorded_with_what_became_of_it(plan, tmp_path, capsys):
    (job,) = plan.jobs.values()
    train_runs(plan, job, tell)
    document = json.loads((plan.folder / "sweeps" / "tiny-1.json").read_text())
    entries = document["runs"]
    assert document["key"] == job.key
    assert [entry["outcome"] for entry in entries] == ["finished", "failed", "diverged"]
    assert [entry["directory"] for entry in entries] == list(job.values)
    assert all(entry["seconds"] > 0 for entry in entries)
    good, failed, diverged = (entry["reason"] for entry in entries)
    assert good == ""
    assert failed.startswith("FileNotFoundError: ")
    assert str(tmp_path / "images") in failed
    assert "epoch 0" in diverged or "evaluation" in diverged
    # The log has the whole error.
    assert "Traceback" in capsys.readouterr().err
    assert plan.runs("finished", "failed", "diverged") == entries

    # Again: what is there is read, what failed is tried.
    plan.finish(job)
    write_plan(plan)
    assert not plan.is_done(job)
    results = [tmp_path / "runs" / "train" / name / "result.json" for name in job.values]
    assert [path.exists() for path in results] == [True, False, True]
    times = [path.stat().st_mtime_ns for path in results[::2]]
    train_runs(plan, job, tell)
    assert [len(plan.runs(outcome)) for outcome in ("finished", "failed", "diverged")] == [1, 1, 1]
    assert [path.stat().st_mtime_ns for path in results[::2]] == times


def test_the_run_that_a_process_died_in_comes_last_the_next_time(plan, monkeypatch):
    (job,) = plan.jobs.values()
    tried = []
    state = plan.file(job, ".state")
    specs = [RunSpec.from_dict(fields) for fields in job.values.values()]

    def die(spec):
        tried.append(spec)
        assert read_json(state)["done"] == (len(tried) - 1) % 3
        if len(tried) == 1:
            raise KeyboardInterrupt  # what no recording catches, as the end of the process
        raise RuntimeError("no\n  luck")

    monkeypatch.setattr("gcplib.lab.training.ensure", die)
    monkeypatch.setattr("os.dup2", lambda *handles: None)
    write_plan(plan)
    monkeypatch.chdir(plan.folder)
    for name in ("GCPLIB_STATUS", "GCPLIB_PROGRESS"):
        monkeypatch.setenv(name, "")
    with pytest.raises(KeyboardInterrupt):
        main(job.name)
    assert (read_json(state)["state"], read_json(state)["run"]) == ("running", next(iter(job.values)))
    assert not (plan.folder / "sweeps").exists()
    tried += [None, None]
    assert main(job.name) == 0
    assert tried[3:] == [specs[1], specs[2], specs[0]]
    assert [entry["directory"] for entry in plan.runs("failed")] == list(job.values)
    assert {entry["reason"] for entry in plan.runs("failed")} == {"RuntimeError: no luck"}


@pytest.fixture
def ten_each(tmp_path):
    """Two jobs of ten runs each and a notebook, of which nothing is on disk."""
    jobs = [Job(f"sweeps/all-{n}", f"{n}", {f"{name}-{i}": {} for i in range(10)}) for n, name in ((1, "a"), (2, "b"))]
    jobs.append(Job("notebooks/last", "3"))
    return Plan("x", tmp_path, jobs={job.name: job for job in jobs})


def write_entries(plan, name, outcomes):
    job = plan.jobs[name]
    entries = [
        {"directory": run, "outcome": outcome, "seconds": 1.0, "reason": "why"}
        for run, outcome in zip(job.values, outcomes, strict=True)
    ]
    write_json(plan.file(job, ".json"), {"job": name, "key": job.key, "runs": entries})


def test_progress_tells_runs_done_and_the_time_at_their_pace(ten_each, monkeypatch, capsys):
    now, plan = 100.0, ten_each
    monkeypatch.setattr("time.time", lambda: now)
    first, second, _ = plan.jobs.values()
    watch = Watch(plan, list(plan.jobs), 2)
    for job in (first, second):
        write_json(plan.file(job, ".state"), {"state": "running", "begun": 100.0, "seconds": 0.0, "done": 0})
    watch.look()
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["sweeps/all-1", "started"],
        ["sweeps/all-2", "started"],
    ]
    now = 121.0
    watch.look()
    assert capsys.readouterr().out.endswith("all-2 21 s, 0 of 10 runs done · 0 of 20 runs done · 3 to go\n")
    plan.file(second, ".loop").write_text("gap, fine labels, seed 0: 2 of 9 done")
    write_json(plan.file(second, ".state"), {"state": "running", "begun": 100.0, "seconds": 30.0, "done": 5})
    now = 130.0
    write_entries(plan, "sweeps/all-1", ["finished"] * 7 + ["diverged"] + ["failed"] * 2)
    write_json(plan.file(first, ".state"), {"state": "done", "begun": 100.0, "seconds": 30.0})
    watch.look()
    # 15 runs in 30 seconds, 5 to go; nobody knows how long the notebook takes.
    done = "done in 30 s, 1 diverged, 2 failed · 15 of 20 runs done · 2 to go, at least 10 s left\n"
    assert capsys.readouterr().out.endswith(done)
    now = 151.0
    watch.look()
    out = capsys.readouterr().out
    assert "running: sweeps/all-2 51 s, 5 of 10 runs done (gap, fine labels, seed 0: 2 of 9 done)" in out


def test_the_estimate_is_from_the_times_of_the_last_study(ten_each, capsys):
    plan = dataclasses.replace(ten_each, jobs={f"notebooks/{n}": Job(f"notebooks/{n}", "1", threads=n) for n in (1, 2)})
    for job in plan.jobs.values():
        write_json(plan.file(job, ".json"), {"usual_seconds": 60.0, "status": "ok"})
    watch = Watch(plan, list(plan.jobs), 2)
    # One of them uses half of the cores.
    assert watch.remaining() == " · 2 to go, about 1 min 30 s left"
    for job in plan.jobs.values():
        write_json(plan.file(job, ".state"), {"state": "done", "begun": watch.start + 1, "seconds": 2.0})
    watch.look()
    assert "started (about 1 min 00 s last time)" in capsys.readouterr().out
    assert watch.remaining() == ""


def test_the_summary_names_failed_runs_first_and_not_hundreds(ten_each, capsys):
    jobs = [*list(ten_each.jobs.values())[:2], Job("sweeps/more-1", "4", {"m-0": {}, "m-1": {}})]
    plan = dataclasses.replace(ten_each, jobs={job.name: job for job in jobs})
    write_entries(plan, "sweeps/all-1", ["diverged"] * 10)
    write_entries(plan, "sweeps/all-2", ["finished", *["failed"] * 9])
    write_entries(plan, "sweeps/more-1", ["diverged", "diverged"])
    assert Watch(plan, [], 2).summary([], 1)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(lines[2].split()) == "FAILED runs 22: 1 finished, 12 diverged, 9 failed"
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
    assert visible_devices(1) == ["2"]
    assert visible_devices(0) == []
    with pytest.raises(ValueError, match="3 GPUs are asked for, but torch sees 2"):
        visible_devices(3)
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
