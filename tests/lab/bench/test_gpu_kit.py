"""The kit for a GPU, tried on a CPU: parts fail alone, what they wrote stays, and numbers say what they should."""

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from gcplib.lab.bench import gpu
from gcplib.lab.bench.gpu import TINY, isolated, run_kit, run_tests
from gcplib.lab.bench.gpu_results import failures, gpu_page, gpu_path, keep_gpu, speed_claim
from gcplib.lab.bench.layers import kept_reports
from gcplib.lab.bench.measure import one_pass, relative_error
from gcplib.lab.bench.methods import CUDA_METHODS, METHODS, REFERENCES
from gcplib.lab.bench.networks import measure_passes
from gcplib.lab.cli import bench
from gcplib.lab.files import read_json
from gcplib.lab.study.claims import assess_records
from gcplib.linalg import ROUTES
from gcplib.nn import create_pool

MACHINE = {"cpu": "A processor", "gpus": ["A card, 8 GiB, 9.0"], "driver": "1", "cuda": "13", "cusolver": "12"}
MACHINE |= {"versions": {"torch": "2.11"}, "commit": "abc"}


def command(*arguments):
    parser = argparse.ArgumentParser(prog="gcplib bench")
    bench.add_options(parser)
    return bench.run(parser.parse_args(["gpu", *arguments]))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path


@pytest.fixture
def place(runs, monkeypatch):
    """A checkout whose tests of a GPU are written by the test."""
    monkeypatch.setenv("GCPLIB_ROOT", str(runs))
    (runs / "tests" / "cuda").mkdir(parents=True)
    return runs


def _check_tiny(document):
    assert failures(document) == []
    assert document["finished"]
    assert list(document["parts"])[-3:] == ["layers", "networks, 64 px", "claim C06"]
    layers = document["parts"]["layers"]["rows"]
    timed = [row for row in layers if "total_ms" in row]
    sizes = {(row["batch"], row["channels"], row["positions"]) for row in timed}
    assert sizes == set(TINY.sizes)
    skipped = {row["method"]: row["skipped"] for row in layers if "skipped" in row}
    assert skipped["exact root, CuPy eigh"] == "needs CUDA"
    for name in gpu.LAYERS:
        rows = [row for row in timed if row["method"] == name]
        assert len(rows) == (0 if name in skipped else 2), name
        assert all(len(row["rounds_ms"]) == TINY.rounds and row["error"] < 1e-2 for row in rows), name
    networks = document["parts"]["networks, 64 px"]["rows"]
    assert [row["network"] for row in networks] == list(gpu.NETWORKS)
    assert all(0 < row["low"] <= row["images_per_second"] <= row["high"] for row in networks)
    claim = document["parts"]["claim C06"]
    assert claim["verdict"] == "needs CUDA"
    assert {row["steps"] for row in claim["ratios"]} == {"Newton-Schulz, products", "Newton-Schulz, pytorchcv"}
    (item,) = claim["record"]["evidence"]
    assert item["n"] == TINY.rounds


@pytest.mark.slow
def test_one_file_of_tests_and_all_measurements(runs, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "TESTS", ("host_and_device",))
    assert command("--device", "cpu", "--tiny") == 0
    document = read_json(gpu_path(tiny=True))
    _check_tiny(document)
    tests = document["parts"]["tests: host and device"]["rows"]
    assert {row["outcome"] for row in tests} == {"skipped"}
    assert any(row["message"].startswith("needs CUDA") for row in tests)
    printed = capsys.readouterr().out
    assert "1 of 4: tests: host and device; at most 4 min 31 s left" in printed
    assert "All passed." in printed
    assert not gpu_path().exists()  # a trial is never taken for a measurement


@pytest.mark.slow
def test_the_whole_kit(runs):
    assert command("--device", "cpu", "--tiny") == 0
    document = read_json(gpu_path(tiny=True))
    _check_tiny(document)
    rows = {name: part["rows"] for name, part in document["parts"].items()}
    assert [row["outcome"] for row in rows["tests: two gpus"]] == ["passed"]
    for name in ("pools on gpu", "eigenvectors on gpu"):
        assert {row["outcome"] for row in rows[f"tests: {name}"]} == {"passed"}
    found = [name for row in rows["tests: eigenvectors on gpu"] for name in row["found"]]
    assert "residual |S V - V L| / |S|, d = 64, float32" in found


def _raising(add):
    add({"row": 1})
    raise RuntimeError("no such kernel\nand more")


