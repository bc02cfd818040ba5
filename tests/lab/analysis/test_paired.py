"""Pairs over seeds and images: the same numbers as by hand, and nothing where there is nothing to compare."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from gcplib.lab.analysis import Paired, crossed_interval, mean_interval, paired_difference
from gcplib.lab.outcomes import pack

OWN = pd.DataFrame(
    {
        "method": ["a"] * 3 + ["b"] * 3 + ["c"],
        "seed": [0, 1, 2, 2, 1, 0, 0],
        "labels": ["fine"] * 7,
        "score": [5.0, 6.0, 8.0, 2.0, 2.5, 3.0, 1.0],
        "loss": [1.0, 2.0, 3.0, 1.0, 1.0, None, 0.0],
    }
)
KEPT = OWN.assign(score=OWN.score + 1)


def test_a_gain_is_that_of_the_pairs_whatever_the_order_of_rows():
    found = Paired(OWN).gain("a", "b")
    assert found == paired_difference([5.0, 6.0, 8.0], [3.0, 2.5, 2.0])
    assert Paired(OWN).on("loss").gain("a", "b").n == 2  # a seed without a number has no pair


def test_methods_may_be_named_by_several_columns():
    paired = Paired(OWN, by=("method", "labels"))
    assert paired.gain(("a", "fine"), ("b", "fine")) == Paired(OWN).gain("a", "b")
    assert paired.gain(("a", "coarse"), ("b", "fine")) is None


RIGHT = np.random.default_rng(0).random((2, 3, 40)) < [[[0.8]], [[0.6]]]  # of two methods, three seeds, forty images
BY_IMAGE = pd.DataFrame(
    {
        "method": ["a"] * 3 + ["b"] * 3,
        "seed": [0, 1, 2] * 2,
        "score": 100 * RIGHT.mean(2).ravel(),
        "train_accuracy": 90.0,
        "correct": [pack(right) for right in RIGHT.reshape(6, -1)],
    }
)


def test_accuracies_are_crossed_with_images_where_it_is_known_which_were_right():
    a, b = 100.0 * RIGHT
    found = Paired(BY_IMAGE).gain("a", "b")
    want = crossed_interval(a - b)
    assert [found.low, found.high, found.freedom] == pytest.approx([want.low, want.high, want.freedom])
    assert found.n == 3  # seeds
    assert Paired(BY_IMAGE).mean("a").low == pytest.approx(crossed_interval(a).low)
    over_seeds = Paired(BY_IMAGE.drop(columns="correct")).gain("a", "b")
    assert over_seeds.low == pytest.approx(paired_difference(a.mean(1), b.mean(1)).low)
    assert Paired(BY_IMAGE).on("train_accuracy").mean("a") == mean_interval([90.0] * 3)  # not of these images


def test_a_run_that_diverged_has_its_accuracy_for_every_image():
    a, b = 100.0 * RIGHT
    b[1] = 2.5
    diverged = BY_IMAGE.assign(score=[*a.mean(1), *b.mean(1)])
    diverged.loc[4, "correct"] = None
    want = crossed_interval(a - b)
    assert Paired(diverged).gain("a", "b").low == pytest.approx(want.low)
    diverged.loc[3:, "correct"] = None
    assert Paired(diverged).gain("a", "b").low == pytest.approx(crossed_interval(a - b.mean(1)[:, None]).low)


def test_an_accuracy_that_is_not_that_of_its_images_is_an_error():
    with pytest.raises(ValueError, match="% are correct"):
        Paired(BY_IMAGE.assign(score=50.0)).gain("a", "b")


def test_what_is_missing_gives_nothing():
    assert Paired(OWN).gain("a", "c") is None  # one seed
    assert Paired(OWN).gain("a", "b", kept=True) is None  # no evidence
    assert Paired(OWN).on("accuracy").gain("a", "b") is None  # no such column
    assert Paired(OWN).on(labels="coarse").gain("a", "b") is None
    assert Paired(OWN).mean("c") is None


def test_a_table_has_corrected_p_values():
    found = Paired(OWN).table({"a minus b": ("a", "b"), "a minus c": ("a", "c"), "b minus a": ("b", "a")})
    assert list(found.difference) == ["a minus b", "b minus a"]
    assert found.p[0] == pytest.approx(paired_difference([5.0, 6.0, 8.0], [3.0, 2.5, 2.0]).p_value)
    assert found["p, Holm"][0] == pytest.approx(2 * found.p[0])
    assert Paired(OWN).table({}).empty


def test_own_runs_and_kept_evidence_are_drawn():
    _, axes = plt.subplots(1, 2)
    paired = Paired(OWN, KEPT)
    paired.draw(axes[0], {"a minus b": ("a", "b"), "a minus c": ("a", "c")})
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["a minus b"]
    assert "gray: kept evidence" in [text.get_text() for text in axes[0].texts]
    paired.draw_means(axes[1], ["a", "b"])
    assert [text.get_text() for text in axes[1].texts if text.get_text()[0].isdigit()] == ["6.3", "2.5"]
    plt.close()


def test_marks_far_from_the_means_are_inside_the_axes():
    _, ax = plt.subplots()
    Paired(OWN).draw_means(ax, ["a", "b"], lines=[0, 100])
    low, high = ax.get_xlim()
    assert low < 0 < 100 < high
    assert [line.get_linestyle() for line in ax.lines if len(set(line.get_xdata())) == 1][-2:] == ["-", ":"]
    plt.close()
