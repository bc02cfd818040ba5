"""What is read at each stage: rows for the figure, and the lead of the root."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from gcplib.lab.comparison import draw_stages, gaps_of, stages_table

MEASURES = pd.DataFrame({"channels": [10, 10], "rank": [3.0, 2.0]}, index=["stride8", "stride16"])


def row(what, features, width, accuracy):
    return {"what": what, "features": features, "width": width, "accuracy": accuracy, "low": accuracy - 1} | {
        "high": accuracy + 1,
        "length": 5,
    }


@pytest.fixture
def probed():
    rows = [row("own average", "own", 0, 50.0), row("sparse inverse", "stride8", 8, 99.0)]
    for stage, base in (("stride16", 40.0), ("stride8", 20.0)):
        rows += [row("average", stage, 0, base)]
        # 4 of 10 channels have a covariance as long as the average, or shorter by little.
        for width, more in ((4, 1.0), (6, 5.0), (8, 10.0)):
            rows += [row("covariance", stage, width, base + more), row("root", stage, width, base + 2 * more)]
    return pd.DataFrame(rows)


def test_the_widest_and_those_as_long_as_the_average_are_kept(probed):
    found = stages_table(probed, MEASURES)
    at = found[found.features == "stride8"].set_index("line").accuracy
    assert at.to_dict() == {
        "average": 20.0,
        "covariance": 30.0,
        "root": 40.0,
        "covariance, as long": 21.0,
        "root, as long": 22.0,
    }
    assert found[found.features == "stride16"].stride.unique() == [16.0]
    assert found[found.line == "own average"].accuracy.item() == 50.0


def test_the_lead_of_the_root_stands_beside_what_was_measured(probed):
    found = gaps_of(stages_table(probed, MEASURES), ["rank"])
    assert found.loc["stride8"].to_dict() == {"at full width": 20.0, "at equal length": 2.0, "rank": 3.0}
    wide = probed[probed.width != 4]
    assert "at equal length" not in gaps_of(stages_table(wide, MEASURES), ["rank"])


def test_panels_have_stages_in_order_and_one_legend(probed):
    figure = draw_stages({"here": stages_table(probed, MEASURES)})
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["stride 8", "stride 16"]
    assert len(figure.legends) == 1
    plt.close()
