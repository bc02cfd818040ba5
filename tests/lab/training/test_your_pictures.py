"""What docs/your_pictures.md shows works as it stands there."""

import re
import shlex

import pytest
from requirements_of import ROOT
from trees import make_folder

from gcplib.lab.cli import main, make_parser
from gcplib.lab.training import Run

PAGE = (ROOT / "docs" / "your_pictures.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("stage", ["head", "full"])
def test_the_page_leads_from_a_folder_to_an_answer(stage, own_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "flowers", {"train/a": 6, "train/b": 6, "test/a": 2, "test/b": 2})
    (block,) = (text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if f"stage: {stage}" in text)
    (tmp_path / f"{stage}.yaml").write_text(block)
    small = ["--set", "recipe.epochs=2", "--set", "data.pixels=64", "--set", "recipe.batch_size=4"]
    small += ["--set", "data.scale=72"] if stage == "full" else []
    for line in COMMANDS:
        if " train " in line:
            words = shlex.split(line.replace("head.yaml", f"{stage}.yaml"))
            assert main([*words[3:], "--accelerator", "cpu", *small]) == 0
    assert "advice" not in capsys.readouterr().out  # the page's own rates need none
    (folder,) = (own_runs / "train").iterdir()
    assert Run.load(folder).spec.stage == stage
    for line in COMMANDS:
        if " predict " in line:
            words = shlex.split(line.replace("RUN", folder.name).replace("one_more.jpg", "flowers/test/a/0.jpg"))
            assert main([word.replace("new_pictures", "flowers/test") for word in words[3:]]) == 0
    assert "probability_3" not in (tmp_path / "answers.csv").read_text()  # two classes
    assert re.search(r"flowers/test/b/\S+ +[ab] ", capsys.readouterr().out)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_exists(line):
    assert make_parser().parse_args(shlex.split(line)[3:]).run
