import copy
import math

import pytest
import torch
from torch import nn

from gcplib.lab.analysis import effective_smoothness, largest_hessian_eigenvalue, smoothness_while_training
from gcplib.models import Head
from gcplib.nn import create_pool

NOTHING = torch.zeros(0)


class Vector(nn.Module):
    """A model that is its parameter, for losses that are functions of it."""

    def __init__(self, values):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(values, dtype=torch.float64))

    def forward(self, inputs):
        return self.w


def head():
    return Head(create_pool("mpn_cov", 6, reduction=4), 3)


def batch(count=8):
    return torch.randn(count, 6, 5, 5), torch.arange(count) % 3


def test_quadratic_has_the_beta_of_its_matrix_along_the_gradient():
    a = torch.diag(torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64))
    model = Vector([1.0, 1.0, 0.5])
    got = effective_smoothness(model, NOTHING, NOTHING, [0.1, 2.0], lambda w, _: w @ a @ w / 2)
    g = a @ model.w.detach()
    assert got.gradient_norm == pytest.approx(g.norm().item())
    assert got.beta == pytest.approx(((a @ g).norm() / g.norm()).item())
    assert got.loss == pytest.approx(18.0)
    assert got.finite


def test_beta_is_the_worst_over_the_lengths():
    # The gradient w^3 falls to 0 after 2, and to -8 after 4: most change per distance at the start.
    model = Vector([2.0])
    change = {s: abs((2 - s) ** 3 - 8) / s for s in (0.5, 2.0, 4.0)}
    got = effective_smoothness(model, NOTHING, NOTHING, [4.0, 0.5, 2.0], lambda w, _: (w**4).sum() / 4)
    assert (got.beta, got.length) == (pytest.approx(change[0.5]), 0.5)
    alone = effective_smoothness(model, NOTHING, NOTHING, [2.0], lambda w, _: (w**4).sum() / 4)
    assert alone.beta == pytest.approx(change[2.0])


def test_model_is_the_same_bits_afterwards():
    model = head().train()
    inputs, labels = batch()
    model(inputs)  # moves the running averages away from their start
    before = copy.deepcopy(model.state_dict())
    effective_smoothness(model, inputs, labels, [0.1, 1.0])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())


def test_buffers_do_not_drift_between_evaluations():
    class Counting(Vector):
        def __init__(self):
            super().__init__([3.0, 4.0])
            self.register_buffer("calls", torch.tensor(0.0, dtype=torch.float64))

        def forward(self, inputs):
            self.calls += 1
            return self.w * self.calls

    model = Counting()
    got = effective_smoothness(model, NOTHING, NOTHING, [0.1, 0.2, 0.3], lambda w, _: w @ w / 2)
    assert got.beta == pytest.approx(1.0)
    assert model.calls == 0


def test_loss_and_gradient_are_those_of_the_backward_pass():
    model = head()
    inputs, labels = batch()
    got = effective_smoothness(model, inputs, labels, [0.1])
    loss = nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    assert got.gradient_norm == pytest.approx(nn.utils.get_total_norm(p.grad for p in model.parameters()).item())
    assert got.loss == pytest.approx(loss.item(), rel=1e-6)


def test_gradient_that_is_not_finite_is_an_outcome():
    def root(w, _):
        return w.sqrt().sum()

    here = effective_smoothness(Vector([0.0, 1.0]), NOTHING, NOTHING, [0.1], root)
    assert (here.beta, here.gradient_norm, here.finite) == (math.inf, math.inf, False)
    model = Vector([1.0, 1.0])
    there = effective_smoothness(model, NOTHING, NOTHING, [0.1, 2.0], root)  # the second one leaves w > 0
    assert (there.beta, there.length, there.finite) == (math.inf, 2.0, False)
    assert there.gradient_norm == pytest.approx(0.5 * 2**0.5)
    assert model.w.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("lengths", [[], [0.1, 0.0], [-1.0], [math.nan], [math.inf]])
