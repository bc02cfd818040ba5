"""Timing whole networks: what is timed exists, and each is compared with the network it changes."""

import re

import pandas as pd
import pytest
import torch

from gcplib.lab.bench import training
from gcplib.lab.bench.training import (
    BEGIN,
    CASES,
    END,
    diversification_ms,
    kept_speeds,
    measure_training,
    readme_block,
)
from gcplib.lab.files import project_root
from gcplib.lab.training import Engine
from gcplib.lab.training.systems import SYSTEMS
from gcplib.nn import DiversificationBlock


def test_every_system_and_the_default_loss_are_among_the_cases():
    built = {name for case in CASES.values() for name in case.systems}
    assert built == set(SYSTEMS)
    for name, case in CASES.items():
        assert case.beside in CASES
        # What is timed beside must itself be plain, or the share would not be the cost of one change.
        assert CASES[case.beside].systems == {}, name


def test_a_table_of_small_networks(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path))
    names = ["gap", "channel gates", "diversification", "Coarse2Fine"]
    table = measure_training(64, names, 2, 1, Engine("cpu", loaders=0), reduction=8).set_index("network")
    assert table.index.tolist() == names
    assert (table.images_per_second > 0).all()
    assert table.share["gap"] == 1
    assert (table.beside == "gap").all()
    assert table.parameters["diversification"] == table.parameters["gap"] < table.parameters["Coarse2Fine"]
    assert (table.low <= table.images_per_second).all()
    assert (table.images_per_second <= table.high).all()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["gap", "attention"], "unknown case 'attention'; known: gap, cov"),
        (["idccp"], "'idccp' is compared with 'mpn_cov'; time that, too"),
        (["gap", "idccp"], "'idccp' is compared with 'mpn_cov'"),
    ],
)
def test_cases_that_make_no_sense_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        measure_training(64, names, 2, 1, Engine("cpu"))


def test_the_command_writes_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path))
    training.main(["--pixels", "64", "--networks", "gap", "cov", "--rounds", "2", "--steps", "1", "--reduction", "8"])
    assert "images_per_second" in capsys.readouterr().out
    (path,) = tmp_path.rglob("training_speed_*.csv")
    assert path.read_text().count("\n") == 3


def test_a_whole_table_is_kept_and_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GCPLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(training, "CASES", {name: CASES[name] for name in ("gap", "cov")})
    only = ["--pixels", "64", "--rounds", "2", "--steps", "1", "--reduction", "8", "--keep", "--networks", "gap"]
    with pytest.raises(ValueError, match="were not timed: cov"):
        training.main(only)
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nformer\n{END}\nafter\n")
    training.main([*only, "cov"])
    text = (tmp_path / "README.md").read_text()
    assert text == f"before\n{BEGIN}\n{readme_block(kept_speeds())}\n{END}\nafter\n"
    assert re.search(r"\| cov, 64 px \| [\d.]+ \[[\d.]+, [\d.]+\] \| \d+ % of `gap` \|", text)
    ms = pd.read_csv(tmp_path / "data" / "evidence" / "training_speed_cpu.csv").diversification_ms[0]
    assert f"takes {ms:.1f} ms at 200 classes" in text


def test_the_block_is_timed_at_the_classes_asked_for(monkeypatch):
    seen = []
    plain = DiversificationBlock.forward
    monkeypatch.setattr(DiversificationBlock, "forward", lambda self, x: seen.append(x.shape) or plain(self, x))
    assert diversification_ms(torch.device("cpu"), classes=7, batch=2, side=4) > 0
    assert set(seen) == {(2, 7, 4, 4)}


def test_the_readme_shows_what_is_kept():
    text = (project_root() / "README.md").read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0].strip() == readme_block(kept_speeds())
