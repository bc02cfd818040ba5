"""What docs/your_pictures.md shows works as it stands there."""

import re
import shlex

import pytest
from requirements_of import ROOT
from trees import make_folder

from gcplib.lab.cli import main

PAGE = (ROOT / "docs" / "your_pictures.md").read_text()


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("stage", ["head", pytest.param("full", marks=pytest.mark.slow)])
def test_the_page_leads_from_a_folder_to_an_answer(stage, own_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    studies = []  # planned for real; running them takes long, and is tested elsewhere
    monkeypatch.setattr("gcplib.lab.study.runner.run_study", lambda *_, data, **__: studies.append(data) or 0)
    make_folder(tmp_path / "flowers", {"train/a": 6, "train/b": 6, "test/a": 2, "test/b": 2})
    (text,) = (text for text in blocks("yaml") if f"stage: {stage}" in text)
    (tmp_path / f"{stage}.yaml").write_text(text)
    small = [
        "recipe.epochs=2",
        "recipe.batch_size=4",
        "data.pixels=64",
        *(["data.scale=72"] if stage == "full" else []),
    ]
    small = [word for change in small for word in ("--set", change)]

    def own(text):
        """The names on the page, as they are here."""
        run = next((own_runs / "train").glob("[!.]*")).name if own_runs.exists() else "RUN"
        names = {"RUN": run, "new_pictures": "flowers/test", "one_more.jpg": "flowers/test/a/0.png"}
        for name, found in (names | {"head.yaml": f"{stage}.yaml"}).items():
            text = text.replace(name, found)
        return text

    for line in "".join(blocks("sh")).splitlines():
        words = shlex.split(own(line))
        assert words[:3] == ["python", "-m", "gcplib"]
        assert main([*words[3:], *(["--accelerator", "cpu", *small] if "train" in words else [])]) == 0, line
    assert [name for name, _ in studies] == ["flowers", "flowers32"]
    out = capsys.readouterr().out
    assert "advice" not in out  # the page's own rates need none
    assert re.search(r"flowers/test/b/\S+ +[ab] ", out)
    found = {}
    (code,) = blocks("python")
    exec(own(code), found)
    assert found["run"].spec.stage == stage
    assert len(found["table"]) == 4
    assert (tmp_path / "answers.csv").read_text().count("\n") == 5
    assert hasattr(found["model"], "backbone")
