import itertools

import numpy as np
import pytest
import torch
from torch import nn

import gcplib
from gcplib.linalg import covariance, newton_schulz, sqrtm, triu_vector
from gcplib.models import Head, Model
from gcplib.nn import D4, D4Views, InvariantPool, StiefelProjection, d4_views, random_view

DOUBLE = torch.float64


def square(size=5, batch=2, channels=3):
    return torch.arange(batch * channels * size**2, dtype=DOUBLE).view(batch, channels, size, size)


def gram_error(weight):
    return (weight.mT @ weight - torch.eye(weight.shape[1], dtype=weight.dtype)).abs().max().item()


# The group.


def test_views_are_numpys_turns_and_mirror_images():
    x = square()
    views = d4_views(x)
    assert views.shape == (2, 8, 3, 5, 5)
    for n, name in enumerate(D4):
        want = x.numpy()
        want = np.flip(want, -1) if "f" in name else want
        turns = {"e": 0, "r": 1, "r2": 2, "r3": 3}[name.replace("f", "") or "e"]
        np.testing.assert_array_equal(views[:, n].numpy(), np.rot90(want, turns, (-2, -1)))


def multiplication_table():
    """``table[g][h]`` is the number of g h; each view of an image of distinct pixels has one number."""
    views = d4_views(square(3, 1, 1))[0]
    number = {tuple(view.flatten().tolist()): n for n, view in enumerate(views)}
    assert len(number) == 8
    return [[number[tuple(d4_views(view[None])[0, g].flatten().tolist())] for view in views] for g in range(8)]


def test_views_are_the_group_of_the_square():
    table = multiplication_table()  # closed: every product was found among the eight
    everything = set(range(8))
    assert all(set(row) == everything and row[0] == g for g, row in enumerate(table))
    assert all({row[h] for row in table} == everything for h in range(8))
    for a, b, c in itertools.product(range(8), repeat=3):
        assert table[table[a][b]][c] == table[a][table[b][c]]
    r, f, rf = (D4.index(name) for name in ("r", "f", "rf"))
    assert table[r][f] == rf != table[f][r]
    assert table[f][f] == table[rf][rf] == 0


def test_transformed_images_have_the_same_views_in_another_order():
    x = square()
    views, table = d4_views(x), multiplication_table()
    for h in range(8):
        assert torch.equal(d4_views(views[:, h]), views[:, [table[g][h] for g in range(8)]])


@pytest.mark.parametrize(("size", "message"), [((2, 3, 4, 5), "got images of 4 x 5; crop"), ((3, 4, 4), "B, C, H, W")])
def test_views_of_other_shapes_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        d4_views(torch.zeros(size))


def test_a_random_view_is_one_of_the_eight_for_each_image_by_the_global_generator():
    views = torch.arange(8).expand(4000, 8)
    torch.manual_seed(1)
    drawn = random_view(views)
    assert drawn.shape == (4000,)
    counts = torch.bincount(drawn, minlength=8)
    assert counts.sub(500).abs().max() < 4 * (4000 * 7 / 64) ** 0.5
    torch.manual_seed(1)
    assert torch.equal(random_view(views), drawn)
    x = d4_views(square(batch=6))
    assert all(any(torch.equal(view, own) for own in views) for view, views in zip(random_view(x), x, strict=True))
    for wrong in (torch.zeros(3), torch.zeros(3, 0, 2)):
        with pytest.raises(ValueError, match=r"expected views \(B, V, \.\.\.\)"):
            random_view(wrong)


# The projection.


def test_the_projection_starts_as_the_q_of_a_gaussian_and_acts_on_the_features():
    torch.manual_seed(3)
    layer = StiefelProjection(12, 4)
    torch.manual_seed(3)
    want = torch.linalg.qr(torch.randn(12, 4)).Q
    torch.testing.assert_close(layer.weight, want)
    x = torch.randn(2, 12, 30)
    torch.testing.assert_close(covariance(layer(x)), want.mT @ covariance(x) @ want)


