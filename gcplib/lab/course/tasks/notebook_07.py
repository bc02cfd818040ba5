"""Tasks of notebook 07: the loop that trains a head, and the effective rank of a covariance."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from gcplib.lab.course.checking import Task
from gcplib.lab.training.recipe import Recipe, learning_rate_factor
from gcplib.models import Head
from gcplib.nn import create_pool

__all__ = ["TASKS"]

EPOCHS = 3


def training() -> list[tuple]:
    """Maps (n, C, H, W), classes, the batches of some epochs, and a plan in which every number matters."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 3
    maps = torch.randn(12, 5, 3, 3, generator=generator) + labels[:, None, None, None]
    steps = [batch for _ in range(EPOCHS) for batch in torch.randperm(12, generator=generator).split(5)]
    plan = Recipe(epochs=EPOCHS, batch_size=5, learning_rate=0.1, classifier_factor=4.0, weight_decay=0.05, clip=0.6)
    return [(maps, labels, steps, plan)]


def train(answer: Any, maps: Tensor, labels: Tensor, steps: list[Tensor], plan: Recipe) -> dict[str, Any]:
    """Return the losses of an answer, and the weights that it leaves."""
    torch.manual_seed(0)
    head = Head(create_pool("gap", maps.shape[1], reduction=4), 3).eval()
    losses = answer(head, maps, labels, steps, plan)
    weights = torch.cat([value.detach().flatten() for value in head.state_dict().values()])
    return {"the loss of each step": losses and torch.tensor(losses), "the weights at the end": weights}


def _loop(head: nn.Module, maps: Tensor, labels: Tensor, steps: list[Tensor], plan: Recipe, fault: str = "") -> Any:
    last = plan.learning_rate * (1 if fault == "one rate" else plan.classifier_factor)
    parts = [{"params": head.pool.parameters()}, {"params": head.classifier.parameters(), "lr": last}]
    momentum = 0 if fault == "momentum" else plan.momentum
    optimizer = torch.optim.SGD(parts, plan.learning_rate, momentum, 0, 0 if fault == "decay" else plan.weight_decay)
    each = len(steps) // plan.epochs
    passed = {"schedule": lambda step: 0.3, "by epoch": lambda step: step // each / plan.epochs}
    through = passed.get(fault, lambda step: step / len(steps))
    schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(plan, plan.epochs * through(step)))
    head.train(fault != "evaluation")
    losses = []
    for batch in steps:
        loss = cross_entropy(head(maps[batch]), labels[batch], reduction="sum" if fault == "sum" else "mean")
        if fault != "add up":
            optimizer.zero_grad()
        loss.backward()
        if fault != "clip":
            nn.utils.clip_grad_norm_(head.parameters(), plan.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def _by_hand(head: nn.Module, maps: Tensor, labels: Tensor, steps: list[Tensor], plan: Recipe) -> list[float]:
    losses, velocity = [], {name: torch.zeros_like(w) for name, w in head.named_parameters()}
    head.train()
    for step, batch in enumerate(steps):
        loss = cross_entropy(head(maps[batch]), labels[batch])
        gradients = torch.autograd.grad(loss, list(head.parameters()))
        length = torch.cat([g.flatten() for g in gradients]).norm()
        rate = plan.learning_rate * learning_rate_factor(plan, plan.epochs * step / len(steps))
        for (name, w), g in zip(head.named_parameters(), gradients, strict=True):
            factor = plan.classifier_factor if name.startswith("classifier") else 1.0
            g = g * min(1.0, plan.clip / length) + plan.weight_decay * w.detach()
            velocity[name] = plan.momentum * velocity[name] + g
            w.data -= factor * rate * velocity[name]
        losses.append(loss.item())
    return losses


def spectra() -> list[tuple[Tensor]]:
    """Eigenvalues of some images, some of them zero, one image's all equal."""
    generator = torch.Generator().manual_seed(0)
    lam = torch.rand(4, 6, generator=generator, dtype=torch.float64) ** 3
    return [(lam,), (torch.tensor([[2.0, 2, 2, 2], [5, 1, 0, 0]], dtype=torch.float64),)]


def effective_rank(lam: Tensor) -> Tensor:
    """A solution."""
    share = lam / lam.sum(-1, keepdim=True)
    return torch.exp(-torch.xlogy(share, share).sum(-1))


def _entropy_of(share: Tensor) -> Tensor:
    return -torch.xlogy(share, share).sum(-1)


def _by_categories(lam: Tensor) -> Tensor:
    return torch.distributions.Categorical(probs=lam).entropy().exp()


TASKS = {
    "07_train_head": Task(
        "Write the body of `train_head`: one step of SGD for each batch.",
        _loop,
        training,
        train,
        mistakes={
            "gradients of earlier steps add up; clear them in every step": partial(_loop, fault="add up"),
            "the classifier has the rate of the reduction; it is `classifier_factor` times that": partial(
                _loop, fault="one rate"
            ),
            "the rate does not follow the schedule; multiply it by `one_cycle` in every step": partial(
                _loop, fault="schedule"
            ),
            "the rate changes once per epoch; `one_cycle` is asked in every step": partial(_loop, fault="by epoch"),
            "the gradient is not clipped": partial(_loop, fault="clip"),
            "there is no momentum": partial(_loop, fault="momentum"),
            "there is no weight decay": partial(_loop, fault="decay"),
            "the head is in evaluation mode; call `head.train()`": partial(_loop, fault="evaluation"),
            "the loss is the sum over a batch; take the mean": partial(_loop, fault="sum"),
        },
        alternatives=(_by_hand,),
    ),
    "07_effective_rank": Task(
        "Write the body of `effective_rank`: the entropy of the shares, and exp of it.",
        effective_rank,
        spectra,
        mistakes={
            "it is the entropy; take exp of it": lambda lam: _entropy_of(lam / lam.sum(-1, keepdim=True)),
            "the eigenvalues are not divided by their sum": lambda lam: _entropy_of(lam).exp(),
            "they are shares of the whole batch; each image has its own sum": lambda lam: _entropy_of(
                lam / lam.sum()
            ).exp(),
            "the sum is over the images; take that over the eigenvalues": lambda lam: effective_rank(lam.T),
            "it is the number of eigenvalues above zero": lambda lam: (lam > 0).sum(-1).double(),
            "it is the inverse of the sum of squared shares; take the entropy": lambda lam: (
                lam.sum(-1).square() / lam.square().sum(-1)
            ),
            "the entropy is in bits; take the natural logarithm": lambda lam: (
                effective_rank(lam) ** (1 / 0.6931471805599453)
            ),
        },
        alternatives=(_by_categories,),
    ),
}
