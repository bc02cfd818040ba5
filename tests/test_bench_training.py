"""Timing whole networks: what is timed exists, and each is compared with the network it changes."""

import pytest

from gcplib.bench import training
from gcplib.bench.training import CASES, measure_training
from gcplib.models import SYSTEMS
from gcplib.training import Engine


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
    assert (table.pictures_per_second > 0).all()
    assert table.share["gap"] == 1
    assert (table.beside == "gap").all()
    assert table.parameters["diversification"] == table.parameters["gap"] < table.parameters["Coarse2Fine"]
    assert (table.low <= table.pictures_per_second).all()
    assert (table.pictures_per_second <= table.high).all()


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
    assert "pictures_per_second" in capsys.readouterr().out
    (path,) = tmp_path.rglob("training_speed_*.csv")
    assert path.read_text().count("\n") == 3
