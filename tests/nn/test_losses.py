import re

import pytest
import torch
from torch.nn.functional import cross_entropy

from gcplib.nn.losses import get_loss, gradient_boosting_cross_entropy, list_losses

DOUBLE = torch.float64


def by_definition(logits, target, k):
    """The loss as it is written, image by image."""
    losses = []
    for s, y in zip(logits, target.tolist(), strict=True):
        others = torch.cat([s[:y], s[y + 1 :]]).sort(descending=True).values[:k]
        losses.append(-(s[y].exp() / (s[y].exp() + others.exp().sum())).log())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("k", [1, 3, 7])
def test_value_and_gradient_are_those_of_the_definition(k):
    logits = (3 * torch.randn(6, 8, dtype=DOUBLE)).requires_grad_()
    target = torch.randint(8, (6,))
    got, want = gradient_boosting_cross_entropy(logits, target, k), by_definition(logits, target, k)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (got, want)))
    assert torch.autograd.gradcheck(lambda s: gradient_boosting_cross_entropy(s, target, k), logits)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_closed_form_of_the_gradient(k):
    logits = torch.randn(5, 7, dtype=DOUBLE, requires_grad=True)
    target = torch.arange(5)
    (gradient,) = torch.autograd.grad(gradient_boosting_cross_entropy(logits, target, k), logits)
    s = logits.detach()
    own = torch.nn.functional.one_hot(target, 7).bool()
    negatives = s.masked_fill(own, -torch.inf)
    counted = own | (negatives >= negatives.sort(descending=True).values[:, k - 1 : k])
    assert counted.sum(1).eq(k + 1).all()
    q = s.masked_fill(~counted, -torch.inf).softmax(1)
    torch.testing.assert_close(gradient, (q - own.double()) / 5)
    assert gradient[~counted].eq(0).all()
    # Boosted: longer on every hard negative than that of cross-entropy.
    (plain,) = torch.autograd.grad(cross_entropy(logits, target), logits)
    assert (gradient > plain)[counted & ~own].all()


@pytest.mark.parametrize("k", [None, 9])
def test_all_negatives_are_cross_entropy(k):
    logits = (5 * torch.randn(12, 10, dtype=DOUBLE)).requires_grad_()
    target = torch.randint(10, (12,))
    got, want = gradient_boosting_cross_entropy(logits, target, k), cross_entropy(logits, target)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (got, want)))


def test_it_grows_with_k_and_never_passes_cross_entropy():
    logits, target = torch.randn(20, 30, dtype=DOUBLE), torch.randint(30, (20,))
    values = [gradient_boosting_cross_entropy(logits, target, k).item() for k in range(1, 30)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(cross_entropy(logits, target).item())


def test_huge_logits_neither_overflow_nor_vanish():
    logits = torch.tensor([[0.0, 1e4, -1e4], [1e4, 0.0, -1e4]], requires_grad=True)
    loss = gradient_boosting_cross_entropy(logits, torch.tensor([0, 0]), 1)
    assert loss.item() == pytest.approx(5e3)
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]))


def test_equal_negatives_count_as_often_as_k_says():
    loss = gradient_boosting_cross_entropy(torch.zeros(2, 6), torch.tensor([1, 5]), 3)
    assert loss.item() == pytest.approx(torch.tensor(4.0).log().item())


def test_what_is_not_finite_is_not_hidden():
    logits = torch.zeros(2, 5)
    logits[0, 3] = torch.nan
    assert gradient_boosting_cross_entropy(logits, torch.tensor([0, 1]), 1).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, target = torch.randn(4, 30).to(dtype), torch.arange(4)
    got = gradient_boosting_cross_entropy(logits, target)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, gradient_boosting_cross_entropy(logits.float(), target))
    with torch.autocast("cpu", torch.bfloat16):
        assert gradient_boosting_cross_entropy(logits, target).dtype == torch.float32


def test_compiles_in_one_graph():
    logits, target = torch.randn(4, 9, requires_grad=True), torch.arange(4)
    compiled = torch.compile(get_loss("gce(3)"), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), get_loss("gce(3)")(logits, target))
    with pytest.raises(RuntimeError, match="not among the classes"):
        compiled(logits, target + 6)


def test_by_name():
    logits, target = torch.randn(4, 20), torch.arange(4)
    torch.testing.assert_close(get_loss("cross_entropy")(logits, target), cross_entropy(logits, target))
    assert get_loss(cross_entropy) is cross_entropy
    for name, k in (("gce(15)", 15), ("gce", 15), (" gce(k=3)", 3), ("gce(1)", 1), ("gce(None)", None)):
        torch.testing.assert_close(get_loss(name)(logits, target), gradient_boosting_cross_entropy(logits, target, k))
    for name in list_losses():
        assert get_loss(name)(logits, target).dim() == 0


@pytest.mark.parametrize("name", ["mse", "bce(2)"])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ValueError, match=r"unknown loss '(mse|bce)';.* known: cross_entropy, gce"):
        get_loss(name)


@pytest.mark.parametrize(
    "name", ["gce(-1)", "gce(1.5)", "gce(some)", "gce(1, 2)", "cross_entropy(3)", "gce(", None, 15]
)
def test_settings_that_do_not_fit(name):
    with pytest.raises((TypeError, ValueError), match=re.escape(str(name))):
        get_loss(name)


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "3"])
def test_bad_k(k):
    with pytest.raises(ValueError, match=f"k, None for all negatives, must be a positive integer, got {k!r}"):
        gradient_boosting_cross_entropy(torch.zeros(2, 5), torch.tensor([0, 1]), k)


def test_k_above_the_negatives():
    with pytest.raises(ValueError, match="k = 15 hardest negatives of 12 classes: there are 11; lower k"):
        get_loss("gce(15)")(torch.zeros(2, 12), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="k, None for all negatives, must be a positive integer, got 0"):
        get_loss("gce(0)")


@pytest.mark.parametrize(
    ("logits", "target", "error", "message"),
    [
        (
            torch.zeros(2, 5),
            torch.tensor([0, 5]),
            ValueError,
            "1 of 2 targets are not among the 5 classes 0 to 4, such as 5",
        ),
        (
            torch.zeros(2, 5),
            torch.tensor([-1, 9]),
            ValueError,
            "2 of 2 targets are not among the 5 classes 0 to 4, such as -1",
        ),
        (torch.zeros(2, 5), torch.tensor([0.0, 1.0]), TypeError, "targets must be classes as int64, got torch.float32"),
        (torch.zeros(2, 5), torch.tensor([0, 1]).int(), TypeError, "convert them with target.long()"),
        (torch.zeros(2, 5).int(), torch.tensor([0, 1]), TypeError, "logits must be floating point, got torch.int32"),
        (torch.zeros(2, 5), torch.tensor([0]), ValueError, "got (2, 5) and (1,)"),
        (torch.zeros(2, 5, 3), torch.tensor([0, 1]), ValueError, "got (2, 5, 3) and (2,)"),
        (torch.zeros(0, 5), torch.tensor([], dtype=torch.int64), ValueError, "at least one image and two classes"),
        (torch.zeros(2, 1), torch.tensor([0, 0]), ValueError, "at least one image and two classes"),
    ],
)
def test_bad_input(logits, target, error, message):
    with pytest.raises(error, match=re.escape(message)):
        gradient_boosting_cross_entropy(logits, target, 1)
