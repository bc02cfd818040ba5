"""Derivatives, products and export are timed side by side: what is timed is what it is called; the page shows it."""

import argparse
import math
import sys

import pytest
import torch

from gcplib.lab.bench import cases, derivatives, derivatives_page
from gcplib.lab.bench.cases import Case, spread, time_cases, times_as_long
from gcplib.lab.bench.derivatives import ORDERS, PARTS, ROOTS, measure_derivatives, plain_products
from gcplib.lab.bench.derivatives_page import NAME, derivatives_cells, goal_sentence, keep_derivatives
from gcplib.lab.bench.layers import Report, evidence_path, kept_reports, report_path
from gcplib.lab.bench.methods import REFERENCES
from gcplib.lab.cli import bench
from gcplib.linalg import covariance_map, products

TINY, WIDE = (2, 5, 9), (2, 6, 4)


def command(*arguments):
    parser = argparse.ArgumentParser(prog="gcplib bench")
    bench.add_options(parser)
    return bench.run(parser.parse_args(["derivatives", *arguments]))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_ROOT", str(tmp_path))
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(derivatives_page, "SIZES", (TINY, WIDE))
    return tmp_path


@pytest.mark.slow
def test_a_tiny_run_is_kept_and_shown_on_its_page(place, capsys):
    assert command("--rounds", "2", "--sizes", "2x5x9", "2x6x4") == 0
    printed = capsys.readouterr().out
    last = Report.read(report_path(NAME))
    assert printed.startswith(last.processor)
    assert (last.rounds, last.threads) == (2, torch.get_num_threads())
    assert {row["part"] for row in last.rows} == set(PARTS)
    for row in last.rows:
        assert "failed" not in row
        times = {column: value for column, value in row.items() if column.endswith(", ms")}
        assert times
        for value in times.values():
            assert 0 < value["low"] <= value["median"] <= value["high"]
            assert value["n"] == (2 * derivatives.GUARD_ROUNDS if row["part"] == "guard of precision" else 2)
        # torch's eigh has no second derivative where eigenvalues vanish.
        if "eigh" not in row["case"]:
            errors = [value for column, value in row.items() if "error" in column or column == "difference"]
            assert all(0 <= value < 2e-2 for value in errors)
    assert command("--keep") == 0
    kept = Report.read(evidence_path(NAME))
    text = (place / "docs" / "derivatives.md").read_text()
    assert text == derivatives_page.derivatives_page(kept)
    assert kept.processor in text
    assert f"onnxruntime {kept.peers['onnxruntime']}" in text
    assert "| 2 x 6 x 4 | root by products (gcplib) |" in text
    # The benchmark of layers does not take it for its own.
    assert kept_reports() == []


def test_before_anything_is_kept_the_page_says_how_to_measure(place):
    text = derivatives_page.derivatives_page()
    assert "**Not measured yet.**" in text
    assert "`python -m gcplib bench derivatives --keep`" in text


def test_only_a_whole_result_is_kept(place):
    with pytest.raises(FileNotFoundError, match="nothing was measured yet; run python -m gcplib bench derivatives"):
        command("--keep")
    report = derivatives_page.new_report(1)
    rows = [{"part": part, "case": "a", "batch": 2, "channels": 5, "positions": 9} for part in PARTS]
    report.rows.extend(rows)
    report.write(report_path(NAME))
    with pytest.raises(ValueError, match=r"lacks 5 of 10 measurements, for example ONNX at \(2, 6, 4\)"):
        keep_derivatives()
    assert not evidence_path(NAME).exists()
    with pytest.raises(ValueError, match="--sizes cannot go with it"):
        command("--keep", "--sizes", "2x5x9")


@pytest.mark.parametrize("method", ROOTS, ids=lambda method: method.name)
@pytest.mark.parametrize("size", [(2, 4, 9), (2, 5, 4)], ids=["regular", "singular"])
def test_the_second_order_is_the_gradient_of_the_squared_first(method, size):
    if "eigh" in method.name and size[1] > size[2]:
        pytest.skip("eigenvalues vanish")
    x, g = torch.randn(size, dtype=torch.float64), torch.randn(size[0], size[1], size[1], dtype=torch.float64)
    v, step, function = torch.randn_like(x), 1e-5, method.make()

    def penalty(x):
        return ORDERS["first order"](function, x.requires_grad_(), g).square().sum()

    found = (ORDERS["second order"](function, x.clone().requires_grad_(), g) * v).sum()
    torch.testing.assert_close(
        found, (penalty(x + step * v) - penalty(x - step * v)) / (2 * step), rtol=1e-5, atol=1e-6
    )
    reference = ORDERS["second order"](REFERENCES[method.kind], x.clone().requires_grad_(), g)
    torch.testing.assert_close((reference * v).sum(), found, rtol=1e-5, atol=1e-6)


