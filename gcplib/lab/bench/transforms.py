"""What each pool passes: transforms of torch.func, a second backward pass, compilation, export, copies, edge cases."""

from __future__ import annotations

import io
import pickle
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from gcplib.lab.files import project_root, read_json, write_json
from gcplib.lab.machine import describe_machine
from gcplib.lab.markdown import page, table
from gcplib.lab.progress import track
from gcplib.nn import create_pool, list_pools

CHANNELS, SIDE = 8, 4
# Where the defaults do not suit eight channels.
OPTIONS = {"cbp": {"sketch": 64}, "svd_top_n": {"rule": "top_n(2)"}}


def _pool(name: str) -> nn.Module:
    torch.manual_seed(0)
    return create_pool(name, CHANNELS, **OPTIONS.get(name, {})).eval()


def _features(batch: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, CHANNELS, SIDE, SIDE, generator=generator, dtype=torch.float64).to(dtype)


def _close(a: Tensor, b: Tensor, rtol: float = 1e-6) -> None:
    torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * b.abs().max().item() if b.numel() else 0)


def _loss(pool: nn.Module, x: Tensor) -> Tensor:
    vectors = pool(x)
    weights = torch.linspace(-1, 1, vectors.shape[1], dtype=vectors.dtype)
    return (vectors * weights).sum() + (vectors * weights).square().sum()


def _vmap(name: str) -> None:
    """Gradients of each image by all weights of a head, as a loop gives them."""
    pool, x = _pool(name).double(), _features()
    head = nn.Sequential(pool, nn.Linear(pool.out_features, 2).double())
    weights = dict(head.named_parameters())

    def loss(weights: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(head, weights, (one[None],)).square().sum()

    found = vmap(grad(loss), (None, 0))(weights, x)
    for place, one in enumerate(x):
        wanted = torch.autograd.grad(head(one[None]).square().sum(), list(weights.values()))
        for key, want in zip(weights, wanted, strict=True):
            _close(found[key][place], want)


def _jvp(name: str) -> None:
    """Forward mode, which agrees with reverse mode."""
    pool, x = _pool(name).double(), _features().requires_grad_()
    v = _features().flip(0)
    (g,) = torch.autograd.grad(_loss(pool, x), x)
    _close(jvp(lambda x: _loss(pool, x), (x,), (v,))[1], (g * v).sum())


def _double_backward(name: str) -> None:
    """A Hessian product, as differences of gradients give it."""
    pool, x, v = _pool(name).double(), _features().requires_grad_(), _features().flip(0)
    (g,) = torch.autograd.grad(_loss(pool, x), x, create_graph=True)
    (found,) = torch.autograd.grad((g * v).sum(), x)

    def gradient(x: Tensor) -> Tensor:
        return torch.autograd.grad(_loss(pool, x), x)[0]

    _close(found, (gradient(x + 1e-5 * v) - gradient(x - 1e-5 * v)) / 2e-5, rtol=1e-4)


def _compile(name: str) -> None:
    """One graph, with its gradient."""
    torch._dynamo.reset()
    pool, x = _pool(name).train(), _features(dtype=torch.float32).requires_grad_()
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    found, wanted = compiled(x), pool(x)
    _close(found, wanted, 1e-4)
    _close(*(torch.autograd.grad(out.square().sum(), x)[0] for out in (found, wanted)), rtol=1e-3)


def _export(name: str) -> None:
    """``torch.export`` with batches of any size, saved and loaded."""
    pool, x = _pool(name), _features(dtype=torch.float32)
    with torch.no_grad():
        program = torch.export.export(pool, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    _close(torch.export.load(file).module()(x[:1]), pool(x[:1]), 1e-4)


def _onnx(name: str) -> None:
    """``gcplib.export``, which compares onnxruntime with torch."""
    from gcplib.exporting import export

    with tempfile.TemporaryDirectory() as folder:
        export(_pool(name), Path(folder) / "pool.onnx", _features(dtype=torch.float32))


def _pickle(name: str) -> None:
    """``pickle`` and ``torch.save`` of the module itself."""
    pool, x, file = _pool(name), _features(dtype=torch.float32), io.BytesIO()
    _close(pickle.loads(pickle.dumps(pool))(x), pool(x), 0)
    torch.save(pool, file)
    file.seek(0)
    _close(torch.load(file, weights_only=False)(x), pool(x), 0)


def _float16(name: str) -> None:
    """Features in float16 and bfloat16, pooled as those in float32 of the same value."""
    pool = _pool(name)
    for dtype in (torch.float16, torch.bfloat16):
        x = _features(dtype=dtype)
        _close(pool(x).float(), pool(x.float()), 1e-4)


def _empty(name: str) -> None:
    """A batch of no image, with its gradient."""
    pool, x = _pool(name), torch.empty(0, CHANNELS, SIDE, SIDE, requires_grad=True)
    out = pool(x)
    assert out.shape == (0, pool.out_features), f"the shape is {tuple(out.shape)}"
    out.sum().backward()


CHECKS: dict[str, Callable[[str], None]] = {
    "vmap": _vmap,
    "jvp": _jvp,
    "double backward": _double_backward,
    "compile": _compile,
    "export": _export,
    "ONNX": _onnx,
    "pickle": _pickle,
    "float16": _float16,
    "empty batch": _empty,
}
SLOW = ("compile", "export", "ONNX")


def measure_transforms(checks: Iterable[str] = CHECKS, pools: Iterable[str] | None = None) -> dict[str, dict[str, str]]:
    """Return, by pool and check, ``yes`` or the error in a line."""
    found: dict[str, dict[str, str]] = {}
    for name in track(list(pools or list_pools()), "transforms", unit="pool"):
        found[name] = {check: _outcome(CHECKS[check], name) for check in checks}
    return found


def _outcome(check: Callable[[str], None], name: str) -> str:
    try:
        check(name)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return "yes"


def _path() -> Path:
    return project_root() / "data" / "evidence" / "transforms.json"


def keep_transforms(found: dict[str, dict[str, str]]) -> Path:
    """Write what ``measure_transforms`` found, with the machine."""
    return write_json(_path(), {"machine": describe_machine(), "pools": found})


def kept_transforms() -> dict[str, dict[str, str]]:
    """Return what is kept, by pool and check."""
    return read_json(_path())["pools"]


def transforms_page() -> str:
    """Return the page of what is kept."""
    kept, machine = kept_transforms(), read_json(_path())["machine"]
    # One note for all rules.
    kept = {
        name: {check: re.sub(r"gradient rule \S+", "its gradient rule", v) for check, v in row.items()}
        for name, row in kept.items()
    }
    reasons = list(dict.fromkeys(v for row in kept.values() for v in row.values() if v != "yes"))
    rows = [
        (f"`{name}`", *("✓" if v == "yes" else f"no [{reasons.index(v) + 1}]" for v in row.values()))
        for name, row in kept.items()
    ]
    lead = (
        "What each pool passes, at its defaults. Measured by `python -m gcplib bench transforms --keep` with torch "
        f"{machine['versions']['torch']} on a CPU, commit {machine['commit']}; a test holds the table to what it finds."
    )
    heads = "\n".join(f"* **{check}**: {function.__doc__}" for check, function in CHECKS.items())
    notes = "\n".join(f"{place}. {reason.replace(chr(10), chr(32))}" for place, reason in enumerate(reasons, 1))
    return page("Transforms", lead, table(["pool", *CHECKS], rows), heads, notes and "## Where not\n\n" + notes)