def _dying(add):
    add({"row": 1})
    os._exit(7)


def _hanging(add):
    add({"row": 1})
    time.sleep(600)


@pytest.mark.parametrize(
    ("work", "seconds", "error"),
    [
        (_raising, 60, "RuntimeError: no such kernel"),
        (_dying, 60, "the process ended with code 7"),
        # Long enough for a process to start on a busy machine.
        (_hanging, 30, "stopped after 30 s"),
    ],
)
@pytest.mark.slow
def test_what_a_part_had_found_stays_when_it_fails(work, seconds, error):
    assert isolated(work, seconds) == {"rows": [{"row": 1}], "error": error}


def test_a_method_that_fails_leaves_the_others(monkeypatch):
    def failing(x):
        raise RuntimeError("out of memory")

    broken = [replace(METHODS[0], name="exact root, torch eigh", make=lambda: failing), METHODS[0]]
    monkeypatch.setattr(gpu, "METHODS", tuple(broken))
    rows = []
    gpu.time_layers(replace(TINY, sizes=((2, 4, 5),)), rows.append)
    failed, timed = (next(row for row in rows if key in row) for key in ("failed", "rounds_ms"))
    assert (failed["method"], failed["failed"]) == ("exact root, torch eigh", "RuntimeError: out of memory")
    assert timed["method"] == "covariance"


SOME_TESTS = """
import os, time, pytest

def test_good(record_property):
    record_property("residual", "1e-7")
    assert os.environ["GCPLIB_CUDA_TESTS"] == "cpu"

def test_bad():
    assert 1 + 1 == 3

def test_none():
    pytest.skip("one GPU: not run")
"""


def test_tests_become_rows_and_a_failed_one_the_exit_status(place, monkeypatch, capsys):
    (place / "tests" / "cuda" / "test_some.py").write_text(SOME_TESTS)
    monkeypatch.setattr(gpu, "TESTS", ("some", "absent"))
    monkeypatch.setattr(gpu, "time_layers", _raising)
    monkeypatch.setattr(gpu, "isolated", lambda work, seconds: {"rows": []})
    assert command("--device", "cpu", "--tiny") == 1
    parts = read_json(gpu_path(tiny=True))["parts"]
    good, bad, none = parts["tests: some"]["rows"]
    assert (good["test"], good["outcome"], good["found"]) == ("test_good", "passed", {"residual": "1e-7"})
    assert (bad["outcome"], "1 + 1" in bad["message"]) == ("failed", True)
    assert (none["outcome"], none["message"]) == ("skipped", "one GPU: not run")
    assert "no tests/cuda/test_absent.py in" in parts["tests: absent"]["error"]
    assert parts["claim C06"]["record"]["evidence"] == []
    printed = capsys.readouterr().out
    assert "1 passed, 1 failed, 1 skipped" in printed
    assert "2 failed" in printed
    assert "tests: some: test_bad: assert (1 + 1) == 3" in printed


@pytest.mark.parametrize(
    ("text", "seconds", "error"),
    [
        ("import time\n\ndef test_it():\n    time.sleep(600)\n", 4, "stopped after 4 s"),
        (
            "import no_such_package\n",
            90,
            "RuntimeError: pytest ended with code 2: E   ModuleNotFoundError: No module named 'no_such_package'",
        ),
    ],
    ids=["hang", "break"],
)
@pytest.mark.slow
def test_tests_that_hang_or_break_are_recorded(text, seconds, error, place, monkeypatch):
    (place / "tests" / "cuda" / "test_some.py").write_text(text)
    monkeypatch.setattr(gpu, "TESTS", ("some",))
    monkeypatch.setattr(gpu, "isolated", lambda work, seconds: {"rows": []})
    path = place / "kit.json"
    document = run_kit(replace(TINY, limits=(seconds, 1, 1)), path)
    assert json.loads(json.dumps(document)) == read_json(path)
    assert document["parts"]["tests: some"]["error"] == error
    assert document["finished"]
    assert failures(document) == [f"tests: some: {error}"]


def _row(method, milliseconds, size=(2, 6, 9)):
    times = dict.fromkeys(("low", "median", "high"), milliseconds[0])
    about = dict(zip(("batch", "channels", "positions"), size, strict=True))
    row = {"method": method, "kind": method.split(",")[0], "ours": True, "ridge": None, "saved_mb": 1.0, "peak_mb": 2.0}
    row |= {f"{part}_ms": times for part in ("forward", "backward", "total")} | {"rounds": len(milliseconds)}
    row |= {"error": 1e-7, "gradient_error": 1e-6, "root_distance": 0.5, "root_gradient_distance": 0.5}
    return about | row | {"rounds_ms": milliseconds}