@pytest.mark.parametrize("size", [(12, 4), (6, 6), (5, 1)])
def test_the_projection_is_torchs_cayley_parametrization(size):
    """From the same draws to the same weights after some training, so that runs learn what they learned before."""
    theirs = nn.Linear(size[0], size[1], bias=False)
    torch.manual_seed(3)
    ours = StiefelProjection(*size).double()
    after = torch.rand(1)
    torch.manual_seed(3)
    theirs.weight = nn.Parameter(torch.linalg.qr(torch.randn(*size)).Q)
    nn.utils.parametrizations.orthogonal(theirs, "weight", "cayley")
    assert torch.equal(torch.rand(1), after)
    torch.testing.assert_close(ours.base.float(), theirs.parametrizations.weight[0].base)
    theirs.double()
    target = torch.randn(*size, dtype=DOUBLE)
    for layer in (ours, theirs):
        optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        for _ in range(20):
            optimizer.zero_grad()
            (layer.weight - target).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


@pytest.mark.parametrize("orthonormal", [True, False])
@pytest.mark.parametrize("size", [(12, 4), (6, 6), (5, 1)])
def test_training_keeps_to_the_manifold_unless_it_is_free(orthonormal, size):
    layer = StiefelProjection(*size, orthonormal=orthonormal)
    start, x, target = layer.weight.detach().clone(), torch.randn(8, size[0], 20), torch.randn(8, size[1], 20)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (layer(x) - target).square().mean().backward()
        optimizer.step()
    assert (layer.weight - start).norm() > 0.1
    assert (gram_error(layer.weight) < 1e-5) == orthonormal
    assert sum(p.numel() for p in layer.parameters()) == size[0] * size[1]


def test_training_finds_the_principal_directions():
    # The width largest variances are what an orthonormal W can keep at most.
    x = torch.randn(6, 500, dtype=DOUBLE) * torch.tensor([3.0, 2.5, 1, 0.5, 0.2, 0.1], dtype=DOUBLE)[:, None]
    layer = StiefelProjection(6, 2).double()
    optimizer = torch.optim.SGD(layer.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-covariance(layer(x)).trace()).backward()
        optimizer.step()
    most = torch.linalg.eigvalsh(covariance(x))[-2:].sum()
    torch.testing.assert_close(covariance(layer(x)).trace(), most, rtol=1e-4, atol=0)


def test_the_projection_keeps_its_precision_under_autocast():
    layer, x = StiefelProjection(12, 4), torch.randn(2, 12, 30)
    want = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), want)
    with pytest.raises(ValueError, match=r"expected features \(\.\.\., 12, M\), got \(2, 11, 30\)"):
        layer(x[:, :11])
    with pytest.raises(TypeError, match="floating-point features, got"):
        layer(x.long())


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((4, 5), "4 channels cannot be projected to 5 orthonormal ones; give at most 4"),
        ((4, 0), "width must be a positive integer, got 0"),
        ((True, 1), "in_channels must be a positive integer, got True"),
        ((4, 2.0), "width must be a positive integer, got 2.0"),
    ],
)
def test_impossible_projections(size, message):
    with pytest.raises(ValueError, match=message):
        StiefelProjection(*size)


