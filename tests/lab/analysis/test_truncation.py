import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from notebook_code import definitions

from gcplib.lab.analysis import Convergence, progress_over, standing
from gcplib.linalg import NonFiniteError, band, covariance_map, get_rule, top, truncate

DOUBLE = torch.float64
CODE = definitions("04")
RULES = Convergence(nothing=0.05, half=0.5, clip=5.0)  # the notebook's


def history(loss, accuracy, norm=None):
    norm = [1.0] * len(loss) if norm is None else norm
    return pd.DataFrame({"train_loss": loss, "train_accuracy": accuracy, "gradient_norm": norm})


GUESSING = math.log(60)


def even(classes):
    return np.ones(classes)


def judged(run, counts, outcome="finished"):
    verdict, reasons = RULES.judge(run, counts, outcome)
    return (verdict, reasons, *standing(run, counts))


@pytest.mark.parametrize(
    ("loss", "accuracy", "norm", "verdict"),
    [
        # Last epochs and mean norms of head runs on 60 typefaces.
        (0.12, 0.92, 0.7, "converges"),
        (0.35, 0.59, 0.8, "converges"),
        (0.63, 0.25, 0.6, "partly"),
        (0.92, 0.098, 0.4, "partly"),
        (1.00, 0.018, 4000.0, "fails"),
    ],
)
def test_verdicts_on_what_runs_end_with(loss, accuracy, norm, verdict):
    got, reasons, *rest = judged(history([GUESSING, loss * GUESSING], [1 / 60, accuracy], [norm, norm]), even(60))
    assert got == verdict
    assert rest == [pytest.approx(loss), pytest.approx((accuracy - 1 / 60) / (1 - 1 / 60)), pytest.approx(norm)]
    assert bool(reasons) == (verdict != "converges")


@pytest.mark.parametrize("epochs", [1, 3, 12])
def test_each_criterion_decides_alone_at_any_length(epochs):
    def verdict(loss, accuracy, norm=1.0):
        run = history([loss * math.log(10)] * epochs, [0.1 + 0.9 * accuracy] * epochs, [norm] * epochs)
        got, reasons = RULES.judge(run, even(10))
        return got, len(reasons)

    assert verdict(0.49, 0.51) == ("converges", 0)
    assert verdict(0.51, 0.51) == verdict(0.49, 0.49) == verdict(0.49, 0.51, 5.1) == ("partly", 1)
    assert verdict(0.96, 0.51) == verdict(0.49, 0.04) == ("fails", 1)
    assert verdict(0.96, 0.04, 5.1) == ("fails", 3)


def test_uneven_classes_are_guessed_by_their_frequencies():
    # A network that has learned the frequencies and nothing else looks as if it had begun, by the number of classes.
    counts = np.array([1080, 720, 200, 200, 200])
    fractions = counts / 2400
    run = history([-(fractions * np.log(fractions)).sum()], [0.45])
    got = judged(run, counts)
    assert (got[0], *got[2:4]) == ("fails", pytest.approx(1), pytest.approx(0))
    assert judged(run, even(5))[0] == "partly"
    assert judged(run, np.append(counts, 0)) == got


def test_gradient_norm_is_that_of_the_last_third():
    run = history([0.1] * 7, [1.0] * 7, [9e9, 9e9, 9e9, 9e9, 1.0, 2.0, 3.0])
    assert judged(run, even(10))[-1] == pytest.approx(2.0)


def test_divergence_and_what_is_not_finite_fail():
    good = history([0.1, 0.1], [1.0, 1.0])
    assert judged(good, even(10))[0] == "converges"
    assert judged(good, even(10), "diverged")[:2] == ("fails", ["diverged"])
    # A run that diverges in its first epoch has a table of no rows and, on disk, of one column.
    at_once = judged(pd.DataFrame({"epoch": []}), even(10), "diverged")
    assert (at_once[0], math.isnan(at_once[2])) == ("fails", True)
    for column in good:
        for value in (math.nan, math.inf):
            bad = good.copy()
            bad.loc[0, column] = value
            verdict, reasons = RULES.judge(bad, even(10))
            assert (verdict, reasons[0]) == ("fails", "metrics not finite"), (column, value)


def test_progress_is_measured_from_guessing():
    def progress(run, of):
        return progress_over(run, of, even(60))

    twin = history([GUESSING, GUESSING - 2], [0.1, 0.5])
    assert progress(twin, twin) == pytest.approx(1)
    assert progress(history([GUESSING, GUESSING - 0.5], [0.1, 0.2]), twin) == pytest.approx(0.25)
    assert progress(history([GUESSING, GUESSING + 1], [0.1, 0.2]), twin) == pytest.approx(-0.5)
    # Ended early, at once, or in NaN.
    assert progress(twin[:1], twin) == progress(pd.DataFrame({"epoch": []}), twin) == 0
    assert progress(history([1.0, math.nan], [0.1, 0.2]), twin) == 0
    # Nothing can be compared with a twin that has learned nothing.
    assert math.isnan(progress(twin, history([1.0, GUESSING + 0.1], [0, 0])))


