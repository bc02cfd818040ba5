import argparse
import re
import sys

import mpmath
import pytest
import torch

import gcplib.lab.bench.layers as layers
import gcplib.lab.bench.sweeps as sweeps
from gcplib.lab.bench.layers import Report, cells, keep, report_path, speed_page
from gcplib.lab.bench.measure import measure, one_pass, saved_bytes, shuffled, smallest_ridge
from gcplib.lab.bench.methods import METHODS, REFERENCES, Method, load_methods
from gcplib.lab.cli import bench
from gcplib.linalg import covariance, covariance_map, newton_schulz, pade_root, taylor_root

DOUBLE = torch.float64
TINY = (2, 6, 9)
NAMES = [method.name for method in METHODS]


def command(*arguments):
    parser = argparse.ArgumentParser(prog="gcplib bench")
    bench.add_options(parser)
    return bench.run(parser.parse_args(arguments))


def _run(function, x, g):
    return one_pass(function, x.detach().requires_grad_(), g)[2:]


def _measured(function, kind="covariance", size=TINY, rounds=2, **options):
    (row,) = measure(size, {Method("mine", kind, lambda: function): function}, rounds, **options)
    return row


def test_every_method_is_measured_in_the_order_of_the_table():
    functions, skipped = load_methods()
    rows = measure(TINY, functions, rounds=3)
    assert [row["method"] for row in rows] == [name for name in NAMES if name not in skipped]
    for row in rows:
        for part in ("forward_ms", "backward_ms", "total_ms"):
            assert 0 < row[part]["low"] <= row[part]["median"] <= row[part]["high"]
        assert row["total_ms"]["low"] > row["forward_ms"]["low"]
        assert row["rounds"] == 3
        assert row["saved_mb"] > 0
        assert row["peak_mb"] is None
        # More positions than channels: the covariances are regular, and float32 is good to a few digits less than 7.
        assert 0 < row["error"] < 1e-4
        assert 0 < row["gradient_error"] < 1e-3
        assert (row["root_distance"] is None) == (row["kind"] in ("covariance", "exact root"))


def test_slow_methods_are_timed_once():
    assert _measured(covariance, rounds=3, slow=0.0)["rounds"] == 1
    assert _measured(covariance, rounds=3)["rounds"] == 3


def test_errors_are_those_of_the_matrix_and_of_its_gradient():
    row = _measured(lambda x: 1.25 * covariance(x))
    assert row["error"] == pytest.approx(0.25, rel=1e-5)
    assert row["gradient_error"] == pytest.approx(0.25, rel=1e-5)
    row = _measured(lambda x: covariance(x).detach() + 0 * covariance(x))
    assert row["error"] < 1e-6
    assert row["gradient_error"] == pytest.approx(1)


def test_what_stands_in_for_the_root_is_measured_from_the_root_too():
    row = _measured(covariance_map, kind="MTP")
    assert row["root_distance"] < 1e-5
    assert row["root_gradient_distance"] < 1e-5
    assert row["error"] > 1e-2


def test_what_is_not_finite_is_said_to_be_so():
    # The slope of the root at zero.
    row = _measured(lambda x: covariance(x) + (x[..., :1] - x[..., :1]).sqrt())
    assert row["error"] < 1e-6
    assert row["gradient_error"] is None
    assert cells([row])[0]["of dl/dX"] == "not finite"


@pytest.mark.parametrize(
    ("function", "copies"),
    [
        (covariance, 1),
        # The centered features are used twice, and are one piece of memory.
        (lambda x: (c := x - x.mean(-1, keepdim=True)) @ c.mT, 1),
        (lambda x: x * x, 0),
        (lambda x: x.mT @ x.view_as(x), 0),
        (lambda x: x.exp().exp(), 2),
    ],
    ids=["covariance", "one storage twice", "input", "view of the input", "two results"],
)
def test_memory_is_what_the_backward_pass_needs_beside_the_input(function, copies):
    x = torch.randn(TINY, requires_grad=True)
    assert saved_bytes(function, x) == copies * 4 * x.numel()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_peak_memory_on_a_gpu():
    row = _measured(covariance, size=(2, 64, 96), device="cuda")
    # Centered features, matrix and gradient are there at the same time.
    assert row["peak_mb"] >= 4e-6 * 2 * (64 * 96 + 64 * 64 + 64 * 96)


def _mp_root(x):
    """The root of the covariance of an mpmath matrix (d x M), from the smaller side, and without rounding noise."""
    positions = x.cols
    means = [mpmath.fsum(x[i, :]) / positions for i in range(x.rows)]
    centered = mpmath.matrix([[x[i, j] - means[i] for j in range(positions)] for i in range(x.rows)])
    lam, v = mpmath.eigsy(centered.T * centered / positions)
    # X V diag(lam^(-1/4)) = U diag(lam^(1/4)) up to the number of positions.
    weights = [1 / mpmath.sqrt(value) if value > mpmath.mpf(10) ** -30 else mpmath.mpf(0) for value in lam]
    return centered * v * mpmath.diag(weights) * v.T * centered.T / positions