# The pool.


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("views", [None, 8])
def test_the_pool_is_its_definition(steps, views):
    x = torch.randn(2, *([views] * bool(views)), 16, 5, 5, dtype=DOUBLE)
    pool = InvariantPool(16, projection=4, steps=steps).double()
    flat = x.flatten(-2)
    mean = covariance(flat).mean(1) if views else covariance(flat)
    mean = mean / mean.flatten(1).norm(dim=1)[:, None, None]
    projected = pool.projection.weight.mT @ mean @ pool.projection.weight
    vector = triu_vector(newton_schulz(projected, steps) if steps else sqrtm(projected))
    want = vector.sign() * (vector.abs() + 1e-12).sqrt()
    want = want / want.norm(dim=1, keepdim=True)
    assert pool(x).shape == (2, pool.out_features) == (2, 10)
    torch.testing.assert_close(pool(x), want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("projection", "width"), [(None, 16), (16, 16), (2, 2), (0.125, 2), (1.0, 16), (0.25, 4), (0.01, 2)]
)
def test_widths(projection, width):
    pool = InvariantPool(32, reduction=16, projection=projection)
    assert (pool.width, pool.out_features) == (width, width * (width + 1) // 2)
    assert pool(torch.randn(2, 32, 4, 4)).shape == (2, pool.out_features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projection": 1}, "at least two channels, got 1: the only entry"),
        ({"projection": 0}, "at least two channels, got 0"),
        ({"projection": True}, "at least two channels, got True"),
        ({"projection": "8"}, "at least two channels, got '8'"),
        ({"projection": 1.5}, "above 0 and at most 1, got 1.5"),
        ({"projection": 17}, "16 channels cannot be projected to 17"),
        ({"steps": 0}, "step"),
        ({"compute_dtype": "float16"}, "unknown compute_dtype 'float16'; did you mean"),
    ],
)
def test_bad_options_of_the_pool(options, message):
    with pytest.raises(ValueError, match=message):
        InvariantPool(16, **options)


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("views", [None, 8])
def test_gradcheck(steps, views):
    torch.manual_seed(0)
    pool = InvariantPool(5, projection=3, steps=steps).double()
    x = torch.randn(2, *([views] * bool(views)), 5, 3, 3, dtype=DOUBLE, requires_grad=True)
    weight = pool.projection.free

    def run(x, weight):
        return torch.func.functional_call(pool, {"projection.free": weight}, (x,))

    assert torch.autograd.gradcheck(run, (x, weight.detach().clone().requires_grad_()))


def test_images_without_variance_give_zeros_and_finite_gradients():
    x = torch.arange(1.0, 9).view(8, 1, 1).expand(2, 8, 3, 3).clone().requires_grad_()
    out = InvariantPool(8, projection=4)(x)
    out.sum().backward()
    assert out.abs().max() == 0
    assert torch.isfinite(x.grad).all()


def test_scale_does_not_matter():
    x, pool = torch.randn(2, 8, 5, 5, dtype=DOUBLE), InvariantPool(8, projection=4).double()
    torch.testing.assert_close(pool(1e3 * x), pool(x))


# Whole networks.


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (DOUBLE, 1e-10)], ids=str)
@pytest.mark.parametrize("pool", ["gap", "mpn_cov", "idccp"])
def test_logits_are_invariant_under_the_group(pool, dtype, tolerance):
    backbone = gcplib.create_backbone()
    options = {"projection": 4} if pool == "idccp" else {}
    made = gcplib.create_pool(pool, backbone.out_channels, reduction=16, **options)
    images = torch.rand(1, 3, 64, 64, dtype=dtype)
    views = d4_views(images).flatten(0, 1)
    plain = Model(backbone, Head(made, 5)).to(dtype).eval()
    invariant = D4Views(plain).eval()
    with torch.inference_mode():
        logits = invariant(views)
        spread = (logits - logits[:1]).abs().max() / logits.std()
        assert spread < tolerance
        # Without the views they differ: it is not that these images look the same from all sides.
        assert (plain(views) - plain(views[:1])).abs().max() / logits.std() > 100 * tolerance


def test_training_and_checkpoints_keep_the_projection(tmp_path):
    from safetensors.torch import load_file, save_file

    x = torch.randn(4, 8, 12, 3, 3)
    old, new = InvariantPool(12, projection=4), InvariantPool(12, projection=4)
    optimizer = torch.optim.SGD(old.parameters(), 0.5)
    old(x).sum().backward()
    optimizer.step()
    save_file(old.state_dict(), tmp_path / "pool.safetensors")
    new.load_state_dict(load_file(tmp_path / "pool.safetensors"))
    assert torch.equal(new(x), old(x))


def test_compiles_in_one_graph():
    torch._dynamo.reset()
    for options in ({}, {"steps": 5}):
        pool = InvariantPool(16, **options)
        x = torch.randn(2, 8, 16, 3, 3, requires_grad=True)
        results = []
        for layer in (pool, torch.compile(pool, backend="aot_eager", fullgraph=True)):
            out = layer(x)
            results.append((out, *torch.autograd.grad(out.sum(), [x, *pool.parameters()])))
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
