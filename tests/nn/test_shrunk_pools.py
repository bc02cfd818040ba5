"""Pools of shrunk covariances."""

import copy
import pickle

import pytest
import torch

from gcplib import create_pool
from gcplib.linalg import NonFiniteError, logm, newton_schulz, powm, shrunk_covariance, spectral_map, sqrtm, triu_vector

DOUBLE = torch.float64
SHRINKAGES = [0.2, 1.0, "ledoit_wolf", "oas"]
ROOTS = {
    "cov": lambda s: s,
    "mpn_cov": sqrtm,
    "isqrt_cov": newton_schulz,
    "mpa": lambda s: spectral_map(s, "pade"),
    "svd_taylor": sqrtm,
    "log": logm,
}


@pytest.mark.parametrize("shrinkage", SHRINKAGES)
@pytest.mark.parametrize("name", ROOTS)
@pytest.mark.parametrize("positions", [3, 20])
def test_the_root_is_that_of_the_shrunk_covariance(name, shrinkage, positions):
    x = torch.randn(3, 6, 1, positions, dtype=DOUBLE) * torch.arange(1.0, 7, dtype=DOUBLE)[:, None, None]
    want = triu_vector(ROOTS[name](shrunk_covariance(x.flatten(2), shrinkage)))
    torch.testing.assert_close(create_pool(name, 6, shrinkage=shrinkage)(x), want)


def test_a_power_and_blocks():
    x = torch.randn(2, 6, 1, 9, dtype=DOUBLE)
    pool = create_pool("mpn_cov", 6, exponent=0.25, blocks=2, shrinkage="oas")
    parts = [triu_vector(powm(shrunk_covariance(part, "oas"), 0.25)) for part in x.flatten(2).split(3, dim=1)]
    torch.testing.assert_close(pool(x), torch.cat(parts, 1))


@pytest.mark.parametrize("positions", [3, 20])
def test_newton_schulz_by_products_and_by_eigenvalues(positions):
    x = torch.randn(2, 6, 1, positions, dtype=DOUBLE)
    want = create_pool("isqrt_cov", 6, shrinkage="ledoit_wolf", route="full")(x)
    for route in ("auto", "products"):
        torch.testing.assert_close(create_pool("isqrt_cov", 6, shrinkage="ledoit_wolf", route=route)(x), want)


def test_shrinkage_of_one_leaves_the_variance_alone():
    x = torch.randn(2, 4, 3, 3, dtype=DOUBLE)
    variance = x.flatten(2).var(-1, correction=0).mean(1)
    want = triu_vector(variance.sqrt()[:, None, None] * torch.eye(4, dtype=DOUBLE))
    torch.testing.assert_close(create_pool("mpn_cov", 4, shrinkage=1)(x), want)


@pytest.mark.parametrize("shrinkage", [0.2, "ledoit_wolf", "oas"])
@pytest.mark.parametrize("name", ["mpn_cov", "isqrt_cov", "log"])
def test_gradcheck(name, shrinkage):
    x = torch.randn(2, 4, 1, 7, dtype=DOUBLE) * torch.tensor([1.0, 2, 4, 8], dtype=DOUBLE)[:, None, None]
    assert torch.autograd.gradcheck(create_pool(name, 4, shrinkage=shrinkage).double(), x.requires_grad_())


def test_views_are_shrunk_together():
    x, pool = torch.randn(2, 8, 5, 3, 3, dtype=DOUBLE), create_pool("mpn_cov", 5, shrinkage="ledoit_wolf")
    centered = x.flatten(3) - x.flatten(3).mean(-1, keepdim=True)
    torch.testing.assert_close(
        pool(x), triu_vector(sqrtm(shrunk_covariance(centered.mT.flatten(1, 2).mT, "ledoit_wolf")))
    )


@pytest.mark.parametrize("name", ["mpn_cov", "log"])
@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", "oas"])
def test_precisions_empty_batches_copies_and_one_graph(name, shrinkage):
    torch._dynamo.reset()
    pool, x = create_pool(name, 6, shrinkage=shrinkage), torch.randn(2, 6, 3, 3)
    assert pool(x.half()).dtype == torch.float32
    assert pool(x[:0]).shape == (0, 21)
    for other in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert torch.equal(other(x), pool(x))
        assert repr(other) == repr(pool)
    torch.testing.assert_close(torch.compile(pool, backend="aot_eager", fullgraph=True)(x), pool(x))
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="1 non-finite"):
        pool(x)


def test_settings_are_said():
    pool = create_pool("mpn_cov", 8, shrinkage="oas")
    assert pool.extra_repr() == "8, out_features=36, fn=sqrt, rule=exact, route=auto, shrinkage=oas"
    assert "shrinkage=ledoit_wolf" in repr(create_pool("log", 8, shrinkage="ledoit_wolf"))
    assert "shrinkage" not in repr(create_pool("mpn_cov", 8))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mpn_cov", {"shrinkage": 0}, "above 0 and at most 1, or one of ledoit_wolf, oas; got 0"),
        ("mpn_cov", {"shrinkage": "oass"}, "unknown shrinkage 'oass'; did you mean 'oas'"),
        ("log", {"shrinkage": "ledoit-wolf"}, "unknown shrinkage 'ledoit-wolf'; did you mean 'ledoit_wolf'"),
        ("log", {"shrinkage": None}, "got None"),
        (
            "mpn_cov",
            {"shrinkage": 0.1, "route": "thin"},
            "route 'thin' needs null directions, which shrinkage=0.1 fills",
        ),
        ("isqrt_cov", {"shrinkage": "oas", "route": "svd"}, "route 'svd' needs null directions.*; use full"),
        ("gaussian", {"shrinkage": 0.1}, "unknown option 'shrinkage'"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_pool(name, 8, **options)
