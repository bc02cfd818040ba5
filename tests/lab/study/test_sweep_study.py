"""Studies with training runs, in processes of their own; the training itself is a stand-in (see conftest)."""

import json
import re
import signal

import psutil
import pytest

from gcplib.lab.site import build_site
from gcplib.lab.study.runner import run_study

NOTEBOOK = (
    "import json, pathlib\n"
    "found = sorted(path.stem for path in pathlib.Path('../runs/smoke/sweeps').glob('*.json'))\n"
    "open('../read', 'a').write(' '.join(found) + '.')"
)


def sweep_file(world, job):
    return json.loads(world.runs("smoke", "sweeps", f"{job}.json").read_text())


@pytest.mark.slow
def test_failed_and_diverged_runs_do_not_stop_the_rest_and_failed_ones_are_tried_again(world):
    world.training()
    world.notebook("reads", NOTEBOOK, parameters="profile = 'smoke'\nfamilies = 8")
    profile = world.profile("""
shared: {families: 9}
notebooks: {reads: {first: true}}
runs: {all: {batch: 2, base: {data.families: 9}, grid: {pool: [bad, good, wild], seed: 2}}}
""")
    code, output = world.study()
    assert code == 1, output
    assert sorted(world.trained()) == [f"{pool}-{seed}" for pool in ("bad", "good", "wild") for seed in (0, 1)]
    assert set(world.trained(3)) == {"True"}  # the images that they share with the notebooks were drawn before
    # The notebook began when all jobs were over, and ran although runs had failed.
    assert (world.root / "read").read_text() == "all-1 all-2 all-3."
    assert sweep_file(world, "all-1")["runs"][0] | {"seconds": 0} == {
        "directory": "bad-0",
        "outcome": "failed",
        "seconds": 0,
        "reason": "RuntimeError: no luck with <bad-0>",
    }
    assert sweep_file(world, "all-3")["runs"][0] == {
        "directory": "wild-0",
        "outcome": "diverged",
        "seconds": 1.5,
        "reason": "loss nan",
    }
    assert "Traceback" in world.runs("smoke", "logs", "sweeps", "all-1.log").read_text()
    assert re.search(r"sweeps/all-1 +done in .*, 2 failed", output)
    assert re.search(r"sweeps/all-3 +done in .*, 2 diverged", output)
    assert " of 6 runs done · " in output
    assert re.search("FAILED   runs +6: 2 finished, 2 diverged, 2 failed", output)
    assert "failed    bad-0  RuntimeError: no luck with <bad-0>" in output
    assert "diverged  wild-1  loss nan" in output
    page = world.runs("smoke", "report", "index.html").read_text()
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "Of 6 training runs, 2 finished, 2 diverged, 2 failed." in text
    assert "failed bad-1 RuntimeError: no luck with &lt;bad-1&gt;" in text
    assert "diverged wild-0 loss nan" in text

    (world.root / "mended").touch()
    code, output = world.study()
    assert code == 0, output
    assert world.trained()[6:] == ["bad-0", "bad-1"]
    assert re.search("ok       runs +6: 4 finished, 2 diverged\n", output)
    assert "bad-0" not in output
    # It read what it needs: a notebook that is up to date is not repeated.
    assert (world.root / "read").read_text().count(".") == 1

    code, output = world.study()
    assert code == 0, output
    assert "Nothing to do" in output

    # Another list of runs: jobs whose runs are the same stay, the others read what is there and train the rest.
    before = world.runs("smoke", "sweeps", "all-1.json").stat().st_mtime_ns
    profile.write_text("""
shared: {families: 9}
notebooks: {reads: {first: true}}
runs:
  all: {batch: 2, base: {data.families: 9}, grid: {pool: [bad, good], seed: 2}}
  more: {base: {pool: good, seed: 7}}
""")
    code, output = world.study("--only", "reads")
    assert code == 0, output
    assert len(world.trained()) == 8  # the notebook is up to date, and nothing else was asked for
    code, output = world.study()
    assert code == 0, output
    assert world.trained()[8:] == ["good-7"]
    assert re.search("ok       runs +5: 5 finished", output)
    assert world.runs("smoke", "sweeps", "all-1.json").stat().st_mtime_ns == before
    assert not world.runs("smoke", "sweeps", "all-3.json").exists()


