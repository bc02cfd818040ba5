"""Whole studies over tiny notebooks, in processes of their own as a user starts them."""

import json
import re
import signal
import sys

import psutil
import pytest
from nbclient import NotebookClient

from gcplib.lab.site import build_site
from gcplib.lab.study.alive import StudyRunning, only_study
from gcplib.lab.study.execute import execute
from gcplib.lab.study.runner import run_study

FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
RECORD = (
    "from gcplib.lab.study import Evidence, record\n"
    "record('C31', Evidence('accuracy: orthogonal minus kaiming, with the path', 2.0, 1.0, 3.0, n=4), "
    "notebook='good', profile=profile, data='toy')"
)
COUNT = "open('../{0}.count', 'a').write('x')"


def runs_of(world, name):
    return len((world.root / f"{name}.count").read_text())


def test_a_failure_is_isolated_and_shown(world):
    fail_once(world)


def fail_once(world):
    """A study of a notebook that runs and one that fails; returns its profile."""
    world.notebook("good", COUNT.format("good"), FIGURE, RECORD, heading="# Pool an image")
    world.notebook("bad", COUNT.format("bad"), "x = 0\n1 / x")
    profile = world.profile("description: two tiny notebooks\nnotebooks: {good: {parameters: {}}, bad: }")

    code, output = world.study()
    assert code == 1, output
    assert "bad   FAILED after" in output
    assert "in cell [4]" in output
    assert "ZeroDivisionError: division by zero" in output
    report = world.runs("smoke", "report", "index.html").read_text()
    assert "1 of 2 notebooks ran through, 1 failed." in report
    assert "1 / x" in re.sub("<[^>]*>", "", report)
    assert "two tiny notebooks" in report
    assert "C31" in report
    assert '<span class="badge holds">holds</span>' in report
    page = world.runs("smoke", "report", "notebooks", "bad.html").read_text()
    assert '<div class="cell failed" id="cell-cell-3">' in page
    assert 'href="notebooks/bad.html#cell-cell-3"' in report
    assert world.runs("smoke", "report", "_images", "good-cell-3.png").read_bytes().startswith(b"\x89PNG")
    assert not world.runs("smoke", "notebooks", "bad.ipynb").exists()
    assert world.runs("smoke", "notebooks", "bad.failed.ipynb").exists()
    return profile


@pytest.mark.slow
def test_a_failure_is_mended_and_only_what_changed_runs_again(world):
    profile = fail_once(world)
    world.notebook("bad", COUNT.format("bad"), "x = 1\n1 / x")
    code, output = world.study()
    assert code == 0, output
    assert (runs_of(world, "good"), runs_of(world, "bad")) == (1, 2)
    assert not world.runs("smoke", "notebooks", "bad.failed.ipynb").exists()
    assert "2 of 2 notebooks ran through" in world.runs("smoke", "report", "index.html").read_text()

    # New times of files, as after a fresh checkout, change nothing.
    for path in (*world.notebooks.glob("*.ipynb"), *world.root.glob("sources/**/*.py"), world.notebooks / "Snakefile"):
        path.touch()
    code, output = world.study()
    assert code == 0, output
    assert "Nothing to do: study 'smoke' is up to date." in output
    assert str(world.runs("smoke", "report", "index.html")) in output
    assert (runs_of(world, "good"), runs_of(world, "bad")) == (1, 2)

    # A new parameter repeats that notebook alone; failing again, it leaves nothing that looks current.
    world.notebook("good", COUNT.format("good"), "raise RuntimeError(size)", parameters="profile = 'smoke'\nsize = 1")
    profile.write_text("notebooks: {good: {parameters: {size: 7}}, bad: }")
    code, output = world.study("--only", "goo")  # how a name begins is enough
    assert code == 1, output
    assert "RuntimeError: 7" in output
    assert (runs_of(world, "good"), runs_of(world, "bad")) == (2, 2)
    assert not world.runs("smoke", "notebooks", "good.ipynb").exists()
    assert not list(world.runs("smoke", "claims").glob("*.json"))
    assert not world.runs("smoke", "report", "_images", "good-cell-3.png").exists()

    # What is changed from outside stands in the records, from which the command is told that makes them again.
    world.notebook("good", COUNT.format("good"), RECORD, parameters="profile = 'smoke'\nsize = 1")
    code, output = world.study("--only", "good", "--set", "size=8")
    assert code == 0, output
    assert json.loads(world.runs("smoke", "claims", "C31-good.json").read_text())["changes"] == ["size=8"]

    written = {path.name for path in world.root.iterdir()}
    assert written <= {"notebooks", "sources", "runs", "good.count", "bad.count"}


@pytest.mark.slow
def test_data_are_prepared_once_before_what_needs_them(world):
    package = world.root / "sources" / "gcplib" / "lab"
    (package / "data.py").write_text(
        "from dataclasses import dataclass\nfrom types import SimpleNamespace\n"
        "@dataclass\nclass TypefacesSpec:\n    families: int = 1\n    pixels: int = 2\n"
        "def load_typefaces(spec):\n    open('made', 'a').write(repr(spec))\n    return SimpleNamespace(path='here')\n"
    )
    (package / "training.py").write_text(
        "def cache_features(dataset, backbone):\n    open('features', 'a').write(backbone)\n"
    )
    code = ("from gcplib.lab.data import TypefacesSpec", "assert open('../runs/study/made').read()", "families")
    world.notebook("a", *code, parameters="families = 8\nrate = 0.5")
    world.profile("shared: {families: 60, rate: 2}\nnotebooks: {a: }", "study")
    code, output = world.study("--profile", "study")
    assert code == 0, output
    assert world.runs("study", "made").read_text() == "TypefacesSpec(families=60, pixels=2)"
    assert world.runs("study", "features").read_text() == "tf_efficientnet_lite0"
    assert world.facts("a", "study")["parameters"] == {"families": 60, "rate": 2.0}
    assert "60" in world.runs("study", "notebooks", "a.ipynb").read_text()

    path = package / "data.py"
    path.write_text(
        path.read_text().replace("    open('made'", "    raise ImportError('no fonts here')\n    open('made'")
    )
    code, output = world.study("--profile", "study")
    assert code == 1, output
    assert "FAILED   data" in output
    assert "no fonts here" in output