def test_plain_products_go_past_the_guard_and_only_within(monkeypatch):
    calls = []
    monkeypatch.setattr(products, "_lowered", lambda device: bool(calls.append(device)))
    x = torch.randn(TINY, requires_grad=True)

    def run():
        torch.autograd.grad(covariance_map(x).sum(), x)
        covariance_map(x, "newton_schulz", route="products")
        return len(calls)

    guarded = run()
    assert guarded > 5
    with plain_products():
        assert run() == guarded
    assert run() == 2 * guarded


def test_lowered_precision_is_refused():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ValueError, match="precision 'high'"):
            measure_derivatives(TINY, 1)
    finally:
        torch.set_float32_matmul_precision(before)


def test_what_cannot_be_exported_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    rows = PARTS["ONNX"](TINY, 1, "tiny")
    assert [row["case"] for row in rows] == ["torch", "torch, by products", "onnxruntime"]
    assert rows[-1]["failed"].startswith("ModuleNotFoundError: ")
    shown = derivatives_cells([{"part": "ONNX", "batch": 2, "channels": 5, "positions": 9} | row for row in rows])
    assert shown[-1]["failed"] == rows[-1]["failed"]
    assert shown[-1]["forward, ms"] == shown[0]["failed"] == ""


def test_cases_take_turns_and_slow_ones_have_one_pass(monkeypatch):
    clock, ran = iter(range(1000)), []
    monkeypatch.setattr(cases.time, "perf_counter", lambda: next(clock))
    names = {name: Case(lambda name=name: ran.append(name)) for name in "ab"}
    assert time_cases(names, 3, "quick") == {"a": [1, 1, 1], "b": [1, 1, 1]}
    assert ran[:4] == ["a", "b", "a", "b"]
    assert sorted(ran) == 4 * ["a"] + 4 * ["b"]
    assert time_cases(names, 3, "slow", slow=0.5) == {"a": [1], "b": [1]}


def test_ratios_are_within_rounds_with_the_interval_of_their_median():
    assert spread([4.0, 1.0, 2.0])["median"] == 2
    ratio = times_as_long([2.0 * k for k in range(1, 21)], [float(k) for k in range(1, 21)])
    assert ratio == {"low": 2, "median": 2, "high": 2, "n": 20}
    # Of 20 values, the sixth from either end: 1 - 2 P(fewer than 6 heads of 20) = 0.959.
    ratio = times_as_long([float(k) for k in range(1, 21)], [1.0] * 20)
    assert (ratio["low"], ratio["high"]) == (6, 15)
    assert (
        2 * sum(math.comb(20, k) for k in range(6)) / 2**20 < 0.05 < 2 * sum(math.comb(20, k) for k in range(7)) / 2**20
    )
    # One pass of what was slow is compared with one.
    assert times_as_long([6.0], [2.0, 3.0])["median"] == 3


def _row(size, low, median, high):
    about = dict(zip(("batch", "channels", "positions"), size, strict=True))
    ratio = {"low": low, "median": median, "high": high, "n": 15}
    times = {"low": 1.0, "median": 2.0, "high": 3.0, "n": 15}
    case = {"part": "second derivatives", **about, "case": "exact root (gcplib)"}
    return case | {"first order, ms": times, "ratio": ratio, "error, second order": None}


def test_goals_are_met_where_the_interval_says_so():
    rows = [
        _row((1, 1, 2), 2, 3, 4),
        _row((1, 2, 2), 4.1, 5, 6),
        _row((1, 3, 2), 3, 3.5, 5),
        _row((1, 4, 2), None, 1, None),
    ]
    text = goal_sentence("second derivatives", [*rows, _row((1, 1, 2), 9, 9, 9) | {"case": "another"}])
    assert text == (
        "Goal for the exact root (gcplib), ratio: at most 4, by the whole interval: met at 1 x 1 x 2; missed at "
        "1 x 2 x 2; open at 1 x 3 x 2, 1 x 4 x 2."
    )
    cells = derivatives_cells(rows)
    assert cells[1] == {
        "size": "1 x 2 x 2",
        "case": "exact root (gcplib)",
        "first order, ms": "2 [1, 3]",
        "ratio": "5 [4.1, 6]",
        "error, second order": "not finite",
    }
    assert cells[3]["ratio"] == "1 [-, -]"
