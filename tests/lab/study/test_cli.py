import subprocess
import sys

import pytest

from gcplib.lab.cli import main


@pytest.mark.parametrize("command", ["data", "data check", "train", "study", "report", "bench", "docs"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"gcplib {command}" in text
    assert "example:" in text


def test_help_imports_nothing_heavy(world):
    heavy = ("torch", "pandas", "papermill", "nbconvert", "snakemake")
    code = f"""
import sys
from gcplib.lab.cli import make_parser
make_parser().format_help()
print([name for name in {heavy} if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=world.root,
        env=world.environment(),
        check=True,
    )
    assert result.stdout.strip() == "[]"


def test_known_errors_are_one_line_and_code_2(world, capsys):
    assert main(["study", "--profile", "nowhere"]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("gcplib: error: ")
    assert "unknown profile 'nowhere'" in captured
    with pytest.raises(FileNotFoundError):
        main(["--traceback", "report", "--profile", "nowhere"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "--familys", "3"], "unknown option '--familys'; did you mean '--families'?"),
        (["data", "check", "x", "--datasett", "cub"], "unknown option '--datasett'; did you mean '--dataset'?"),
        (["stdy"], "unknown value 'stdy'; did you mean 'study'?"),
        (["train", "--accelerator", "cude"], "did you mean 'cuda'?"),
        (["study", "--cores", "0"], "must be at least 1, got 0"),
        (["study", "--data", "CUB_200_2011"], "wanted NAME=PATH, such as birds=data/CUB_200_2011, got 'CUB_200_2011'"),
    ],
)
def test_unknown_options_and_commands_have_the_nearest_one(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


class Ours(RuntimeError):
    """As the library raises it."""

    __module__ = "gcplib.somewhere"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Ours("one reason"), "gcplib: error: one reason"),
        (KeyError("no such name"), "gcplib: error: no such name"),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied: '/x'"),
        (ModuleNotFoundError("No module named 'yaml'", name="yaml"), "pip install 'gcplib["),
    ],
)
def test_what_is_raised_on_purpose_is_one_line(error, message, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("gcplib.lab.study.profiles.make_plan", fail)
    assert main(["study"]) == 2
    assert message in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch):
    def fail(*arguments, **options):
        raise TypeError("a mistake")

    monkeypatch.setattr("gcplib.lab.study.profiles.make_plan", fail)
    with pytest.raises(TypeError):
        main(["study"])


def test_a_terminal_without_the_letters_and_a_backend_of_the_caller_do_no_harm(world):
    world.notebook("b")
    world.profile("notebooks: {Löwe: }")
    own = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "MPLBACKEND": "module://nowhere"}
    code = "from gcplib.lab.cli import main; import matplotlib.pyplot, sys; sys.exit(main(['study']))"
    code = code.replace("import matplotlib.pyplot, ", "import ")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=world.root, env=world.environment() | own
    )
    assert done.returncode == 2
    assert b"unknown notebook 'L\\xf6we'" in done.stderr
