"""What is compared: gcplib's own ways, those of other packages, and the reference that each one is held against.

Every method goes from uncentered features ``(B, d, M)`` to a ``(B, d, d)`` matrix. The exact peers take a covariance,
so they get gcplib's, whose backward is the cheapest here: only the root differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcplib import linalg
from gcplib.linalg import covariance, covariance_map
from gcplib.linalg.eigen import eigh
from gcplib.linalg.parallel import batch_parts, over_batch

Function = Callable[[Tensor], Tensor]

STEPS = 5


@dataclass(frozen=True)
class Method:
    """One way to compute one kind of matrix.

    Attributes:
        name: shown in tables and plots.
        kind: which function of the covariance it computes: a key of ``REFERENCES``.
        make: imports what it needs and returns the function of the features.
        package: what to install, for peers; None for gcplib's own ways and for torch.
        ours: whether it is one of gcplib's.
        ridge: whether it fails on singular covariances; then ``make`` returns a function of features and ridge.
    """

    name: str
    kind: str
    make: Callable[[], Callable]
    package: str | None = None
    ours: bool = True
    ridge: bool = False


# In float64. The exact root by singular values squares no condition number; a test checks it against 50 digits.
REFERENCES: dict[str, Function] = {
    "covariance": covariance,
    "exact root": lambda x: covariance_map(x, route="svd"),
    "Newton-Schulz": lambda x: covariance_map(x, linalg.newton_schulz_function(STEPS)),
    "MPA": lambda x: covariance_map(x, linalg.pade_function()),
    "MTP": lambda x: covariance_map(x, linalg.taylor_function()),
}


def plain_covariance(x: Tensor) -> Tensor:
    """Return the covariance as one writes it in a line, differentiated by autograd."""
    centered = x - x.mean(-1, keepdim=True)
    return centered @ centered.mT / x.shape[-1]


def decomposed_covariance(x: Tensor) -> Tensor:
    """Return the covariance, with a decomposition of its smaller side that nobody uses: the least a root can cost."""
    s = covariance(x)
    with torch.no_grad():
        small = s if x.shape[-2] < x.shape[-1] else x.mT @ x
        parts = batch_parts(small, small.shape[-1])
        over_batch(lambda part, out: (eigh(small[part])[0],), parts, small, small.shape[:-1])
    return s


def eigh_root(x: Tensor) -> Tensor:
    """Return the root by ``torch.linalg.eigh`` under autograd, eigenvalues clamped at eps as in MPN-COV's releases."""
    lam, u = torch.linalg.eigh(covariance(x))
    return (u * lam.clamp(min=torch.finfo(x.dtype).eps).sqrt().unsqueeze(-2)) @ u.mT


def _pytorchcv() -> Function:
    from pytorchcv.models.isqrtcovresnet import iSQRTCOVPool

    pool = iSQRTCOVPool(num_iter=STEPS)
    # The layer's own covariance and iteration, without the triangle that it cuts out last: the others do not either.
    return lambda x: pool.sqrt(pool.cov_pool(x.unsqueeze(-1)), pool.num_iter)


def _of_covariance(root: Function) -> Function:
    return lambda x: root(covariance(x))


# These two need no ridge: torchspd bounds the sums of roots from below, spd-learn the eigenvalues.
def _torchspd() -> Function:
    from torchspd import sqrtm

    return _of_covariance(sqrtm)


def _spd_learn() -> Function:
    from spd_learn.functional import matrix_sqrt

    return _of_covariance(matrix_sqrt.apply)


# This one has 1 / 0 in its gradient as soon as two eigenvalues round to zero or below.
def _matrix_sqrth() -> Callable[[Tensor, float], Tensor]:
    from torch.linalg import matrix_sqrth

    def root(x: Tensor, ridge: float) -> Tensor:
        s = covariance(x)
        return matrix_sqrth(s + ridge * torch.eye(s.shape[-1], dtype=s.dtype, device=s.device) if ridge else s)

    return root


