"""Figures of comparisons beside the kept evidence."""

import matplotlib.pyplot as plt

from gcplib.lab.analysis import Interval, compare_plot, in_words


def test_figure_leaves_out_what_is_not_there_and_keeps_means_in_sight():
    rows = {"a": Interval(1, -200, 202, 2), "b": Interval(3, 2, 4, 2), "none": None}
    ax = plt.figure().add_subplot()
    compare_plot(rows, ax, "points", {"a": Interval(5, 4, 6, 8), "b": None, "c": Interval(90, 80, 99, 8)})
    low, high = ax.get_xlim()
    assert -20 < low < 0
    assert 6 < high < 20
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_xlabel() == "points"
    arrows = [(line.get_marker(), *line.get_xdata(), *line.get_ydata()) for line in ax.lines]
    assert [arrow for arrow in arrows if arrow[0] in ("<", ">")] == [("<", low, 0), (">", high, 0)]  # of a, not of b
    plt.close("all")


def test_a_bar_that_ends_inside_has_no_arrow():
    ax = plt.figure().add_subplot()
    compare_plot({"a": Interval(0, -1, 1, 2), "b": Interval(10, 3.5, 16.5, 2)}, ax, "points")
    assert ax.get_xlim()[1] > 16.5  # the end is in the margin
    assert not {"<", ">"} & {line.get_marker() for line in ax.lines}
    plt.close("all")


def test_figure_without_rows_or_range():
    ax = plt.figure().add_subplot()
    compare_plot({}, ax, "points")
    compare_plot({"a": Interval(0, 0, 0, 2)}, ax, "points")
    compare_plot({"a": Interval(5, 5, 5, 2)}, ax, "points", lines=())
    for value in (0, 4e-17):  # rounding is not enlarged
        compare_plot({"a": Interval(value, value, value, 2)}, ax, "points")
        assert ax.get_xlim() == (-1, 1)
    plt.close("all")


def test_words():
    assert in_words({"gate": 9.6, "SE": 100}, "{:.0f} %") == "gate 10 %, SE 100 %"
    assert in_words({}) == ""