def _network(name, seconds):
    row = {"network": name, "pixels": 224, "batch": 32, "images_per_second": 1 / seconds[0]}
    return row | {"low": 1 / max(seconds), "high": 1 / min(seconds), "seconds": seconds}


def _document(exact, device="cuda", **more):
    """What the kit writes, where Newton-Schulz takes about 1 and the exact root ``exact`` seconds."""
    layers = [_row("covariance", [0.5, 0.5, 0.5]), _row("exact root, torch eigh", [8.0, 2.0, 4.0])]
    layers += [_row("exact root, full route", [9.0]), _row("Newton-Schulz, products", [4.0, 1.0, 2.0])]
    layers += [{"method": "exact root, CuPy eigh", "skipped": "pip install cupy"}]
    noise = [1.0, 1.01, 0.99]
    networks = [_network("Newton-Schulz", noise), _network("exact root", [exact * n**2 for n in noise])]
    tests = [{"test": "test_it", "outcome": "passed", "seconds": 1.0, "found": {"residual": "1e-7"}}]
    parts = {"tests: pools": {"rows": tests}, "layers": {"rows": layers}, "networks, 224 px": {"rows": networks}}
    settings = {"device": device, "backbone": "resnet50"}
    document = {"date": "2030-01-02T03:04:05", "settings": settings, "machine": MACHINE, "parts": parts, **more}
    parts["claim C06"] = {"rows": []} | speed_claim(document)
    return document


@pytest.mark.parametrize(("exact", "verdict"), [(4.0, "holds"), (1.2, "does not hold here"), (2.0, "undecided here")])
def test_the_claim_is_decided_by_whole_networks(exact, verdict):
    found = _document(exact)["parts"]["claim C06"]
    assert found["verdict"] == verdict
    (item,) = found["record"]["evidence"]
    assert item["effect"] == pytest.approx(50 - 100 / exact, abs=0.1)
    assert item["low"] < item["effect"] < item["high"]
    # What the study reads.
    assert assess_records("C06", [found["record"]]).verdict == verdict
    assert _document(exact, device="cpu")["parts"]["claim C06"]["verdict"] == "needs CUDA"


def test_ratios_of_layers_are_those_within_a_round():
    often, once = sorted(_document(4.0)["parts"]["claim C06"]["ratios"], key=lambda row: -row["n"])
    assert (often["size"], often["exact"], often["steps"]) == (
        "2x6x9",
        "exact root, torch eigh",
        "Newton-Schulz, products",
    )
    # Rounds differ fourfold; their ratios do not.
    assert [often[key] for key in ("low", "ratio", "high", "n")] == pytest.approx([2, 2, 2, 3])
    assert [once[key] for key in ("low", "ratio", "high", "n")] == [None, pytest.approx(2.25), None, 1]


def test_what_is_kept_is_on_the_page(place, monkeypatch):
    assert "**Not run yet.**" in gpu_page()
    with pytest.raises(FileNotFoundError, match="the kit did not run on a card yet; run python -m gcplib bench gpu"):
        keep_gpu()
    gpu_path().parent.mkdir(parents=True)
    gpu_path().write_text(json.dumps(_document(4.0)))
    with pytest.raises(ValueError, match="the kit was interrupted; run it again"):
        keep_gpu()
    gpu_path().write_text(json.dumps(_document(4.0, finished=True, number=1.23456)))
    assert command("--keep") == 0
    kept = read_json(place / "data" / "evidence" / "bench_gpu.json")
    assert kept["number"] == 1.235
    assert kept_reports() == []  # the other benchmarks are other files
    text = (place / "docs" / "gpu.md").read_text()
    assert text == gpu_page()
    for line in (
        "A card, 8 GiB, 9.0. Driver 1, CUDA 13, cuSOLVER 12, torch 2.11; commit `abc`, 2030-01-02.",
        "| pools | 1 | 0 | 0 |",
        "| residual | 1e-7 |",
        "Newton-Schulz is much faster than EIG/SVD on a GPU, end to end: **holds**.",
        "| 2x6x9 | exact root, torch eigh | Newton-Schulz, products | 2 | [2, 2] | 3 |",
        "| 2x6x9 | exact root, full route | Newton-Schulz, products | 2.25 | once | 1 |",
        "| exact root | 224 | 32 | 0.25 | [0.245, 0.255] |",
        "* exact root, CuPy eigh: pip install cupy.",
        "### batch 2, 6 channels, 9 positions",
    ):
        assert line in text.splitlines(), line
    assert "## What failed" not in text


