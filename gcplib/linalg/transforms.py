"""What autograd functions need under ``torch.func``: a rule for vmap, and derivatives of their own gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def batched(function: Any) -> Any:
    """Give an autograd function of batches ``(n, ...)`` its rule under ``vmap``: mapped dimensions join the batch.

    Its forward mode, ``push(ctx, *tangents)``, goes into a subclass of its own, because torch.compile takes no function
    that has one; ``run`` chooses.
    """

    def vmap(info: Any, in_dims: tuple, *arguments: Any) -> tuple:
        folded, count = [], 0
        for argument, dim in zip(arguments, in_dims, strict=True):
            if isinstance(argument, Tensor):
                spread = argument.expand(info.batch_size, *argument.shape) if dim is None else argument.movedim(dim, 0)
                argument, count = spread.flatten(0, 1), spread.shape[1]
            folded.append(argument)
        out = run(function, *folded)
        parts = tuple(o.unflatten(0, (info.batch_size, count)) for o in (out if isinstance(out, tuple) else (out,)))
        return (parts, (0,) * len(parts)) if isinstance(out, tuple) else (parts[0], 0)

    if not function.generate_vmap_rule:
        function.vmap = staticmethod(vmap)
    function.with_forward_mode = type(function.__name__, (function,), {"jvp": staticmethod(function.push)})
    return function


def run(function: Any, *arguments: Any) -> Any:
    """Apply an autograd function that is ``batched``."""
    if not torch.compiler.is_compiling():
        return function.with_forward_mode.apply(*arguments)
    # Where nothing is recorded the forward pass is all; torch 2.11 gives one that ends in *rest a context too many.
    return function.apply(*arguments) if torch.is_grad_enabled() else function.forward(*arguments)


def exporting() -> bool:
    """Say whether torch.export is tracing."""
    if torch.compiler.is_compiling():
        from gcplib.linalg import graph_constants

        return graph_constants.exporting()
    return False


def fresh(out: Tensor) -> Tensor:
    """Return the result of a forward pass that ends in place; a compiled graph, where a copy is free, gets one.

    Torch 2.11 compiles intermediates to be results as well. Of two that are one tensor the gradient goes to the last,
    which nobody uses, and is zero, with no word.
    """
    return out.clone() if torch.compiler.is_compiling() else out


def pull_back(function: Callable[..., Any], inputs: tuple[Tensor, ...], g: Any) -> tuple[Tensor, ...]:
    """Return ``J^T g`` of a differentiable function, which can be differentiated again."""
    with torch.enable_grad():
        return torch.func.vjp(function, *inputs)[1](g)


def push_forward(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
    """Return ``J t`` of a differentiable function, as the derivative of ``g -> J^T g``, which is linear.

    Unlike ``torch.func.jvp`` it can stand within the forward mode of another function.
    """
    out = function(*inputs)
    return pull_back(lambda g: pull_back(function, inputs, g), (torch.zeros_like(out),), tangents)[0]


class _Look(Function):
    """Let a check see the values themselves, also under vmap."""

    @staticmethod
    def forward(check: Callable[..., None], *values: Tensor) -> Tensor:
        check(*values)
        return torch.zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple:
        raise AssertionError("a check has no gradient")

    @staticmethod
    def vmap(info: Any, in_dims: tuple, check: Callable[..., None], *values: Tensor) -> tuple:
        moved = (v if dim is None else v.movedim(dim, 0) for v, dim in zip(values, in_dims[1:], strict=True))
        return _Look.apply(check, *moved), None


def look(check: Callable[..., None], *values: Tensor) -> None:
    """Call ``check`` with the values, under vmap with the mapped dimension in front; exported graphs have no checks."""
    if exporting():
        return
    if torch.compiler.is_compiling():
        check(*(value.detach() for value in values))
        return
    _Look.apply(check, *(value.detach() for value in values))