@pytest.mark.parametrize("size", [(3, 5), (5, 4)], ids=["regular", "singular"])
def test_the_reference_root_and_its_gradient_agree_with_50_digits(size):
    x, g = torch.randn(1, *size, dtype=DOUBLE), torch.randn(1, size[0], size[0], dtype=DOUBLE)
    root, grad = _run(REFERENCES["exact root"], x, g)
    with mpmath.workdps(50):
        exact, weights = mpmath.matrix(x[0].tolist()), g[0].tolist()
        torch.testing.assert_close(root[0], torch.tensor(_mp_root(exact).tolist(), dtype=DOUBLE), rtol=0, atol=1e-14)
        step = mpmath.mpf(10) ** -12

        def loss(i, j, sign):
            moved = exact.copy()
            moved[i, j] += sign * step
            c = _mp_root(moved)
            return mpmath.fsum(c[a, b] * weights[a][b] for a in range(c.rows) for b in range(c.cols))

        want = [[(loss(i, j, 1) - loss(i, j, -1)) / (2 * step) for j in range(size[1])] for i in range(size[0])]
        torch.testing.assert_close(grad[0], torch.tensor(want, dtype=DOUBLE), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("kind", "products"),
    [("Newton-Schulz", lambda s: newton_schulz(s, 5)), ("MPA", pade_root), ("MTP", taylor_root)],
)
@pytest.mark.parametrize("size", [(2, 6, 9), (2, 8, 5)], ids=["regular", "singular"])
def test_the_other_references_agree_with_matrix_products(kind, products, size):
    x, g = torch.randn(size, dtype=DOUBLE), torch.randn(size[0], size[1], size[1], dtype=DOUBLE)
    torch.testing.assert_close(
        _run(REFERENCES[kind], x, g), _run(lambda x: products(covariance(x)), x, g), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_every_method_computes_what_its_kind_says(method):
    functions, skipped = load_methods([method])
    if skipped:
        pytest.skip(skipped[method.name])
    function = functions[method]
    x, g = torch.randn(TINY, dtype=DOUBLE), torch.randn(2, 6, 6, dtype=DOUBLE)
    got = _run((lambda x: function(x, 0.0)) if method.ridge else function, x, g)
    torch.testing.assert_close(got, _run(REFERENCES[method.kind], x, g), rtol=1e-8, atol=1e-10)


def test_pytorchcv_is_its_layer_without_the_triangle():
    layer = pytest.importorskip("pytorchcv.models.isqrtcovresnet").iSQRTCOVPool(num_iter=5)
    functions, _ = load_methods([method for method in METHODS if method.package == "pytorchcv"])
    (matrix,) = [function(x := torch.randn(TINY)) for function in functions.values()]
    row, column = torch.triu_indices(6, 6)
    torch.testing.assert_close(matrix[:, row, column], layer(x.view(2, 6, 3, 3)).flatten(1))


def test_a_missing_peer_is_named_with_what_to_install(monkeypatch, capsys, place):
    monkeypatch.setitem(__import__("sys").modules, "torchspd", None)
    command("layers", "--rounds", "1", "--sizes", "2x6x9", "--methods", "torchspd", "--device", "cpu")
    printed = capsys.readouterr().out
    assert re.search(r"skipped: exact root, torchspd \(.*torchspd.*; pip install torchspd\)", printed)
    assert Report.read(report_path("cpu")).skipped.keys() == {"exact root, torchspd"}


@pytest.mark.parametrize(("needed", "found"), [(-1.0, 0.0), (0.0, 1e-8), (3e-4, 1e-3)])
def test_the_ridge_is_the_smallest_that_works(needed, found):
    def function(x, ridge):
        c = covariance(x)
        return c if ridge > needed else c + float("nan")

    x = torch.randn(TINY, requires_grad=True)
    assert smallest_ridge(function, x, torch.randn(2, 6, 6)) == pytest.approx(found)
    with pytest.raises(RuntimeError, match="no ridge up to 1"):
        smallest_ridge(lambda x, ridge: covariance(x) / 0, x, torch.randn(2, 6, 6))


def test_rounds_are_shuffled_and_whole():
    turns = shuffled("abc", 4)
    assert turns[:3] == ["a", "b", "c"]
    assert all(sorted(turns[start : start + 3]) == ["a", "b", "c"] for start in range(0, 12, 3))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_ROOT", str(tmp_path))
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    for module in (sys.modules[measure.__module__], layers):
        monkeypatch.setattr(module, "SIZES", (TINY, (2, 5, 4)))
    return tmp_path


def test_the_result_is_kept_in_four_digits_and_shown_on_its_page(place, capsys):
    command("layers", "--rounds", "2", "--device", "cpu")
    printed = capsys.readouterr().out
    last = Report.read(report_path("cpu"))
    assert printed.startswith(last.processor)
    assert "batch 2, 6 channels, 9 positions" in printed
    command("layers", "--keep", "--device", "cpu")
    (path,) = (place / "data" / "evidence").iterdir()
    kept = Report.read(path)
    text = (place / "docs" / "speed.md").read_text()
    assert text == speed_page()
    assert "### batch 2, 5 channels, 4 positions" in text
    assert (kept.date, kept.machine, kept.threads, kept.rounds) == (last.date, last.machine, last.threads, 2)
    for rounded, row in zip(kept.rows, last.rows, strict=True):
        assert rounded["total_ms"]["median"] == pytest.approx(row["total_ms"]["median"], rel=5e-4)
        assert rounded["gradient_error"] == float(f"{row['gradient_error']:.3e}")


def test_only_a_whole_result_is_kept(place):
    with pytest.raises(FileNotFoundError, match=r"nothing was measured yet; run .* layers --device cpu"):
        keep("cpu")
    command("layers", "--rounds", "1", "--device", "cpu", "--sizes", "2x6x9")
    with pytest.raises(ValueError, match=r"lacks .* at \(2, 5, 4\)"):
        keep("cpu")
    assert "##" not in speed_page()


def _row(method, total, gradient_error=1e-6, rounds=5, ridge=None):
    name = next(m for m in METHODS if m.name == method)
    times = {"low": total / 2, "median": total, "high": 2 * total}
    shape = {"batch": 2, "channels": 6, "positions": 9, "ridge": ridge, "saved_mb": 1.5, "peak_mb": None}
    row = {"method": method, "kind": name.kind, "ours": name.ours, "rounds": rounds, "error": 1e-7}
    row |= {f"{part}_ms": times for part in ("forward", "backward", "total")}
    return shape | row | {"gradient_error": gradient_error, "root_distance": 0.5, "root_gradient_distance": 0.25}


def test_the_page_compares_with_the_covariance_and_says_what_was_measured(place):
    rows = [
        _row("covariance", 2.0),
        _row("exact root, torch matrix_sqrth", 1.0, None, ridge=1.0),
        _row("exact root, torchspd", 2000.0, 3e-5, rounds=1),
        _row("MTP, products", 10.0),
    ]
    machine = {"cpu": "A processor", "gpu": None, "versions": {"torch": "2.0"}, "commit": "abc"}
    report = Report("cpu", 3, 5, rows, {}, machine, {"torchspd": "0.1"}, "2030-01-02T03:04:05")
    report.write(place / "data" / "evidence" / "bench_cpu.json")
    lines = speed_page().splitlines()
    assert "## A processor, 3 threads" in lines
    assert "Milliseconds in float32, median of 5 rounds. torch 2.0, torchspd 0.1; commit `abc`, 2030-01-02." in lines
    assert lines[-4:] == [
        "| covariance (gcplib) | 2 | 2 | 2 | [1, 4] | 1 | 1.5 | 1.0e-07 | 1.0e-06 |  |  |",
        "| exact root, torch matrix_sqrth, ridge 1 | 1 | 1 | 1 | [0.5, 2] | 0.5 | 1.5 | 1.0e-07 | not finite |  |  |",
        "| exact root, torchspd | 2,000 | 2,000 | 2,000 | once | 1,000 | 1.5 | 1.0e-07 | 3.0e-05 |  |  |",
        "| MTP, products (gcplib) | 10 | 10 | 10 | [5, 20] | 5 | 1.5 | 1.0e-07 | 1.0e-06 | 5.0e-01 | 2.5e-01 |",
    ]


def test_sweeps_become_an_image(place, monkeypatch):
    small = {"channels": ((2, 4, 9), (2, 8, 9)), "positions": ((2, 8, 5), (2, 8, 9)), "batch": ((1, 8, 9), (2, 8, 9))}
    monkeypatch.setattr(sweeps, "SWEEPS", small)
    command("layers", "--sweep", "--rounds", "2", "--device", "cpu")
    rows = Report.read(report_path("cpu_sweep")).rows
    found = sweeps.sweep_table(rows)
    assert set(found["method"]) <= set(sweeps.SWEPT)
    for axis, values in (("channels", [4, 8]), ("positions", [5, 9]), ("batch", [1, 2])):
        mine = found[(found["sweep"] == axis) & (found["method"] == "covariance")]
        assert sorted(mine["size"]) == sorted(3 * values)
    assert report_path("cpu_sweep").with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "must be at least 1, got 0"),
        (["--methods", "cholesky"], "no method has 'cholesky' in its name; known: covariance;"),
        (["--keep"], "nothing was measured yet; run python -m gcplib bench layers --device cpu"),
        (["--keep", "--sizes", "2x6x9"], "--keep measures nothing, so --sizes"),
        (["--sweep", "--sizes", "2x6x9"], "--sweep has sizes and methods of its own"),
    ],
)
def test_what_makes_no_sense_is_named(arguments, message, place):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        command("layers", *arguments, "--device", "cpu")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("16x256", "'16x256' is not BATCHxCHANNELSxPOSITIONS"),
        ("1x2x1", "at least one image, one channel and two positions"),
    ],
)
def test_wrong_sizes_are_named(size, message, capsys):
    with pytest.raises(SystemExit):
        command("layers", "--sizes", size)
    assert message in capsys.readouterr().err
