"""DropCov: what is dropped, how often, and that evaluation knows nothing of it."""

import numpy as np
import pytest
import torch

from gcplib import create_pool
from gcplib.linalg import NonFiniteError, covariance, triu_vector
from gcplib.nn import DropCovPool, drop_probability

DOUBLE = torch.float64


def published(x, kernel, preserve):
    """The weights and the probability, image by image in plain loops, from features (B, d, M)."""
    channels = x.shape[1]
    weights, cosines = [], []
    for image in x:
        average = np.concatenate([[0], image.mean(1), [0]])
        logits = np.array([(average[i : i + 3] * kernel).sum() for i in range(channels)])
        weights.append(np.exp(logits) / np.exp(logits).sum())
        image = image * (1 + weights[-1])[:, None]
        rows = np.cov(image, bias=True).sum(1)
        cosines.append(rows @ weights[-1] / np.linalg.norm(rows) / np.linalg.norm(weights[-1]))
    return np.stack(weights), min(max(1 - preserve / np.log2(channels) * np.mean(cosines), 0), 1)


def pool_that_drops(channels=6, preserve=1.0, **options):
    """With a factor of 1, p is about two thirds."""
    return DropCovPool(channels, preserve=preserve, **options).double()


@pytest.mark.parametrize("preserve", [0.1, 1.0, 2.5, 10.0])
def test_weights_and_probability_are_the_published_ones(preserve):
    pool, x = pool_that_drops(preserve=preserve), torch.randn(4, 6, 12, dtype=DOUBLE) + 1
    kernel = pool.attention.weight.detach().flatten().numpy()
    weights, p = published(x.numpy(), kernel, preserve)
    got = pool.weights(x)
    torch.testing.assert_close(got, torch.from_numpy(weights))
    weighted = x * (1 + got.unsqueeze(-1))
    assert drop_probability(weighted, got, preserve).item() == pytest.approx(p, abs=1e-12)
    assert (p == 0) == (preserve == 10)


def test_closed_forms_of_the_probability():
    # Independent channels of equal variance: C 1 is constant, so equal weights agree with it.
    x = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1], [0, 0, 0, 0]], dtype=DOUBLE)[None, :2]
    even = torch.tensor([[0.5, 0.5]], dtype=DOUBLE)
    assert drop_probability(x, even, 0.25).item() == pytest.approx(0.75)
    assert drop_probability(x, torch.tensor([[1.0, 0.0]], dtype=DOUBLE), 0.25).item() == pytest.approx(
        1 - 0.25 * 0.5**0.5
    )
    # Against it: everything is dropped. An image without variance counts as cosine 0, so the mean is one half.
    assert drop_probability(x, -even, 1.0).item() == 1
    both = torch.cat([x, torch.ones_like(x)])
    assert drop_probability(both, even.expand(2, 2), 0.5).item() == pytest.approx(0.75)


@pytest.mark.parametrize("name", ["views", "map"])
def test_evaluation_is_the_plain_covariance(name):
    x = torch.randn(*((3, 8) if name == "views" else (3,)), 6, 4, 5) + 2
    pool, plain = create_pool("dropcov", 6, preserve=0.5).eval(), create_pool("cov", 6)
    torch.testing.assert_close(pool(x), plain(x))
    assert torch.equal(pool(x), pool(x))


def test_views_share_the_weights_of_their_common_average():
    x = torch.randn(2, 8, 6, 3, 4, dtype=DOUBLE) + torch.arange(6.0, dtype=DOUBLE)[:, None, None]
    pool = pool_that_drops(preserve=10.0)  # nothing is dropped
    weights = pool.weights(x.mean((1, 3, 4)).unsqueeze(-1))
    assert weights.max() > 1.5 * weights.min()
    want = covariance(x.flatten(3)).mean(1) * (1 + weights.unsqueeze(1)) * (1 + weights.unsqueeze(2))
    torch.testing.assert_close(pool(x), triu_vector(want))


def test_training_is_the_covariance_of_what_is_left():
    pool, x = pool_that_drops(), torch.randn(5, 6, 3, 4, dtype=DOUBLE)
    weights = pool.weights(x.flatten(2))
    weighted = x.flatten(2) * (1 + weights.unsqueeze(-1))
    p = drop_probability(weighted, weights, 1.0)
    assert 0.3 < p < 0.9
    kept = torch.zeros(6, dtype=torch.long)
    torch.manual_seed(1)
    for _ in range(20):
        out = pool(x)
        diagonal = torch.zeros(5, 6, 6, dtype=DOUBLE)
        diagonal[:, *torch.triu_indices(6, 6)] = out
        mask = diagonal.diagonal(dim1=1, dim2=2) > 0
        kept += mask.sum(0)
        want = covariance(weighted * (mask / (1 - p)).unsqueeze(-1))
        torch.testing.assert_close(out, triu_vector(want))
    # Each channel of each image is kept with probability 1 - p: four standard errors of 100 draws.
    spread = 4 * (100 * p * (1 - p)) ** 0.5
    assert (kept - 100 * (1 - p)).abs().max() < spread


