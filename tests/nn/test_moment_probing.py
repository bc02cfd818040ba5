"""Moment probing, beside its published head written out; on maps, views and tokens."""

import copy
import pickle

import numpy as np
import pytest
import scipy.special
import torch
from torch import nn
from torch.nn import functional

from gcplib import create_pool
from gcplib.models import Head, Model
from gcplib.nn import D4Views, MomentProbingPool, d4_views

DOUBLE = torch.float64


def small(channels=5, width=32, heads=4, **options):
    torch.manual_seed(0)
    pool = MomentProbingPool(channels, width=width, heads=heads, **options).double()
    with torch.no_grad():
        pool.norm.weight.uniform_(0.5, 2)
    return pool


def convolve(k, weight):
    """A 3 x 3 convolution of stride 2 without padding, by its sum."""
    side = (k.shape[-1] - 3) // 2 + 1
    out = np.zeros((len(weight), side, side))
    for o, i, j in np.ndindex(out.shape):
        out[o, i, j] = (k[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * weight[o]).sum()
    return out


def published(pool, x, first=None):
    """The vector of one image (d, M) in numpy, with the bias of the layer norm that the released code has."""
    state = {name: value.numpy() for name, value in pool.state_dict().items()}
    y = (x.T @ state["project.weight"].T + state["project.bias"]).reshape(x.shape[1], pool.heads, -1)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    y = y * state["norm.weight"] + np.linspace(-1, 1, y.shape[-1])
    matrices = []
    for h in range(pool.heads - 1):
        a, b = (y[:, i] - y[:, i].mean(0) for i in (h, h + 1))
        k = a.T @ b / len(a)
        matrices.append(k / np.linalg.norm(k, axis=0))
    k = convolve(np.stack(matrices), state["first.weight"])
    k = k * scipy.special.ndtr(k)
    second = convolve(k, state["second.weight"]).ravel()
    return np.concatenate([x.mean(1) if first is None else first, second]) / 2


@pytest.mark.parametrize(("width", "heads"), [(32, 4), (40, 5), (20, 2)])
def test_the_vector_is_the_published_one(width, heads):
    pool, x = small(width=width, heads=heads), torch.randn(3, 5, 3, 4, dtype=DOUBLE)
    got, want = pool(x), [published(pool, image.flatten(1).numpy()) for image in x]
    torch.testing.assert_close(got, torch.from_numpy(np.stack(want)), rtol=1e-9, atol=1e-12)
    assert pool.out_features == got.shape[1]


def test_sizes_of_the_released_head():
    pool = MomentProbingPool(768)
    assert pool.out_features == 768 + 2883
    assert sum(p.numel() for p in pool.parameters()) == 768 * 512 + 512 + 128 + 2 * 3 * 3 * 9


def test_tokens_are_maps_and_the_class_token_takes_the_place_of_the_average():
    pool, x, token = small(), torch.randn(3, 5, 3, 4, dtype=DOUBLE), torch.randn(3, 5, dtype=DOUBLE)
    tokens = x.flatten(2).mT
    torch.testing.assert_close(pool(tokens), pool(x))
    torch.testing.assert_close(pool(tokens)[:, :5], x.mean((2, 3)) / 2)
    for features in (tokens, x):
        with_token = pool(features, token)
        want = [published(pool, image.flatten(1).numpy(), one.numpy()) for image, one in zip(x, token, strict=True)]
        torch.testing.assert_close(with_token, torch.from_numpy(np.stack(want)), rtol=1e-9, atol=1e-12)
    assert pool(tokens.float(), token.bfloat16()).dtype == torch.float32


def test_one_classifier_of_the_vector_is_the_mean_of_two():
    """Same logits and same gradients of the weights, which is why the vector has the factor 1/2."""
    pool, x = small(), torch.randn(4, 5, 3, 4, dtype=DOUBLE)
    vector = pool(x).detach()
    first, second = nn.Linear(5, 3).double(), nn.Linear(vector.shape[1] - 5, 3).double()
    one = nn.Linear(vector.shape[1], 3).double()
    with torch.no_grad():
        one.weight.copy_(torch.cat([first.weight, second.weight], 1))
        one.bias.copy_((first.bias + second.bias) / 2)
    want = (first(2 * vector[:, :5]) + second(2 * vector[:, 5:])) / 2
    torch.testing.assert_close(one(vector), want)
    one(vector).square().sum().backward()
    want.square().sum().backward()
    torch.testing.assert_close(one.weight.grad, torch.cat([first.weight.grad, second.weight.grad], 1))


def test_columns_have_unit_norm_and_heads_are_neighbors():
    pool, x = small(), torch.randn(2, 5, 30, dtype=DOUBLE)
    k = pool.cross_covariances(x)
    assert k.shape == (2, 3, 8, 8)
    torch.testing.assert_close(k.norm(dim=-2), torch.ones(2, 3, 8, dtype=DOUBLE))
    # Only the matrices of a head and its neighbors change with it.
    with torch.no_grad():
        pool.project.weight[24:] += torch.randn(8, 5, dtype=DOUBLE)
    changed = (pool.cross_covariances(x) - k).abs().amax((0, 2, 3))
    assert changed[2] > 0.1
    assert changed[:2].max() == 0


def test_views_are_one_set_of_positions():
    pool, x = small(), torch.randn(2, 8, 5, 3, 3, dtype=DOUBLE)
    torch.testing.assert_close(pool(x), pool(x.permute(0, 2, 1, 3, 4).flatten(3)))
    net = Model(nn.Conv2d(3, 5, 2, stride=2).double(), Head(small(), 3).double())
    net.backbone.out_channels = 5
    images = torch.randn(1, 3, 8, 8, dtype=DOUBLE)
    logits = D4Views(net).eval()(d4_views(images).flatten(0, 1))
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))


