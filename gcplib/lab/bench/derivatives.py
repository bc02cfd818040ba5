"""Second derivatives, vmap, the root by products, ONNX files and the guard of precision, timed beside opponents."""

from __future__ import annotations

import copy
import operator
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from gcplib.exporting import ExportError, export
from gcplib.lab.bench.cases import Case, milliseconds, time_cases, times_as_long
from gcplib.lab.bench.measure import Size, measure, relative_error
from gcplib.lab.bench.methods import REFERENCES, STEPS, Function, Method, eigh_root
from gcplib.linalg import by_products, covariance_map, newton_schulz_function, products
from gcplib.nn import create_pool

CLASSES = 10
# The guard costs so little that it takes more rounds to see it.
GUARD_ROUNDS = 4

STEPS_BY_PRODUCTS = partial(covariance_map, fn=newton_schulz_function(STEPS), route="products")
ROOTS = (
    Method("exact root", "exact root", lambda: covariance_map),
    Method("exact root, torch eigh", "exact root", lambda: eigh_root, ours=False),
    Method("root by products", "exact root", lambda: partial(covariance_map, route="products")),
    Method(f"{STEPS} Newton-Schulz steps", "Newton-Schulz", lambda: STEPS_BY_PRODUCTS),
)


def _inputs(size: Size) -> tuple[Tensor, Tensor]:
    """Return features ``(B, d, M)`` and a gradient ``(B, d, d)`` of their matrix, both random normal."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, generator=generator), torch.randn(*size[:2], size[1], generator=generator)


def _first_order(function: Function, x: Tensor, g: Tensor) -> Tensor:
    return torch.autograd.grad(function(x), x, g)[0]


def _second_order(function: Function, x: Tensor, g: Tensor) -> Tensor:
    """Return the gradient of ``|dl/dX|^2``, a penalty on gradients."""
    (first,) = torch.autograd.grad(function(x), x, g, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x)[0]


ORDERS = {"first order": _first_order, "second order": _second_order}


def _second_derivatives(size: Size, rounds: int, label: str) -> list[dict]:
    x, g = _inputs(size)
    x, exact = x.requires_grad_(), x.double().requires_grad_()
    functions = {method: method.make() for method in ROOTS}
    cases = {
        f"{method.name}, {order}": Case(partial(of_order, function, x, g))
        for method, function in functions.items()
        for order, of_order in ORDERS.items()
    }
    times, rows = time_cases(cases, rounds, label), []
    references = {(m.kind, o): f(REFERENCES[m.kind], exact, g.double()) for m in ROOTS for o, f in ORDERS.items()}
    for method, function in functions.items():
        first, second = (times[f"{method.name}, {order}"] for order in ORDERS)
        row = {"case": _name(method), "first order, ms": milliseconds(first)}
        row |= {"second order, ms": milliseconds(second), "ratio": times_as_long(second, first)}
        for order, of_order in ORDERS.items():
            found = of_order(function, x, g)
            row[f"error, {order}"] = relative_error(found, references[method.kind, order])
        rows.append(row)
    return rows


def _name(method: Method) -> str:
    return f"{method.name} (gcplib)" if method.ours else method.name


def _pool(channels: int) -> nn.Module:
    torch.manual_seed(0)
    return create_pool("mpn_cov", channels).eval()


def _per_sample(size: Size, rounds: int, label: str) -> list[dict]:
    pool, x = _pool(size[1]), _inputs(size)[0].unsqueeze(-1)
    head = nn.Sequential(pool, nn.Linear(pool.out_features, CLASSES))
    weights, targets = dict(head.named_parameters()), torch.arange(size[0]) % CLASSES
    detached, leaves = {key: value.detach() for key, value in weights.items()}, [one.clone() for one in x]

    def loss(weights: Mapping[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(functional_call(head, weights, (image[None],)), target[None])

    def alone(image: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        image.requires_grad_()
        return torch.autograd.grad(cross_entropy(head(image[None]), target[None]), [*weights.values(), image])

    transformed = vmap(grad(loss, (0, 1)), (None, 0, 0))
    cases = {
        "loop over images": Case(lambda: [alone(*pair) for pair in zip(leaves, targets, strict=True)]),
        "vmap": Case(lambda: transformed(detached, x, targets)),
    }
    times = time_cases(cases, rounds, label)
    of_weights, of_images = transformed(detached, x, targets)
    looped = zip(*cases["loop over images"].run(), strict=True)  # type: ignore[call-overload]
    pairs = zip([*of_weights.values(), of_images], looped, strict=True)
    errors = [relative_error(found, torch.stack(wanted).double()) for found, wanted in pairs]
    row = {"case": "mpn_cov and a linear classifier"}
    row |= {f"{name}, ms": milliseconds(times[name]) for name in cases}
    row["loop / vmap"] = times_as_long(times["loop over images"], times["vmap"])
    return [row | {"difference": None if None in errors else max(errors)}]


def _products(size: Size, rounds: int, label: str) -> list[dict]:
    rows = measure(size, {method: method.make() for method in ROOTS if method.ours}, rounds)
    heads = {"forward_ms": "forward, ms", "total_ms": "forward and backward, ms"}
    return [
        {"case": f"{row['method']} (gcplib)"}
        | {head: row[key] | {"n": row["rounds"]} for key, head in heads.items()}
        | {"error": row["error"], "error of the gradient": row["gradient_error"]}
        for row in rows
    ]


@contextmanager
def _in_products() -> Iterator[None]:
    with torch.no_grad(), by_products():
        yield


def _onnx(size: Size, rounds: int, label: str) -> list[dict]:
    pool, x = _pool(size[1]), _inputs(size)[0].unsqueeze(-1)
    cases = {
        "torch": Case(lambda: pool(x), torch.no_grad),
        "torch, by products": Case(lambda: pool(x), _in_products),
    }
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            # Its threads would go on spinning, and take the cores from whatever is timed next.
            options.add_session_config_entry("session.force_spinning_stop", "1")
            path = export(pool, Path(folder) / "pool.onnx", x)
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            inputs = {session.get_inputs()[0].name: x.numpy()}
            cases["onnxruntime"] = Case(lambda: session.run(None, inputs)[0])
        except (ExportError, ModuleNotFoundError) as error:
            failed = [{"case": "onnxruntime", "failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}]
        times, rows = time_cases(cases, rounds, label), []
        with torch.no_grad():
            reference = copy.deepcopy(pool).double()(x.double())
        for name, case in cases.items():
            with case.within():
                error = relative_error(torch.as_tensor(case.run()), reference)
            row = {"case": name, "forward, ms": milliseconds(times[name])}
            row |= {"of torch's time": times_as_long(times[name], times["torch"])} if name != "torch" else {}
            rows.append(row | {"error": error})
    return rows + failed


@contextmanager
def plain_products() -> Iterator[None]:
    """Let ``gcplib.linalg`` multiply by a plain ``@``, as if nothing guarded the precision of its products."""
    plain = {"product": operator.matmul, "add_product": torch.baddbmm}
    modules = [module for name, module in sys.modules.items() if name.startswith("gcplib.linalg.")]
    with ExitStack() as stack:
        for module in modules:
            for name, function in plain.items():
                if getattr(module, name, None) is getattr(products, name) and module is not products:
                    stack.enter_context(mock.patch.object(module, name, function))
        yield


def _guard(size: Size, rounds: int, label: str) -> list[dict]:
    x, g = _inputs(size)
    run = partial(_first_order, covariance_map, x.requires_grad_(), g)
    names = ("as it is", "plain @", "as it is, again")
    cases = dict(zip(names, (Case(run), Case(run, plain_products), Case(run)), strict=True))
    times = time_cases(cases, GUARD_ROUNDS * rounds, label)
    row = {"case": "exact root, forward and backward"} | {f"{n}, ms": milliseconds(times[n]) for n in names[:2]}
    for head, other in {"cost, %": "plain @", "the same twice, %": "as it is, again"}.items():
        found = times_as_long(times["as it is"], times[other])
        percent = {key: None if v is None else 100 * (v - 1) for key, v in found.items() if key != "n"}
        row[head] = percent | {"n": found["n"]}
    return [row]


PARTS: dict[str, Callable[[Size, int, str], list[dict]]] = {
    "second derivatives": _second_derivatives,
    "gradients of each image": _per_sample,
    "products": _products,
    "ONNX": _onnx,
    "guard of precision": _guard,
}


def measure_derivatives(size: Size, rounds: int) -> list[dict]:
    """Return the rows of all ``PARTS`` at one size, on a CPU in float32.

    Args:
        size: batch, channels, positions of the features, which are random normal.
        rounds: timed passes of each case, after the first ones.

    Returns:
        Rows with ``part``, ``case`` and the size. Times, in milliseconds, are quartiles; ratios within rounds, and
        percentages, medians with 95 % intervals; errors relative (None: not finite). ``failed`` is a reason why a case
        has none.

    Raises:
        ValueError: the process lets float32 products be less precise, which is not what is measured.
    """
    if (precision := torch.get_float32_matmul_precision()) != "highest":
        raise ValueError(
            f"float32 products have precision {precision!r}; call torch.set_float32_matmul_precision('highest') first"
        )
    about = dict(zip(("batch", "channels", "positions"), size, strict=True))
    name = " x ".join(map(str, size))
    return [
        {"part": part, **about, **row} for part, run in PARTS.items() for row in run(size, rounds, f"{name}, {part}")
    ]
