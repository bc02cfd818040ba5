"""What a GPU needs of its host: few waits, graphs that can be captured, and products whose precision nobody lowers."""

import warnings

import pytest
import torch

from gcplib.linalg import ROUTES, covariance, covariance_map, newton_schulz

pytestmark = pytest.mark.cuda

SIZES = [(16, 64, 196), (16, 256, 49)]
# Waits beyond those of torch's own decomposition: finite eigenvalues, which are zero, finite values, and the way back.
MOST_WAITS = 4

needs_products = pytest.mark.skipif("products" not in ROUTES, reason="this version has no route by products alone")


def steps(x):
    return newton_schulz(covariance(x))


def products(x):
    return covariance_map(x, route="products")


def plain(x):
    lam, u = torch.linalg.eigh(covariance(x))
    return (u * lam.clamp(min=1e-6).sqrt().unsqueeze(-2)) @ u.mT


def gradient(function, x):
    """Return ``dl/dX`` for a direction that is not symmetric."""
    out = function(x)
    return torch.autograd.grad(out, x, torch.linspace(-1, 1, out.numel(), device=x.device).view_as(out))[0]


def waits(work):
    """Return how often the host waits for the GPU."""
    work()  # what is set up at first use waits as well
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(entry.message) for entry in found)


def features(size, device):
    return torch.randn(size, device=device).requires_grad_()


@pytest.mark.parametrize("size", SIZES)
def test_the_host_waits_as_seldom_as_it_can(size, gpu, record_property):
    x = features(size, gpu)
    assert waits(lambda: x.sum().item()) == 1  # the count counts
    found = {
        "Newton-Schulz": waits(lambda: gradient(steps, x)),
        "exact root": waits(lambda: gradient(covariance_map, x)),
        "exact root, full route": waits(lambda: gradient(lambda x: covariance_map(x, route="full"), x)),
        "torch eigh": waits(lambda: gradient(plain, x)),
    }
    for name, count in found.items():
        record_property(f"waits for the GPU, {name}, {'x'.join(map(str, size))}", count)
    assert found["Newton-Schulz"] <= 1
    # The smaller side has its own number of waits within torch; the full one decomposes what torch's own does.
    assert found["exact root, full route"] <= found["torch eigh"] + MOST_WAITS


@needs_products
@pytest.mark.parametrize("size", SIZES)
def test_the_root_by_products_never_waits(size, gpu, record_property):
    x = features(size, gpu)
    record_property(f"waits for the GPU, products, {'x'.join(map(str, size))}", waits(lambda: gradient(products, x)))
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradient(products, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("function", [steps, pytest.param(products, marks=needs_products)])
@pytest.mark.parametrize("size", SIZES)
def test_forward_and_backward_are_captured_in_a_graph(function, size, gpu):
    x = features(size, gpu)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            gradient(function, x)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradient(function, x)
    other = features(size, gpu)
    with torch.no_grad():
        x.copy_(other)
    graph.replay()
    torch.testing.assert_close(captured, gradient(function, other), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("size", SIZES)
def test_lowered_products_change_nothing(size, precision, gpu, record_property):
    if torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this card has no TF32")
    functions = {"Newton-Schulz": steps, "exact root": covariance_map}
    functions |= {"products": products} if "products" in ROUTES else {}
    x, before = features(size, gpu), torch.get_float32_matmul_precision()
    wanted = {name: (function(x).detach(), gradient(function, x)) for name, function in functions.items()}
    square = torch.randn(512, 512, device=gpu)
    torch.set_float32_matmul_precision(precision)
    try:
        lowered = ((square @ square).double() - square.double() @ square.double()).norm() / 512
        found = {name: (function(x).detach(), gradient(function, x)) for name, function in functions.items()}
    finally:
        torch.set_float32_matmul_precision(before)
    assert lowered > 1e-3, "the setting has no effect on this card, so nothing is tested"
    for name, pair in found.items():
        apart = max(((a - b).norm() / b.norm()).item() for a, b in zip(pair, wanted[name], strict=True))
        record_property(f"{name} at {precision} precision, {'x'.join(map(str, size))}", f"{apart:.1e}")
        assert apart < 2e-5, name