def test_failures_are_on_the_page(place):
    document = _document(4.0, finished=True)
    document["parts"]["tests: pools"]["rows"].append({"test": "test_bad", "outcome": "failed", "message": "no\nway"})
    document["parts"]["networks, 224 px"] |= {"rows": [], "error": "stopped after 9 s"}
    document["parts"]["layers"]["rows"].append(
        {"method": "covariance", "batch": 1, "channels": 2, "positions": 3, "failed": "RuntimeError: no"}
    )
    gpu_path().parent.mkdir(parents=True)
    gpu_path().write_text(json.dumps(document))
    keep_gpu()
    lines = gpu_page().splitlines()
    for line in (
        "* tests: pools: test_bad: no",
        "* networks, 224 px: stopped after 9 s",
        "* layers: covariance, batch 1, 2 channels, 3 positions: RuntimeError: no",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "on a CPU it takes --tiny"),
        (["--keep", "--tiny"], "keeps what was measured on a card"),
        (["--keep", "--device", "cpu"], "keeps what was measured on a card"),
        ([], "torch sees no CUDA device; --device cpu --tiny tries the kit itself"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message, monkeypatch, runs):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        command(*arguments)


def test_a_wheel_has_no_tests(place):
    with pytest.raises(FileNotFoundError, match="come with a checkout, not with a wheel"):
        run_tests("pools_on_gpu", TINY, 5)


def test_networks_are_timed_forward_and_backward_in_autocast():
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self, pool):
            super().__init__()
            self.layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), create_pool(pool, 4))

        def forward(self, x):
            out = self.layer(x)
            out.register_hook(
                lambda g: seen.append((pool_name(self), x.shape, self.layer[0](x).dtype, g.isfinite().all()))
            )
            return out

    networks = {name: Spy(name) for name in ("gap", "mpn_cov")}

    def pool_name(spy):
        return next(name for name, network in networks.items() if network is spy)

    rows = measure_passes(networks, 8, batch=2, rounds=3, steps=2, device="cpu")
    assert [row["network"] for row in rows] == ["gap", "mpn_cov"]
    assert all(len(row["seconds"]) == 3 for row in rows)
    # Each in every round and once before, two steps a pass, on all images.
    assert sorted(name for name, *_ in seen) == ["gap"] * 8 + ["mpn_cov"] * 8
    assert {shape for _, shape, *_ in seen} == {torch.Size([2, 3, 8, 8])}
    assert all(finite for *_, finite in seen)
    assert all(p.grad is None for network in networks.values() for p in network.parameters())


def test_the_peer_that_needs_a_card_computes_the_root(monkeypatch):
    """With torch in the place of CuPy, which it resembles here; only the way between the two is not tried."""
    stream = SimpleNamespace(ExternalStream=lambda pointer: torch.no_grad())
    stand_in = SimpleNamespace(cuda=stream, from_dlpack=torch.from_dlpack, linalg=torch.linalg)
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    (function,) = (method.make() for method in CUDA_METHODS if method.package)
    x, g = torch.randn(3, 5, 9, dtype=torch.float64).requires_grad_(), torch.randn(3, 5, 5, dtype=torch.float64)
    want = one_pass(REFERENCES["exact root"], x, g)[2:]
    for value, reference in zip(one_pass(function, x, g)[2:], want, strict=True):
        assert relative_error(value, reference) < 1e-10


def test_the_route_by_products_is_timed_where_it_exists():
    assert ("exact root, products" in {method.name for method in CUDA_METHODS}) == ("products" in ROUTES)
    known = {method.name for method in (*METHODS, *CUDA_METHODS)} | {"exact root, products"}
    assert set(gpu.LAYERS) <= known


def test_limits_leave_eight_minutes():
    tests, layers, networks = gpu.FULL.limits
    assert len(gpu.TESTS) * tests + layers + len(gpu.FULL.pixels) * networks <= 8 * 60
    assert all((gpu.project_root() / "tests" / "cuda" / f"test_{name}.py").is_file() for name in gpu.TESTS)
    assert partial(gpu.time_layers, gpu.FULL).args[0].sizes[:4] == gpu.PAPERS
