"""What a gate does with images, and what it costs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gcplib.lab.analysis.turns import step_times
from gcplib.nn.gate import Gate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["between_share", "factors_replaced", "gate_overhead", "participation_ratio"]


@contextmanager
def factors_replaced(gate: Gate, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a gate multiply by ``replace(factors)`` in place of its own factors, within a ``with`` block.

    Args:
        gate: one with factors, such as ``ChannelGate``. replace: from factors of a batch to others of that shape, or of
            one that broadcasts to it.

    >>> from gcplib.nn import ChannelGate
    >>> gate, x = ChannelGate(4), torch.ones(2, 4, 3, 3)
    >>> with factors_replaced(gate, lambda s: s / 2):
    ...     gate(x).unique().tolist()
    [0.5]
    """

    def multiply(module: Gate, args: tuple, out: Tensor) -> Tensor:
        return args[0] * replace(module.factors(args[0])).to(out.dtype)

    handle = gate.register_forward_hook(multiply)
    try:
        yield
    finally:
        handle.remove()


def between_share(values: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Return the share of the variance of each column that lies between classes, and what chance gives.

    ``eta^2 = sum_k n_k (m_k - m)^2 / sum_i (v_i - m)^2`` with the mean m_k of class k. Values that know nothing of K
    classes have ``(K - 1) / (n - 1)`` on average, because classes of few images differ by luck.

    Args:
        values: ``(n, C)``, such as the factors of n images. labels: ``(n,)`` classes.

    Returns:
        ``(C,)``, NaN where a column does not vary, and the share by chance.

    Raises:
        ValueError: shapes that do not fit, or fewer than two classes or three values.

    >>> between_share(torch.tensor([[0.0], [0.0], [2.0], [2.0]]), torch.tensor([0, 0, 1, 1]))
    (tensor([1.]), 0.3333333333333333)
    """
    if values.dim() != 2 or labels.shape != values.shape[:1]:
        raise ValueError(f"expected values (n, C) and labels (n,), got {tuple(values.shape)}, {tuple(labels.shape)}")
    classes, index = labels.unique(return_inverse=True)
    if len(classes) < 2 or len(values) < 3:
        raise ValueError(f"need two classes and three values at least, got {len(classes)} and {len(values)}")
    centered = values - values.mean(0)
    sums = values.new_zeros(len(classes), values.shape[1]).index_add(0, index, centered)
    between = (sums.square() / index.bincount()[:, None]).sum(0)
    return between / centered.square().sum(0), (len(classes) - 1) / (len(values) - 1)


def participation_ratio(values: Tensor) -> float:
    """Return in how many directions values vary: ``(sum lam)^2 / sum lam^2`` of the eigenvalues of their covariance.

    It is 1 where all columns move together, and C where C columns vary as much, each on its own.

    Args:
        values: ``(n, C)``.

    Raises:
        ValueError: another shape, or values that do not vary.

    >>> participation_ratio(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]]))
    1.0
    """
    if values.dim() != 2:
        raise ValueError(f"expected values (n, C), got {tuple(values.shape)}")
    # The squares of the singular values are the eigenvalues, up to a factor that cancels.
    lam = torch.linalg.svdvals(values - values.mean(0)).square()
    if not lam.sum() > 0:
        raise ValueError("values that do not vary have no directions")
    return float(lam.sum().square() / lam.square().sum())


def gate_overhead(networks: Mapping[str, nn.Module], x: Tensor, rounds: int = 5) -> pd.DataFrame:
    """Return what networks cost, beside the first of them: parameters, and the time of a step of training.

    The times are those of ``step_times``, of copies: the networks stay as they are.

    Args:
        networks: by name, from x to logits; the first is the one without a gate. x: features of heads, or images of
            whole networks. rounds: timed steps of each, after one untimed.

    Returns:
        One row a network: ``parameters``, ``added`` to the first, ``ms`` (median), and ``ratio``, ``low``, ``high``:
        median, least and largest of its time over that of the first in the same round.

    Raises:
        ValueError: no network, or no round.
    """
    import pandas as pd

    target = torch.zeros(len(x), dtype=torch.long, device=x.device)
    times = step_times(copy.deepcopy(dict(networks)), x, target, rounds)
    times = times.pivot(index="round", columns="head", values="ms")[list(networks)]
    ratios = times.div(times.iloc[:, 0], axis=0)
    found = pd.DataFrame(index=list(networks))
    found["parameters"] = [sum(p.numel() for p in network.parameters()) for network in networks.values()]
    found["added"] = found.parameters - found.parameters.iloc[0]
    return found.assign(ms=times.median(), ratio=ratios.median(), low=ratios.min(), high=ratios.max())
