"""A pool and a classifier, trained by gradients on features of a frozen network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gcplib.models import Head
from gcplib.nn import create_pool
from gcplib.probe.base import Probe, as_maps, parts, search, validation_score

__all__ = ["AttentionPool", "TrainedProbe"]

BATCH = 64


class AttentionPool(nn.Module):
    """Attention pooling: a mean of the positions, weighted by how well they fit learned queries, one for each head.

        a = softmax_m(q_h^T k_m / sqrt(C / H)),  k = K x;  vector = concat_h sum_m a_hm v_hm,  v = V x

    Args:
        in_channels: ``C``.
        heads: H, which divides C; None for the largest of 8, 4, 2 and 1 that does.

    Source: the pooling by a learned query of attentive probing (Chen et al., Context Autoencoder, IJCV 2024).

    >>> AttentionPool(16)(torch.zeros(2, 16, 3, 3)).shape
    torch.Size([2, 16])
    """

    def __init__(self, in_channels: int, heads: int | None = None):
        super().__init__()
        heads = heads or next(count for count in (8, 4, 2, 1) if in_channels % count == 0)
        if in_channels % heads:
            raise ValueError(f"{heads} heads do not divide {in_channels} channels")
        self.in_channels = self.out_features = in_channels
        self.heads = heads
        self.query = nn.Parameter(torch.randn(heads, in_channels // heads) * 0.02)
        self.keys, self.values = nn.Linear(in_channels, in_channels), nn.Linear(in_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return vectors ``(B, C)`` of features ``(B, C, H, W)``."""
        positions = x.flatten(2).transpose(1, 2)
        keys, values = (part(positions).unflatten(2, (self.heads, -1)) for part in (self.keys, self.values))
        weights = (torch.einsum("bmhc,hc->bhm", keys, self.query) / keys.shape[-1] ** 0.5).softmax(-1)
        return torch.einsum("bhm,bmhc->bhc", weights, values).flatten(1)


class TrainedProbe(Probe):
    """Pool and linear classifier, trained by AdamW on standardized features, at a rate chosen on validation images.

    Args:
        pool: ``attention``, a name of ``gcplib.list_pools()``, or a class of modules as these are.
        options: of the pool, such as ``{"reduction": 64}``.
        rates: largest learning rates to choose from; the list grows where its end is best. The rate warms up over a
            tenth of the steps and falls by a cosine.
        epochs: of every training,
        least_steps: or as many as make so many steps: few images take more epochs.
        weight_decay: of all weights but biases.
        validation: see ``LinearProbe``, also for the rest.
        seed: of the initial weights, the order of the images, and which are held out.

    Attributes:
        rate_: the chosen rate. ``search_``, ``at_end_``, ``classes_``, ``length_`` as ``LinearProbe`` has them;
            ``head_`` is the trained ``gcplib.models.Head``.
    """

    def __init__(
        self,
        pool: str | Callable[..., nn.Module] = "attention",
        options: Mapping[str, Any] | None = None,
        rates: Sequence[float] = (1e-3, 1e-2),
        epochs: int = 20,
        least_steps: int = 400,
        weight_decay: float = 0.05,
        validation: float = 0.1,
        seed: int = 0,
        backbone: str = "tf_efficientnet_lite0",
        stride: int | None = None,
        pixels: int = 224,
    ):
        self.pool, self.options, self.rates, self.epochs = pool, options, rates, epochs
        self.least_steps = least_steps
        self.weight_decay, self.validation, self.seed = weight_decay, validation, seed
        self.backbone, self.stride, self.pixels = backbone, stride, pixels

    def _fit_classifier(self, X: Tensor, codes: np.ndarray, inner: np.ndarray, outer: np.ndarray) -> None:
        self._standardize(X, inner)
        labels = torch.from_numpy(codes)

        def score(rate: float) -> tuple[float, float]:
            head = self._train(X, labels, inner, rate)
            return validation_score(self._logits(head, X[torch.from_numpy(outer)]), codes[outer])

        self.rate_, self.search_, self.at_end_ = search(self.rates, score)
        self.head_ = self._train(X, labels, np.arange(len(X)), self.rate_)
        self.length_ = self.head_.pool.out_features
        self.n_iter_ = self.epochs

    def _standardize(self, X: Tensor, places: np.ndarray) -> None:
        total = square = torch.zeros(()).double()
        count = 0
        for start in range(0, len(places), BATCH):
            rows = self._maps(X[torch.from_numpy(places[start : start + BATCH])]).transpose(0, 1).flatten(1).double()
            total, square, count = total + rows.sum(1), square + rows.square().sum(1), count + rows.shape[1]
        self.mean_ = (total / count).float()[:, None, None]
        variance = square / count - (total / count).square()
        self.scale_ = variance.clamp(min=0).sqrt().float()[:, None, None]
        self.scale_[self.scale_ == 0] = 1  # a channel that is constant stays so

    def _maps(self, part: Tensor) -> Tensor:
        return part.float()[:, :, None, None] if part.dim() == 2 else as_maps(part)

    def _input(self, part: Tensor) -> Tensor:
        return (self._maps(part) - self.mean_) / self.scale_

    def _train(self, X: Tensor, labels: Tensor, places: np.ndarray, rate: float) -> Head:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            channels = self.mean_.shape[0]
            options = dict(self.options or {})
            own = self.pool == "attention"
            pool = AttentionPool(channels, **options) if own else create_pool(self.pool, channels, **options)
            head = Head(pool, len(self.classes_)).train()
            decayed = [weight for weight in head.parameters() if weight.dim() > 1]
            others = [weight for weight in head.parameters() if weight.dim() <= 1]
            groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
            optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=self.weight_decay)
            each = -(-len(places) // BATCH)
            epochs = max(self.epochs, -(-self.least_steps // each))
            steps = epochs * each
            warm = 0.1 if steps > 10 else 0.3  # the schedule cannot do with a single step before its peak
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=warm)
            for _ in range(epochs):
                for chosen in torch.from_numpy(places)[torch.randperm(len(places))].split(BATCH):
                    loss = nn.functional.cross_entropy(head(self._input(X[chosen])), labels[chosen])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
        return head.eval()

    @torch.no_grad()
    def _logits(self, head: Head, X: Tensor) -> Tensor:
        return torch.cat([head(self._input(part)) for _, part in parts(X, BATCH)])

    def _scores(self, X: Tensor) -> np.ndarray:
        return self._logits(self.head_, X).numpy()

    @property
    def parameters_(self) -> int:
        """Weights of pool and classifier."""
        return sum(weight.numel() for weight in self.head_.parameters())
