"""Comparisons over seeds crossed with images: the same numbers as by hand, and what is missing is told apart."""

import numpy as np
import pandas as pd
import pytest

from gcplib.lab.analysis import Crossed, crossed_interval, grouped_plot

SEEDS, IMAGES = 3, 4


@pytest.fixture
def numbers():
    return {name: np.random.default_rng(i).normal(size=(SEEDS, IMAGES)) for i, name in enumerate("ab")}


def table_of(numbers, view="v"):
    rows = [
        {"seed": seed, "image": image, "view": view, "set": name, "score": values[seed, image]}
        for name, values in numbers.items()
        for seed, image in np.ndindex(SEEDS, IMAGES)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_intervals_are_of_seeds_crossed_with_images(numbers):
    crossed = Crossed(table_of(numbers), by="set", where={"view": "v"})
    mean, expected = crossed.mean("a"), crossed_interval(numbers["a"])
    assert (mean.low, mean.high, mean.freedom) == pytest.approx((expected.low, expected.high, expected.freedom))
    assert mean.n == SEEDS
    gain, expected = crossed.gain("a", "b"), crossed_interval(numbers["a"] - numbers["b"])
    assert (gain.mean, gain.low, gain.high) == pytest.approx((expected.mean, expected.low, expected.high))
    alone = crossed.over_images().mean("a")
    assert alone.mean == pytest.approx(numbers["a"].mean())
    assert alone.n == IMAGES


def test_what_is_missing_has_no_interval(numbers):
    table = table_of(numbers)
    crossed = Crossed(table, by="set")
    assert crossed.mean("c") is None
    assert crossed.on("other").mean("a") is None
    assert crossed.mean("a", kept=True) is None
    holes = table[~((table["seed"] == 1) & (table["image"] == 2))]
    assert Crossed(holes, by="set").mean("a") is None  # not all of the cells
    assert Crossed(table.drop(columns="image"), by="set").mean("a") is None


def test_kept_evidence_is_compared_alike(numbers):
    kept = Crossed(table_of(numbers).iloc[:0], table_of(numbers), by=("view", "set"))
    assert kept.gain(("v", "a"), ("v", "b")) is None
    found = kept.gain(("v", "a"), ("v", "b"), kept=True)
    assert found.mean == pytest.approx((numbers["a"] - numbers["b"]).mean())


def test_groups_are_drawn_one_below_the_other(numbers):
    import matplotlib.pyplot as plt

    crossed = Crossed(table_of(numbers), by="set")
    means = {name: crossed.mean(name) for name in "ab"}
    _, ax = plt.subplots()
    grouped_plot({"one": means, "two": means | {"b": None}}, ax, {"a": "k", "b": "r"}, 0.0, hollow="b")
    assert ax.get_legend_handles_labels()[1] == ["a", "b"]
    heights = [line.get_ydata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert heights == pytest.approx([-0.4, 0.4, 0.6])
    plt.close("all")