def test_bad_lengths(lengths):
    with pytest.raises(ValueError, match="lengths must be positive and finite"):
        effective_smoothness(Vector([1.0]), NOTHING, NOTHING, lengths, lambda w, _: w.sum())


def test_nothing_to_move():
    with pytest.raises(ValueError, match="the gradient of Vector is zero"):
        effective_smoothness(Vector([0.0]), NOTHING, NOTHING, [0.1], lambda w, _: (w**2).sum())
    with pytest.raises(ValueError, match="ReLU has no parameter"):
        effective_smoothness(nn.ReLU(), *batch(), [0.1])


def test_measuring_does_not_change_training():
    batches = [batch() for _ in range(5)]
    measured = head()
    plain = copy.deepcopy(measured)
    rows = smoothness_while_training(measured, batches, torch.optim.SGD(measured.parameters(), 0.1), [0.1], 2, clip=0.5)
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert all(row["finite"] and 0 < row["beta"] < math.inf for row in rows)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    for inputs, labels in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(inputs), labels).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
    for name, value in measured.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name


@pytest.mark.parametrize(("bad", "every", "steps"), [(3, 2, [0, 2, 3]), (2, 2, [0, 2]), (0, 1, [0])])
def test_training_that_is_not_finite_ends_with_a_row_that_says_so(bad, every, steps):
    batches = [batch() for _ in range(5)]
    batches[bad][0][0, 0, 0, 0] = math.nan
    model = head()
    rows = smoothness_while_training(model, batches, torch.optim.SGD(model.parameters(), 0.1), [0.1], every)
    assert [row["step"] for row in rows] == steps
    assert [row["finite"] for row in rows] == [True] * (len(steps) - 1) + [False]
    assert rows[-1]["beta"] == math.inf


def test_every_must_be_positive():
    model = head()
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        smoothness_while_training(model, [batch()], torch.optim.SGD(model.parameters(), 0.1), [0.1], 0)


def test_largest_hessian_eigenvalue_of_a_quadratic():
    a = torch.diag(torch.tensor([-5.0, 1.0, 3.0], dtype=torch.float64))
    got = largest_hessian_eigenvalue(
        Vector([0.3, -0.2, 0.5]), NOTHING, NOTHING, lambda w, _: w @ a @ w / 2, 200, tolerance=1e-6
    )
    assert got == pytest.approx(-5, rel=1e-3)
    assert largest_hessian_eigenvalue(Vector([1.0]), NOTHING, NOTHING, lambda w, _: w.sum()) == 0


@pytest.mark.parametrize("pool", ["mpn_cov", "isqrt_cov"])
def test_largest_hessian_eigenvalue_of_a_head_is_that_of_the_whole_matrix(pool):
    torch.manual_seed(0)
    # In float64 and evaluation mode, so that the whole Hessian can be had by another way.
    head = Head(create_pool(pool, 3), 2).double()
    inputs, labels = torch.randn(4, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), head).double()
    names, values = zip(*backbone.named_parameters(), strict=True)

    def loss(*values):
        logits = torch.func.functional_call(backbone, dict(zip(names, values, strict=True)), (inputs,))
        return torch.nn.functional.cross_entropy(logits, labels)

    blocks = torch.autograd.functional.hessian(loss, tuple(v.detach() for v in values))
    sizes = [v.numel() for v in values]
    whole = torch.cat(
        [
            torch.cat([b.reshape(n, m) for b, m in zip(r, sizes, strict=True)], 1)
            for r, n in zip(blocks, sizes, strict=True)
        ]
    )
    want = torch.linalg.eigvalsh(whole)
    got = largest_hessian_eigenvalue(backbone, inputs, labels, iterations=500, tolerance=1e-9)
    assert got == pytest.approx(want[want.abs().argmax()].item(), rel=1e-4)


def test_rules_as_released_have_no_hessian():
    head = Head(create_pool("svd_taylor", 4), 2)
    with pytest.raises(NotImplementedError, match="gradient rule taylor has no second derivative"):
        largest_hessian_eigenvalue(
            torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1), head), torch.randn(3, 4, 4, 4), torch.tensor([0, 1, 1])
        )