class _CupyRoot(torch.autograd.Function):
    """The root by CuPy's batched eigendecomposition; the gradient solves ``C Y + Y C = sym(G)`` in the eigenbasis."""

    @staticmethod
    def forward(ctx, s):
        import cupy

        with cupy.cuda.ExternalStream(torch.cuda.current_stream(s.device).cuda_stream):
            lam, u = (torch.from_dlpack(value) for value in cupy.linalg.eigh(cupy.from_dlpack(s.detach().contiguous())))
        root = lam.clamp(min=torch.finfo(s.dtype).eps).sqrt()
        ctx.save_for_backward(root, u)
        return (u * root.unsqueeze(-2)) @ u.mT

    @staticmethod
    def backward(ctx, g):
        root, u = ctx.saved_tensors
        inner = u.mT @ (g + g.mT) @ u / 2
        return u @ (inner / (root.unsqueeze(-1) + root.unsqueeze(-2))) @ u.mT


def _cupy() -> Function:
    import cupy  # noqa: F401

    return _of_covariance(_CupyRoot.apply)


METHODS = (
    Method("covariance", "covariance", lambda: covariance),
    Method("covariance, plain autograd", "covariance", lambda: plain_covariance, ours=False),
    Method("covariance, decomposed too", "covariance", lambda: decomposed_covariance),
    Method("exact root, auto route", "exact root", lambda: covariance_map),
    Method("exact root, full route", "exact root", lambda: lambda x: covariance_map(x, route="full")),
    Method("exact root, svd route", "exact root", lambda: lambda x: covariance_map(x, route="svd")),
    Method("exact root, torch eigh", "exact root", lambda: eigh_root, ours=False),
    Method("exact root, torch matrix_sqrth", "exact root", _matrix_sqrth, ours=False, ridge=True),
    Method("exact root, torchspd", "exact root", _torchspd, "torchspd", ours=False),
    Method("exact root, spd-learn", "exact root", _spd_learn, "spd-learn", ours=False),
    Method("Newton-Schulz, products", "Newton-Schulz", lambda: lambda x: linalg.newton_schulz(covariance(x), STEPS)),
    Method("Newton-Schulz, eigenvalues", "Newton-Schulz", lambda: REFERENCES["Newton-Schulz"]),
    Method("Newton-Schulz, pytorchcv", "Newton-Schulz", _pytorchcv, "pytorchcv", ours=False),
    Method("MPA, products", "MPA", lambda: _of_covariance(linalg.pade_root)),
    Method("MPA, eigenvalues", "MPA", lambda: REFERENCES["MPA"]),
    Method("MTP, products", "MTP", lambda: _of_covariance(linalg.taylor_root)),
    Method("MTP, eigenvalues", "MTP", lambda: REFERENCES["MTP"]),
)

CUPY = f"cupy-cuda{(torch.version.cuda or '12')[:2]}x"
# What is timed on a GPU besides.
CUDA_METHODS = (
    Method("exact root, products", "exact root", lambda: lambda x: covariance_map(x, route="products")),
    Method("exact root, CuPy eigh", "exact root", _cupy, CUPY, ours=False),
)


def choose_methods(names: Sequence[str] | None) -> tuple[Method, ...]:
    """Return the methods with one of these in their names, and the covariance, which the others are compared with.

    Raises:
        ValueError: nothing has such a name.
    """
    for name in names or ():
        if not any(name.lower() in method.name.lower() for method in METHODS):
            raise ValueError(f"no method has {name!r} in its name; known: {'; '.join(m.name for m in METHODS)}")
    wanted = [name.lower() for name in names or ("",)]
    return METHODS[:1] + tuple(m for m in METHODS[1:] if any(name in m.name.lower() for name in wanted))


def load_methods(methods: Iterable[Method] = METHODS) -> tuple[dict[Method, Callable], dict[str, str]]:
    """Import what the methods need.

    Returns:
        The functions of the methods that can run, and the reason for each one that cannot, by its name.
    """
    functions, skipped = {}, {}
    for method in methods:
        try:
            functions[method] = method.make()
        except ImportError as error:
            remedy = f"pip install {method.package}" if method.package else f"torch {torch.__version__} is too old"
            skipped[method.name] = f"{error}; {remedy}"
    return functions, skipped