@pytest.mark.slow
def test_a_process_that_dies_in_a_run_leaves_the_others_trained(world):
    world.training()
    world.notebook("reads", NOTEBOOK)
    world.profile("notebooks: {reads: }\nruns: {all: {batch: 3, grid: {pool: [deadly, good, wild]}}}")
    code, output = world.study("--cores", "1")
    assert code == 1, output
    assert world.trained() == ["deadly-0", "good-0", "wild-0", "deadly-0"]
    assert re.search("FAILED   sweeps/all-1 +log: ", output)
    assert re.search("skipped  runs +3: 3 not run", output)
    assert not (world.root / "read").exists()
    (world.root / "mended").touch()
    code, output = world.study("--cores", "1")
    assert code == 0, output
    assert world.trained()[4:] == ["deadly-0"]
    assert re.search("runs +3: 2 finished, 1 diverged", output)
    assert (world.root / "read").read_text() == "all-1."


@pytest.mark.slow
def test_a_killed_study_of_runs_ends_whole_and_continues(world):
    world.training()
    world.profile("runs: {all: {batch: 3, grid: {pool: [good, slow, wild]}}}")
    process = world.start("study")
    world.wait_for(lambda: "slow-0" in world.trained())
    trainer = int(world.trained(1)[-1])
    family = psutil.Process(process.pid).children(recursive=True)
    assert trainer in [member.pid for member in family]
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)
    world.wait_for(lambda: not any(m.is_running() and m.status() != "zombie" for m in family), 15)
    assert not world.runs("smoke", "sweeps", "all-1.json").exists()

    (world.root / "mended").touch()
    code, output = world.study()
    assert code == 0, output
    # The finished run was read; the one that was interrupted came last.
    assert world.trained() == ["good-0", "slow-0", "wild-0", "slow-0"]
    assert [run["directory"] for run in sweep_file(world, "all-1")["runs"]] == ["good-0", "slow-0", "wild-0"]


TORCH = """
import os
from types import SimpleNamespace

cuda = SimpleNamespace(device_count=lambda: int(os.environ["FAKE_GPUS"]), is_available=lambda: False)
"""


@pytest.mark.slow
def test_every_job_that_asks_for_a_gpu_has_one_of_its_own(world, monkeypatch):
    world.training()
    (world.root / "sources" / "torch.py").write_text(TORCH)
    profile = world.profile("runs: {gpu: {gpus: 1, grid: {pool: [pair], seed: 2}}, cpu: {base: {pool: good}}}")
    monkeypatch.setenv("FAKE_GPUS", "2")
    monkeypatch.setenv("TMPDIR", str(world.root))  # where the locks are
    code, output = world.study("--cores", "2")
    assert code == 0, output
    devices = dict(zip(world.trained(), world.trained(2), strict=True))
    assert sorted((devices["pair-0"], devices["pair-1"])) == ["0", "1"]
    assert devices["good-0"] == ""
    assert "No GPU" not in output

    monkeypatch.setenv("FAKE_GPUS", "0")
    profile.write_text("runs: {gpu: {gpus: 1, base: {pool: good, seed: 3}}}")
    code, output = world.study()
    assert code == 0, output
    assert output.count("No GPU to use: 1 job of training runs will use the CPU.") == 1
    assert (world.trained()[-1], world.trained(2)[-1]) == ("good-3", "")


def test_more_gpus_than_there_are_is_an_error(world, monkeypatch):
    monkeypatch.delenv("GCPLIB_ROOT")  # the list of the typefaces is there
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    world.profile("runs: {all: {gpus: 1, base: {pool: gap}}}")
    with pytest.raises(ValueError, match="2 GPUs are asked for, but torch sees 1"):
        run_study("smoke", build_site, gpus=2)
    assert not world.runs().exists()
