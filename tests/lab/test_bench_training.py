"""Timing whole networks: what is timed exists, and each is compared with the network it changes."""

import argparse
import re
import shutil

import pytest

from gcplib.lab.bench import networks
from gcplib.lab.bench.networks import CASES, measure_training, training_speed_page
from gcplib.lab.cli import bench
from gcplib.lab.files import project_root
from gcplib.lab.training import Engine
from gcplib.lab.training.systems import SYSTEMS


def command(*arguments):
    parser = argparse.ArgumentParser(prog="gcplib bench")
    bench.add_options(parser)
    return bench.run(parser.parse_args(["training", *arguments]))


def test_every_system_and_the_default_loss_are_among_the_cases():
    built = {name for case in CASES.values() for name in case.systems}
    assert built == set(SYSTEMS)
    for name, case in CASES.items():
        assert case.beside in CASES
        # What is timed beside must itself be plain, or its relative speed would not be the cost of one change.
        assert CASES[case.beside].systems == {}, name


@pytest.mark.slow
def test_a_table_of_small_networks(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path))
    names = ["gap", "channel gates", "diversification", "Coarse2Fine"]
    table = measure_training(64, names, 2, 1, Engine("cpu", loaders=0), reduction=8).set_index("network")
    assert table.index.tolist() == names
    assert (table.images_per_second > 0).all()
    assert table.relative["gap"] == 1
    assert (table.beside == "gap").all()
    assert table.parameters["diversification"] == table.parameters["gap"] < table.parameters["Coarse2Fine"]
    assert (table.low <= table.images_per_second).all()
    assert (table.images_per_second <= table.high).all()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["gap", "attention"], "unknown network 'attention'"),
        (["idccp"], "'idccp' is compared with 'mpn_cov'; time that, too"),
        (["gap", "idccp"], "'idccp' is compared with 'mpn_cov'"),
    ],
)
def test_cases_that_make_no_sense_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        measure_training(64, names, 2, 1, Engine("cpu"))


def test_a_whole_table_is_kept_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    (tmp_path / "data").mkdir()
    shutil.copy(project_root() / "data" / "typefaces.txt", tmp_path / "data")
    monkeypatch.setenv("GCPLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(networks, "CASES", {name: CASES[name] for name in ("gap", "cov")})
    only = ["--pixels", "64", "--rounds", "2", "--steps", "1", "--reduction", "8", "--keep", "--networks", "gap"]
    with pytest.raises(ValueError, match="are not among yours: cov"):
        command(*only)
    assert command(*only, "cov") == 0
    printed = capsys.readouterr().out
    assert "images_per_second" in printed
    assert "cores" in printed
    (path,) = (tmp_path / "runs").rglob("training_speed_*.csv")
    assert path.read_text().count("\n") == 3
    text = (tmp_path / "docs" / "training_speed.md").read_text()
    assert text == training_speed_page()
    assert re.search(r"\| cov, 64 px \| [\d.]+ \[[\d.]+, [\d.]+\] \| \d+ % of `gap` \|", text)
    assert "reduction to 8 channels, 2 rounds of 1 batches of 32." in text
