"""Methods by name: the runs they stand for, and what is said of what became of these."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from gcplib.lab.analysis import curves_of, draw_curves, times_to
from gcplib.lab.comparison import Methods, Trained, beside_published, draw_whole, most_confused, pace_of, train_methods
from gcplib.lab.setting import make_setting
from gcplib.lab.training import Recipe, RunSpec

KNOWN = {
    "average": {"pool": "gap"},
    "hybrid": {"pool": "isqrt_cov", "recipe": {"switch": [{"pool": "svd_pade", "epoch": 0.75}]}},
    "SEB": {"pool": "mpn_cov", "options": {"amplify": "released"}},
}
BASE = RunSpec(recipe=Recipe(epochs=8, learning_rate=0.1))


def methods(**chosen):
    return Methods.of(BASE, KNOWN, ["average"], chosen, [0.1, 0.2])


def test_methods_are_named_by_what_is_known_by_pools_and_by_fields():
    found = methods(hybrid={}, cov={}, mine={"pool": "mpn_cov", "reduction": 8})
    assert list(found.fields) == ["average", "hybrid", "cov", "mine"]
    assert found.spec("cov", "fine", 1, 0.2).pool == "cov"
    assert found.spec("mine", "fine", 1, 0.2).reduction == 8
    with pytest.raises(ValueError, match=r"\['other'\] are none of average, hybrid, SEB"):
        methods(other={})


def test_a_run_has_its_labels_seed_and_rate_and_a_switch_its_epoch():
    spec = methods(hybrid={}).spec("hybrid", "coarse", 3, 0.05)
    assert (spec.labels, spec.seed, spec.recipe.learning_rate, spec.recipe.epochs) == ("coarse", 3, 0.05, 8)
    assert [(entry.pool, entry.epoch) for entry in spec.recipe.switch] == [("svd_pade", 6)]
    assert KNOWN["hybrid"]["recipe"]["switch"][0]["epoch"] == 0.75


def test_methods_have_rates_labels_and_cases_of_their_own():
    found = methods(SEB={"labels": "fine", "recipe": {"learning_rate": 0.3}})
    assert found.rates_of("average") == [0.1, 0.2]
    assert found.rates_of("SEB") == [0.3]
    cases = found.cases(["fine", "coarse"], 2, {"average": 0.1, "SEB": 0.3})
    assert [case[:3] for case in cases] == [
        *(("average", "fine", 0), ("average", "fine", 1), ("SEB", "fine", 0), ("SEB", "fine", 1)),
        *(("average", "coarse", 0), ("average", "coarse", 1)),
    ]


def test_methods_without_options_are_known_by_their_pools():
    assert methods(hybrid={}, SEB={}).by_pools() == {"gap": "average", "isqrt_cov+svd_pade": "hybrid"}


@pytest.fixture(scope="module")
def trained():
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=0.1)
    setting = make_setting(families=3, train=4, validation=1, test=2, pixels=64, stride=16, device="cpu", recipe=recipe)
    found = Methods.of(setting.base, KNOWN, ["average"], {"SEB": {"labels": "fine"}}, 0.1)
    best, tried = found.tune(setting)
    assert best == {"average": 0.1, "SEB": 0.1}
    assert tried.empty
    return train_methods(setting, found, found.cases(setting.kinds, 2, best))


def test_training_makes_one_table_of_runs_and_one_of_epochs(trained):
    assert isinstance(trained, Trained)
    table = trained.results
    assert list(table.method) == ["average"] * 2 + ["SEB"] * 2 + ["average"] * 2
    assert list(table["labels"]) == ["fine"] * 4 + ["coarse"] * 2
    assert (table.score == table.test_accuracy).all()
    assert set(table.dataset) == {"typefaces"}
    assert len(trained.curves) == 2 * len(table)
    assert {"method", "labels", "seed", "rate", "epoch", "percent"} <= set(trained.curves)


def test_confusions_are_percent_of_a_class(trained):
    found = most_confused(trained, "average", ["a", "b", "c"])
    assert list(found) == ["class", "taken for", "% of its test images"]
    assert (found["class"] != found["taken for"]).all()
    assert found["% of its test images"].astype(float).between(0, 100).all()


def test_curves_are_drawn_in_color_or_gray(trained):
    _, ax = plt.subplots()
    draw_curves(ax, trained.curves, "train_loss", "method", {"average": "C0"}, "loss")
    assert [line.get_color() for line in ax.lines].count("0.8") == 1
    assert ax.get_yscale() == "log"
    assert ax.get_legend_handles_labels()[1] == ["average"]
    plt.close()


def test_speeds_leave_out_the_first_of_several_epochs(trained):
    pace = pace_of(trained.curves[trained.curves["labels"] == "fine"])
    assert list(zip(pace.method, pace.seed, strict=True)) == [("average", 0), ("average", 1), ("SEB", 0), ("SEB", 1)]
    last = trained.curves[(trained.curves.epoch == 1) & (trained.curves["labels"] == "fine")]
    assert list(pace.images_per_second) == list(last.images_per_second)
    figure = draw_whole(trained, {"average": "C0", "SEB": "C1"})
    assert [ax.get_title() for ax in figure.axes] == ["while training", "at the end", "training speed"]
    plt.close()


def history(*percent):
    table = pd.DataFrame({"epoch": range(len(percent)), "seconds": 2.0, "validation_accuracy": percent})
    return SimpleNamespace(metrics=table.assign(validation_accuracy=table.validation_accuracy / 100))


def test_what_is_never_reached_counts_as_the_whole_run():
    runs = {("a", 0): history(10, 30, 50), ("b", 0): history(5, 10, 10), ("b", 1): history(50, 50, 50)}
    found = times_to(curves_of(runs, ["method", "seed"]), {"goal": {0: 30.0}}, 3)
    assert list(found.itertuples(index=False, name=None)) == [
        ("a", 0, "goal", 2, 4.0, False, 6.0),
        ("b", 0, "goal", 3, 6.0, True, 6.0),
    ]


def test_published_differences_are_of_one_table_each():
    found = beside_published("gap", {"mpn_cov": "1.0 [0.5, 1.5]"})
    assert found.loc["MPN-COV", "here"] == "1.0 [0.5, 1.5]"
    assert found.loc["iSQRT-COV", "here"] == ""
    assert found.loc["iSQRT-COV", "ImageNet, ResNet-50 (poster)"] == "+1.04"
    assert "average" not in found.index
    assert (beside_published("isqrt_cov", {}).loc["SVD-TopN"] == "no convergence").sum() == 3
