"""The probe of a folder: from images to a table, a figure and a sentence; and what the sentence rests on."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from trees import make_folder

from gcplib.lab import probe_questions, probing
from gcplib.lab.analysis.statistics import crossed_bootstrap, crossed_interval
from gcplib.lab.cli import main
from gcplib.lab.data import TypefacesSpec, load_data
from gcplib.lab.probe_report import advice, figure, probe_table
from gcplib.lab.probing import ProbeSpec, Result, probe
from gcplib.lab.training import cache_all_features
from gcplib.nn.moment_probing import MomentProbingPool
from gcplib.probe import LinearProbe
from gcplib.probe.base import as_maps


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path / "cache"))
    return make_folder(tmp_path / "images", {"train/a": 8, "train/b": 8, "test/a": 4, "test/b": 4})


def test_the_command_writes_a_report_and_a_second_run_reuses_everything(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(probe_questions, "TRAINING", {"epochs": 1, "least_steps": 10})
    arguments = ["probe", str(folder), "--pixels", "64", "--seeds", "2", "--widths", "8"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Take the " in shown
    (made,) = (tmp_path / "runs" / "probe").glob("folder-*")
    table = pd.read_csv(made / "table.csv")
    assert set(table.probe) >= {"own average", "average", "attention", "root, 8 channels", "Moment Probing"}
    assert table.accuracy.between(0, 100).all()
    assert (table.low <= table.accuracy).all()
    assert (made / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert advice_of(made) in shown
    before = table

    def not_again(*_):
        raise AssertionError("fitted again")

    monkeypatch.setattr(probing, "_fit", not_again)
    assert main(arguments) == 0
    pd.testing.assert_frame_equal(pd.read_csv(made / "table.csv"), before)


def advice_of(folder):
    return (folder / "report.md").read_text().split("\n\n")[1]


def test_the_own_average_is_as_good_as_a_tuned_regression_of_scikit_learn():
    # The images of the notebooks' defaults, which have read them by then or read them after.
    data = load_data(TypefacesSpec(families=12, train=10, validation=4, test=6, pixels=224))
    own, labels = cache_all_features(data)["own"].float().numpy(), data.labels()
    train, validation, test = (data.indices(split) for split in ("train", "validation", "test"))
    both = np.concatenate([train, validation])
    fold = np.concatenate([np.full(len(train), -1), np.zeros(len(validation))])
    splits = [(np.flatnonzero(fold == -1), np.flatnonzero(fold == 0))]
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    grid = GridSearchCV(regression, {"logisticregression__C": 10.0 ** np.arange(-5, 2)}, cv=splits)
    want = grid.fit(own[both], labels[both]).score(own[test], labels[test])
    found = LinearProbe().fit(own[train], labels[train], validation=(own[validation], labels[validation]))
    got = found.score(own[test], labels[test])
    # A point, and what so few images cannot tell: each tunes its strength on 48. It may well be ahead.
    assert got > want - 0.01 - 2 * np.sqrt(want * (1 - want) / len(test)) / 2


def result(name, order, rate, length=100, images=2000, stage="stride16"):
    generator = np.random.default_rng(len(name))
    return Result(name, stage, order, generator.random((3, images)) < rate, length, 10 * length, 0.1, [1.0], False)


@pytest.mark.parametrize(
    ("results", "start", "has"),
    [
        (
            [result("average", 1, 0.80), result("root", 2, 0.90)],
            "Take the root at stride 16: 89",
            "above the strongest",
        ),
        ([result("average", 1, 0.90), result("root", 2, 0.80)], "Take the average at stride 16", "does worse"),
        ([result("average", 1, 0.80), result("root", 2, 0.805)], "Take the average", "not better beyond chance"),
        (
            [result("average", 1, 0.80, images=60), result("root", 2, 0.82, images=60)],
            "Take the average",
            "60 test images cannot tell less than",
        ),
        (
            [result("average", 1, 0.7), result("root", 2, 0.91, 8000), result("narrow root", 2, 0.90, 2000)],
            "Take the narrow root",
            "no more than chance explains, with 8,000",
        ),
    ],
)
def test_the_sentence_says_what_to_take(results, start, has):
    text = advice(results)
    assert text.startswith(start)
    assert has in text


def test_the_table_compares_with_the_strongest_average_for_all_at_once():
    results = [
        result("average", 1, 0.8),
        result("own average", 1, 0.5),
        *(result(f"root{n}", 2, 0.8) for n in range(9)),
    ]
    table = probe_table(results).set_index("probe")
    assert table.loc["average", "gain"] == 0
    assert table.loc["own average", "gain"] == pytest.approx(-30, abs=3)
    alone = probe_table(results[:3]).set_index("probe")
    # Nine comparisons have wider intervals than one.
    assert np.diff(table.loc["root0", ["gain_low", "gain_high"]]) > 1.2 * np.diff(
        alone.loc["root0", ["gain_low", "gain_high"]]
    )
    assert figure(probe_table(results), "title").startswith(b"\x89PNG")


def test_the_bootstrap_of_rows_and_columns_is_as_wide_as_students_where_rows_are_many():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(40, 1)) + 3 * generator.normal(size=(1, 300)) + generator.normal(size=(40, 300))
    one, other = crossed_bootstrap(values), crossed_interval(values)
    assert one.mean == pytest.approx(other.mean)
    assert (one.high - one.low) / (other.high - other.low) == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match="need a table"):
        crossed_bootstrap([[np.nan]])


def test_a_wrong_stage_is_named(folder):
    from gcplib.lab.data import ImagesSpec

    with pytest.raises(ValueError, match=r"tf_efficientnet_lite0 has features of stride \[2, 4, 8, 16, 32\], not 7"):
        probe(ProbeSpec(ImagesSpec("folder", str(folder), 64), strides=[7]))


def test_a_vision_transformer_is_read_with_its_class_token():
    generator = torch.Generator().manual_seed(0)
    features = {
        "stride16": torch.randn(4, 24, 3, 3, generator=generator),
        "tokens": torch.randn(4, 1, 24, generator=generator),
        "own": torch.randn(4, 24, generator=generator),
    }
    spec = ProbeSpec(TypefacesSpec(families=2, train=2, validation=1, test=1, pixels=64))
    asked = {(one.what, one.stage): one for one in probe_questions.asked_for(spec, features)}
    assert ("class token", "tokens") in asked
    one = asked["Moment Probing", "class token and stride16"]
    token = asked["class token", "tokens"]
    torch.testing.assert_close(probe_questions.read(features, token), features["tokens"][:, 0])
    tokens = probe_questions.read(features, one)
    assert tokens.shape == (4, 10, 24)
    torch.manual_seed(0)
    pool = one.options["pool"](24, width=64)
    want = MomentProbingPool.forward(pool, features["stride16"], features["tokens"][:, 0])
    torch.testing.assert_close(pool(as_maps(tokens)), want)


MAPS = {
    "stride16": torch.randn(60, 24, 5, 5, generator=torch.Generator().manual_seed(1)),
    "own": torch.randn(60, 12, generator=torch.Generator().manual_seed(2)),
}
SPEC = TypefacesSpec(families=2, train=2, validation=1, test=1, pixels=64)


def test_a_thorough_probe_asks_what_claims_need_and_none_is_trained_with_no_seeds():
    spec = ProbeSpec(SPEC, widths=(8, 64), seeds=0, thorough=True)
    asked = {(one.what, one.width) for one in probe_questions.asked_for(spec, MAPS)}
    pools = {"covariance", "root", "Gaussian"}
    # 24 channels: an average of 24 entries, and a covariance of 6 channels with 21.
    assert asked == {(what, width) for what in pools for width in (6, 8, 24)} | {
        ("own average", 0),
        ("average", 0),
        ("sparse inverse", 8),
        ("sparse inverse", 24),
        ("power 1/4", 8),
        ("power 3/4", 8),
        ("own average and covariance", 24),
        ("own average and root", 24),
    }
    usual = probe_questions.asked_for(ProbeSpec(SPEC, widths=(8, 64), seeds=2), MAPS)
    assert {one.what for one in usual} == pools | {"own average", "average", "attention", "Moment Probing"}


def test_what_stands_beside_the_own_average_weighs_as_much():
    asked = probe_questions.Asked("own average and root", "stride16", 2, LinearProbe, {"pool": "mpn_cov", "width": 8})
    training = torch.arange(40)
    both = probe_questions.beside_own(MAPS, asked, training)
    assert both.shape == (60, 12 + 36)
    for part in (both[training, :12], both[training, 12:]):
        torch.testing.assert_close(part.mean(0), torch.zeros(part.shape[1]), atol=1e-5, rtol=0)
        assert part.square().sum(1).mean() == pytest.approx(1, rel=1e-4)
    # The images for testing have no say in it.
    other = MAPS | {name: torch.cat([maps[:40], 7 * maps[40:]]) for name, maps in MAPS.items()}
    torch.testing.assert_close(probe_questions.beside_own(other, asked, training)[:40], both[:40])