def test_gradcheck():
    pool, x = small(3, 14, 2), torch.randn(2, 3, 2, 3, dtype=DOUBLE, requires_grad=True)
    names, values = zip(*pool.named_parameters(), strict=True)

    def run(x, *values):
        return torch.func.functional_call(pool, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *(value.detach().clone().requires_grad_() for value in values)))


def test_each_image_by_itself():
    pool, x = small(), torch.randn(3, 5, 3, 4, dtype=DOUBLE)
    torch.testing.assert_close(torch.func.vmap(lambda image: pool(image[None])[0])(x), pool(x))
    for training in (True, False):
        assert torch.equal(pool.train(training)(x), pool(x))


def test_precisions_empty_batches_constant_images_and_copies():
    pool, x = MomentProbingPool(5, width=32), torch.randn(2, 5, 4, 4)
    assert pool(x.half()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = pool(x)
    assert torch.equal(under_autocast, pool(x))
    assert pool(x[:0]).shape == (0, pool.out_features)
    assert pool(x[:0].flatten(2).mT, x[:0, :, 0, 0]).shape == (0, pool.out_features)
    constant = torch.ones(2, 5, 4, 4, requires_grad=True)
    pool(constant).sum().backward()
    assert torch.isfinite(constant.grad).all()
    for other in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert torch.equal(other(x), pool(x))
        assert repr(other) == repr(pool)


def test_compiles_in_one_graph():
    torch._dynamo.reset()
    pool, tokens, token = MomentProbingPool(5, width=32), torch.randn(2, 9, 5), torch.randn(2, 5)
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens, token), pool(tokens, token))


def test_a_bias_of_the_layer_norm_would_not_matter():
    pool, x = small(), torch.randn(2, 5, 9, dtype=DOUBLE)
    y = functional.linear(x.mT, pool.project.weight, pool.project.bias).unflatten(-1, (4, -1))
    for bias in (None, torch.randn(8, dtype=DOUBLE)):
        z = functional.layer_norm(y, (8,), pool.norm.weight, bias)
        z = (z - z.mean(1, keepdim=True)).permute(0, 2, 3, 1)
        k = functional.normalize(z[:, :-1] @ z[:, 1:].mT, dim=-2)
        torch.testing.assert_close(pool.cross_covariances(x), k)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 1}, "needs at least two heads, .*; got 1 heads of 512 channels"),
        ({"heads": 3}, "heads must divide the channels, but 512 channels make no 3 equal parts"),
        ({"width": 24}, "7 channels in each, for two convolutions; got 4 heads of 6 channels"),
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"head": 4}, "unknown option 'head'; did you mean 'heads'"),
        ({"compute_dtype": "float64"}, "unknown option 'compute_dtype'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        create_pool("moment_probing", 8, **options)


def test_bad_features():
    pool, tokens = small(), torch.randn(2, 9, 5, dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"expected tokens \(B, N, 5\), got \(2, 9, 4\)"):
        pool(tokens[..., :4])
    with pytest.raises(ValueError, match=r"one class token for each image, \(2, 5\), got \(2, 1, 5\)"):
        pool(tokens, tokens[:, :1])
    with pytest.raises(ValueError, match=r"at least 2 positions, got a map of 1 x 1"):
        pool(tokens[:, :1])
    with pytest.raises(ValueError, match="make the pool with reduction=None"):
        MomentProbingPool(5, width=32, reduction=4)(tokens.float(), tokens[:, 0].float())
