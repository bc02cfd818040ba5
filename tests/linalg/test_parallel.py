import ast
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from gcplib.linalg import NonFiniteError, covariance_map, parallel, spectral_map
from gcplib.linalg.parallel import batch_parts, over_batch, use_threads


@pytest.fixture
def three_threads(monkeypatch):
    # Share out the small matrices of these tests, too.
    monkeypatch.setattr(parallel, "FEWEST_ROWS", 1)
    monkeypatch.setattr(parallel, "FEWEST_THREADS", 2)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def both(x, g, **options):
    x = x.clone().requires_grad_()
    out = covariance_map(x, **options)
    return out.detach(), torch.autograd.grad(out, x, g)[0]


@pytest.mark.parametrize("batch", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("route", ["full", "thin", "svd"])
def test_threads_do_not_change_the_result(batch, route, three_threads):
    x, g = torch.randn(batch, 8, 6, dtype=torch.float64), torch.randn(batch, 8, 8, dtype=torch.float64)
    got = both(x, g, route=route)
    torch.set_num_threads(1)
    for a, b in zip(got, both(x, g, route=route), strict=True):
        torch.testing.assert_close(a, b)


def test_a_singular_matrix_in_one_part_only(three_threads):
    s = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    s[5, 0, 0] = 0
    g = torch.randn(6, 4, 4, dtype=torch.float64)
    results = []
    for threads in (3, 1):
        torch.set_num_threads(threads)
        y = s.clone().requires_grad_()
        results.append(torch.autograd.grad(spectral_map(y), y, g)[0])
    torch.testing.assert_close(*results)
    assert torch.isfinite(results[0]).all()


def test_two_callers_at_once(three_threads):
    xs = [torch.randn(6, 5, 9, dtype=torch.float64) for _ in range(8)]
    with ThreadPoolExecutor(2) as callers:
        found = list(callers.map(covariance_map, xs))
    for x, got in zip(xs, found, strict=True):
        torch.testing.assert_close(got, covariance_map(x))


def test_parts_cover_the_batch_once(three_threads):
    for batch in range(8):
        covered = [i for part in batch_parts(torch.empty(batch, 2), 2) for i in range(batch)[part]]
        assert covered == list(range(batch))
    assert len(batch_parts(torch.empty(7, 2), 2)) == 3


def test_parts_run_side_by_side_on_one_thread_each(three_threads):
    seen = []

    def work(part, out):
        start = time.perf_counter()
        time.sleep(0.2)
        seen.append((start, time.perf_counter(), torch.get_num_threads(), torch.is_grad_enabled()))
        return out.fill_(part.start), torch.full((part.stop - part.start,), part.start)

    x = torch.empty(6)
    out, other = over_batch(work, batch_parts(x, 9), x, (6,))
    assert out.tolist() == other.tolist() == [0, 0, 2, 2, 4, 4]
    assert max(start for start, *_ in seen) < min(end for _, end, *_ in seen)
    assert {threads for _, _, threads, _ in seen} == {1}
    assert not any(grad for *_, grad in seen)
    assert torch.get_num_threads() == 3


def test_small_matrices_and_single_images_stay_together(three_threads):
    assert batch_parts(torch.empty(1, 500), 500) == [slice(0, 1)]
    parallel.FEWEST_ROWS = 128
    assert len(batch_parts(torch.empty(7, 2), 127)) == 1
    assert len(batch_parts(torch.empty(7, 2), 128)) == 3


def test_the_number_of_threads_is_that_of_one_thread_alone(three_threads):
    with use_threads(1):
        assert torch.get_num_threads() == 1
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 3
    assert torch.get_num_threads() == 3


def test_a_torch_without_openmp_gives_the_same(three_threads, monkeypatch):
    x = torch.randn(6, 8, 9, dtype=torch.float64)
    want = covariance_map(x)
    monkeypatch.setattr(parallel, "_openmp", lambda: None)
    with use_threads(1):
        assert torch.get_num_threads() == 3
        torch.testing.assert_close(covariance_map(x), want)


def test_needs_torch_alone():
    # mpmath is torch's own.
    allowed = {"gcplib", "torch", "mpmath", *sys.stdlib_module_names}
    for file in Path(parallel.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert {name.partition(".")[0] for name in names} <= allowed, file


@pytest.mark.parametrize("bad", [0, 4])
def test_an_error_in_any_part_is_raised_and_leaves_the_threads_as_they_were(bad, three_threads):
    x = torch.randn(5, 4, 9)
    x[bad, 1, 2] = float("nan")
    with pytest.raises(NonFiniteError, match=rf"hold 1 non-finite values.*\({bad}, 1, 2\)"):
        covariance_map(x)
    assert torch.get_num_threads() == 3
    assert torch.isfinite(covariance_map(torch.randn(5, 4, 9))).all()


def test_inference_mode(three_threads):
    x = torch.randn(5, 4, 9)
    with torch.inference_mode():
        out = covariance_map(x)
    assert out.is_inference()
    torch.testing.assert_close(out, covariance_map(x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_child_can_go_on(three_threads):
    s = torch.eye(4).expand(5, 4, 4).contiguous()
    spectral_map(s)  # starts the threads, which the child will not have
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        # Without OpenMP, which does not survive a fork either: only the pool of threads is under test.
        parts = [slice(0, 2), slice(2, 5)]
        (out,) = over_batch(lambda part, out: (out.fill_(1),), parts, s, (5,))
        os._exit(0 if out.sum() == 5 else 1)
    deadline = time.time() + 30
    while time.time() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child waits for threads that it does not have")