@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["a", "b"])
def test_a_notebook_that_trains_for_others_starts_first(world, chosen):
    for name in ("a", "b"):
        world.notebook(name, f"open('../order', 'a').write('{name}')")
    world.profile(
        f"notebooks: {{a: {{first: {str(chosen == 'a').lower()}}}, b: {{first: {str(chosen == 'b').lower()}}}}}"
    )
    code, output = world.study("--cores", "1")
    assert code == 0, output
    assert (world.root / "order").read_text() == chosen + "ab".replace(chosen, "")


SLOW = """
import pathlib, time, os
pathlib.Path('../started').write_text(str(os.getpid()))
while not pathlib.Path('../go').exists(): time.sleep(0.1)
"""


@pytest.mark.slow
def test_a_killed_study_ends_whole_and_continues(world):
    world.notebook("first", COUNT.format("first"))
    world.notebook("slow", SLOW)
    world.profile("notebooks: {first: , slow: }")
    for how in (signal.SIGTERM, signal.SIGKILL):
        process = world.start("study", background=True)
        kernel = int(world.wait_for(lambda: (path := world.root / "started").exists() and path.read_text()))
        world.wait_for(world.runs("smoke", "notebooks", "first.json").exists)
        family = psutil.Process(process.pid).children(recursive=True)
        assert kernel in [member.pid for member in family]
        with pytest.raises(StudyRunning, match=f"process {process.pid}"), only_study(world.runs("smoke")):
            pass
        process.send_signal(how)
        process.wait(timeout=20)
        if how == signal.SIGTERM:
            assert process.returncode == 130
            assert "Interrupted. What is finished is kept" in process.stdout.read()
        # Neither Snakemake nor a job nor a kernel may go on in the background.
        world.wait_for(lambda: not any(m.is_running() and m.status() != "zombie" for m in family), 15)  # noqa: B023
        (world.root / "started").unlink()
        assert not world.runs("smoke", "notebooks", "slow.ipynb").exists()

    (world.root / "go").touch()
    code, output = world.study()
    assert code == 0, output
    assert runs_of(world, "first") == 1
    assert world.runs("smoke", "notebooks", "slow.ipynb").exists()
    assert not list(world.runs("smoke", "notebooks").glob(".slow-*"))


def test_a_cell_that_takes_too_long_and_a_dead_kernel_are_named(world):
    for name, code in (("long", "import time\ntime.sleep(60)"), ("dead", "import os\nos._exit(1)")):
        world.notebook(name, "1", code, "never = 1")
        with pytest.raises(RuntimeError, match=rf"{name} failed in cell \["):
            execute(
                world.notebooks / f"{name}.ipynb",
                "smoke",
                {},
                world.runs("smoke", "notebooks", f"{name}.ipynb"),
                timeout=1,
            )
        facts = world.facts(name)
        assert (facts["status"], facts["failure"]["source"]) == ("failed", code)
        assert {"long": "took longer than the 1 s", "dead": "Kernel died"}[name] in facts["failure"]["error"]


def test_nothing_runs_when_a_parameter_is_wrong(world):
    world.notebook("a", COUNT.format("a"))
    world.profile("notebooks: {a: {parameters: {sedes: 1}}}")
    code, output = world.study()
    assert code == 2
    assert output.startswith("gcplib: error: profile 'smoke' (")
    assert ") has 1 problem:" in output
    assert "a: unknown parameter 'sedes'" in output
    assert "Traceback" not in output
    assert not world.runs().exists()


@pytest.mark.parametrize("deaths", [1, 3])
def test_a_kernel_whose_port_was_taken_is_started_again(world, monkeypatch, capsys, deaths):
    path, tries, run = world.notebook("plain", "print(1)"), [], NotebookClient.execute

    def unlucky(client):
        tries.append(client)
        if len(tries) <= deaths:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return run(client)

    monkeypatch.setattr(NotebookClient, "execute", unlucky)
    output = world.runs("plain.ipynb")
    if deaths == 3:
        with pytest.raises(RuntimeError, match="before replying"):
            execute(path, "smoke", {}, output)
        assert len(tries) == 3
        return
    assert execute(path, "smoke", {}, output) == output
    assert len(tries) == 2
    assert "starting another kernel" in capsys.readouterr().err


def test_the_kernel_is_of_this_python_whatever_jupyter_knows(world, monkeypatch):
    foreign = world.root / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/elsewhere/bin/python"], "display_name": "x", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(world.root / "jupyter"))
    path = world.notebook("plain", f"import sys\nassert sys.executable == {sys.executable!r}")
    execute(path, "smoke", {}, world.runs("plain.ipynb"))


def test_a_full_disk_is_noticed_before_anything_runs(world, monkeypatch):
    world.notebook("a")
    world.profile("notebooks: {a: }")
    monkeypatch.setattr("gcplib.lab.study.runner.FREE_BYTES", 1 << 60)
    with pytest.raises(ValueError, match="GB are free for"):
        run_study("smoke", build_site)
    assert not world.runs().exists()


def test_a_second_study_is_refused_while_one_runs(tmp_path):
    with only_study(tmp_path), pytest.raises(StudyRunning, match="already running"), only_study(tmp_path):
        pass
    with only_study(tmp_path):
        pass