def test_the_mean_over_draws_is_the_covariance_off_the_diagonal():
    torch.manual_seed(0)
    pool, x = pool_that_drops(4, preserve=1.5), torch.randn(1, 4, 50, dtype=DOUBLE)
    weights = pool.weights(x)
    weighted = x * (1 + weights.unsqueeze(-1))
    p = drop_probability(weighted, weights, 1.5)
    assert 0.1 < p < 0.6
    draws = torch.stack([covariance(pool.drop(x).detach())[0] for _ in range(4000)])
    want = covariance(weighted)[0].detach()
    want += torch.diag(want.diagonal() * p / (1 - p))
    assert ((draws.mean(0) - want).abs() <= 4.5 * draws.std(0) / 4000**0.5).all()


def test_a_seed_makes_the_same_draws_and_images_differ():
    pool, x = pool_that_drops(), torch.randn(1, 6, 3, 4, dtype=DOUBLE).expand(8, 6, 3, 4)
    torch.manual_seed(3)
    first = pool(x)
    torch.manual_seed(3)
    assert torch.equal(pool(x), first)
    assert len({tuple(row) for row in (first != 0).tolist()}) > 1


def test_gradients_take_the_probability_as_a_constant():
    pool, x = pool_that_drops(4), torch.randn(2, 4, 3, 3, dtype=DOUBLE, requires_grad=True)
    weights = pool.weights(x.flatten(2)).detach()
    p = drop_probability(x.detach().flatten(2) * (1 + weights.unsqueeze(-1)), weights, 1.0)
    torch.manual_seed(5)
    kept = ~(torch.rand(2, 4, dtype=DOUBLE) < p) / (1 - p)

    def by_hand(x, kernel):
        y = torch.nn.functional.conv1d(x.flatten(2).mean(-1).unsqueeze(1), kernel, padding=1).squeeze(1).softmax(-1)
        return triu_vector(covariance(x.flatten(2) * ((1 + y) * kept).unsqueeze(-1)))

    torch.manual_seed(5)
    out, g = pool(x), torch.randn(2, 10, dtype=DOUBLE)
    torch.testing.assert_close(out, by_hand(x, pool.attention.weight))
    got = torch.autograd.grad(out, [x, pool.attention.weight], g)
    want = torch.autograd.grad(by_hand(x, pool.attention.weight), [x, pool.attention.weight], g)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(by_hand, (x, pool.attention.weight))
    pool.eval()
    assert torch.autograd.gradcheck(pool, x)


def test_everything_dropped_is_zero_and_has_finite_gradients():
    pool = DropCovPool(4)
    signal = torch.randn(3, 1, 3, 3)
    x = torch.cat([10 - signal, 2 * signal, 2 * signal, 2 * signal], 1).requires_grad_()
    with torch.no_grad():
        pool.attention.weight.copy_(torch.tensor([[[0.0, 10.0, 0.0]]]))
    # All the weight is on the channel of the largest average, which varies against the sum of all.
    weights = pool.weights(x.detach().flatten(2))
    assert weights[:, 0].min() > 0.99
    assert drop_probability(x.detach().flatten(2), weights).item() == 1
    out = pool(x)
    out.sum().backward()
    assert out.abs().max() == 0
    assert x.grad.abs().max() == 0
    assert pool.eval()(x).abs().max() > 1


def test_what_is_not_finite_is_refused_in_training_too():
    pool, x = DropCovPool(4), torch.randn(2, 4, 3, 3)
    x[1, 2, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="non-finite"):
        pool(x)
    with pytest.raises(NonFiniteError, match="overflows"):
        pool(1e30 * torch.randn(2, 4, 3, 3))


def test_half_precision_empty_batches_and_constant_images():
    for training in (True, False):
        pool = DropCovPool(4).train(training)
        assert pool(torch.randn(2, 4, 3, 3).bfloat16()).dtype == torch.float32
        assert pool.half()(torch.randn(2, 4, 3, 3).half()).dtype == torch.float32
        assert pool.float()(torch.zeros(0, 4, 3, 3)).shape == (0, 10)
        assert pool(torch.ones(2, 4, 3, 3)).abs().max() == 0


@pytest.mark.parametrize("training", [True, False])
def test_compiles_in_one_graph_with_draws(training):
    torch._dynamo.reset()
    pool = DropCovPool(6, preserve=1.0).train(training)
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 6, 4, 4)
    torch.manual_seed(7)
    want = pool(x)
    torch.manual_seed(7)
    torch.testing.assert_close(compiled(x), want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preserve": 0}, "preserve must be above 0 and finite, got 0"),
        ({"preserve": float("nan")}, "got nan"),
        ({"kernel": 4}, "kernel must be odd, so that there is one weight for each channel, got 4"),
        ({"kernel": 0}, "kernel must be a positive integer, got 0"),
        ({"reduction": 1}, "at least two channels, got 1"),
        ({"preserv": 3}, "unknown option 'preserv'; did you mean 'preserve'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        create_pool("dropcov", 8, **options)
