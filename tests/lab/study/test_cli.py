import subprocess
import sys

import pytest

from gcplib.lab.cli import main
from gcplib.lab.cli.train import read_spec


@pytest.mark.parametrize("command", ["data", "train", "study", "report"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m gcplib {command}" in text
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
    assert captured.startswith("gcplib: error: no profile 'nowhere'")
    with pytest.raises(FileNotFoundError):
        main(["--traceback", "report", "--profile", "nowhere"])


def test_settings_of_a_run_come_from_a_file_and_the_command_line(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("pool: cov\nrecipe: {epochs: 3, rate: 0.5}\n")
    changes = ["recipe.rate=1e-3", "seed=4", "labels=coarse", "recipe.fast=true", "limit=null"]
    assert read_spec(config, changes) == {
        "pool": "cov",
        "recipe": {"epochs": 3, "rate": 0.001, "fast": True},
        "seed": 4,
        "labels": "coarse",
        "limit": None,
    }
    for change, message in (("seed", "KEY=VALUE"), ("pool.x=1", "'pool' is a value")):
        with pytest.raises(ValueError, match=message):
            read_spec(config, [change])
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        read_spec(tmp_path / "other.yaml", [])