def test_a_row_has_the_verdict_and_what_it_is_made_of():
    def run(loss, accuracy, outcome="finished"):
        result = {"outcome": outcome, "train_accuracy": 90.0, "test_accuracy": 80.0, "seconds": 1.0}
        recipe = SimpleNamespace(epochs=2, learning_rate=0.1)
        spec = SimpleNamespace(recipe=recipe)
        return SimpleNamespace(metrics=history(loss, accuracy), result=result, spec=spec, correct="1:")

    twin = run([GUESSING, GUESSING - 2], [0.1, 0.5])
    row = RULES.row(run([GUESSING, GUESSING - 1], [0.1, 0.9]), twin, even(60))
    assert (row["verdict"], row["train_accuracy"], row["rate"], row["first_norm"]) == ("partly", 90, 0.1, 1)
    assert row["correct"] == "1:"
    assert row["progress"] == pytest.approx(0.5)
    lost = RULES.row(run([GUESSING], [0.1], "diverged"), twin, even(60))
    assert (lost["verdict"], lost["progress"]) == ("fails", 0)
    assert lost["test_accuracy"] == pytest.approx(100 / 60)
    assert math.isnan(RULES.row(twin, run([GUESSING], [0.1]), even(60))["progress"])


def features(channels, positions, seed=0):
    torch.manual_seed(seed)
    return torch.randn(channels, positions, dtype=DOUBLE) * torch.logspace(0, -2, channels, dtype=DOUBLE)[:, None]


def spectrum(x):
    x = x - x.mean(-1, keepdim=True)
    return torch.linalg.eigvalsh(x @ x.mT / x.shape[-1]).clamp_min(0).flip(-1)


def largest_gradient(x, rule):
    """The norm of the whole backward pass, from symmetric G to the features, by one pass for each of a basis of G."""
    d, m = x.shape
    columns = []
    for i in range(d):
        for j in range(i + 1):
            g = torch.zeros(d, d, dtype=DOUBLE)
            g[i, j] = g[j, i] = 1 if i == j else 0.5**0.5
            leaf = x.clone().requires_grad_()
            columns.append(torch.autograd.grad(covariance_map(leaf, "sqrt", rule), leaf, g)[0].flatten())
    return torch.linalg.matrix_norm(torch.stack(columns, 1), 2).item() * math.sqrt(m) / 2


@pytest.mark.parametrize(("channels", "positions"), [(5, 30), (6, 4), (1, 9)])
def test_gains_are_the_norms_of_the_backward_pass(channels, positions):
    x = features(channels, positions)
    table = CODE.gains(spectrum(x)[None]).set_index("kept")
    rank = min(channels, positions - 1)
    full = largest_gradient(x, "exact")
    for n in range(1, channels + 1):
        assert table.gain_full[n] == pytest.approx(full, rel=1e-6)
        if n <= rank:
            got = largest_gradient(x, truncate(get_rule("exact"), top(n)))
            assert table.gain[n] == pytest.approx(got, rel=1e-6)
        else:
            assert table.gain[n] == pytest.approx(full, rel=1e-6)


def test_gain_as_released_is_the_norm_of_the_backward_pass():
    x = features(5, 30)
    table = CODE.gains(spectrum(x)[None]).set_index("kept")
    for n in range(1, 5):
        got = largest_gradient(x, truncate(get_rule("original"), band(0, n)))
        assert table.gain_released[n] == pytest.approx(got, rel=1e-6)
        assert got > 1e4
    assert table.gain_released[5] == pytest.approx(largest_gradient(x, "original"), rel=1e-6)


def test_gains_by_hand():
    table = CODE.gains(torch.tensor([[9.0, 4.0, 1.0, 0.0], [4.0, 4.0, 1.0, 1.0]], dtype=DOUBLE))
    first, second = (table[table.image == i] for i in (0, 1))
    assert first.kept.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(first.gain_full, 0.5**0.5)
    np.testing.assert_allclose(first.gain, [58.5**0.5 / 5, 10**0.5 / 3, 0.5**0.5, 0.5**0.5])
    assert math.isinf(second.gain.iloc[0])


@pytest.mark.parametrize("seed", range(5))
def test_no_cut_lowers_the_largest_gradient(seed):
    torch.manual_seed(seed)
    table = CODE.gains(torch.exp(4 * torch.randn(20, 12, dtype=DOUBLE)).sort(dim=1, descending=True).values)
    assert (table.gain >= table.gain_full).all()
    assert table.gain_full.between(0.5, 0.5**0.5 + 1e-12).all()
    assert (table.gain_released >= table.gain_full).all()
    cut = table[table.kept < 12]
    assert (cut.gain > 0.5**0.5).all()


def test_published_truncation_removes_what_no_rank_has_at_224_pixels_and_real_ones_at_448():
    assert CODE.removed(256, 14 * 14, 50) == 0
    assert CODE.removed(256, 28 * 28, 50) == 50
    assert CODE.removed(256, 207, 50) == 0
    assert CODE.removed(256, 208, 50) == 1
    assert CODE.removed(64, 196, 0) == 0


def test_published_truncation_of_zeros_leaves_the_value_and_of_real_ones_makes_the_gradient_explode():
    few, many = features(8, 6), features(8, 60)
    rule = get_rule("top_n(2)")
    assert (CODE.removed(8, 6, 2), CODE.removed(8, 60, 2)) == (0, 2)
    for x, removes in ((few, False), (many, True)):
        cut, whole = covariance_map(x, "sqrt", rule), covariance_map(x, "sqrt", "exact")
        assert ((cut - whole).norm() > 1e-6) == removes
        leaf = x.clone().requires_grad_()
        grad = torch.autograd.grad(covariance_map(leaf, "sqrt", rule).sum(), leaf)[0]
        assert (grad.norm() > 1e3) == removes


def test_a_cut_between_equals_has_no_gradient():
    x = torch.eye(4, dtype=DOUBLE).repeat(1, 2) * torch.tensor([1.0, -1.0], dtype=DOUBLE).repeat_interleave(4)
    assert math.isinf(CODE.gains(spectrum(x)[None]).gain[1])
    leaf = x.clone().requires_grad_()
    with pytest.raises(NonFiniteError):
        covariance_map(leaf, "sqrt", truncate(get_rule("exact"), top(2))).sum().backward()
