"""Networks and pools as ONNX files, for runtimes without torch."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcplib import __version__
from gcplib.linalg import by_products
from gcplib.nn.invariant import StiefelProjection

__all__ = ["ExportError", "export", "read_metadata"]


class ExportError(RuntimeError):
    """A network that cannot be written as ONNX, or whose file computes something else."""


def export(
    model: nn.Module,
    path: str | Path,
    example: Tensor | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
) -> Path:
    """Write a network or a pool as an ONNX file, for batches of any size, and check that it computes the same.

    Roots are computed by products alone (``gcplib.linalg.by_products``), as ONNX has no eigendecomposition; published
    gradient rules differ in their gradient, which a file has not. The file holds ``metadata``; of a network with
    preprocessing constants ``mean`` and ``std`` as well.

    Args:
        model: in eval mode; on a CPU or not, it stays as it is.
        path: of the file; an old one is replaced when the new one is right.
        example: at least two inputs ``(n, ...)``, float32, like those that it is for; their size is that of the file's
            inputs. None: noise ``(2, 3, 224, 224)``.
        metadata: texts, numbers or lists by name, such as ``{"classes": [...]}``.
        tolerance: largest difference between the outputs of onnxruntime and torch, over the largest output.

    Returns:
        The path.

    Raises:
        ValueError: training mode, an example without a batch, a function without a form by products, or a truncation.
        ModuleNotFoundError: onnx, onnxscript or onnxruntime is not installed: ``pip install 'gcplib[export]'``.
        ExportError: the file computes something else, or torch cannot write this network.
    """
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401 - torch needs it

    if any(module.training for module in model.modules()):
        raise ValueError(f"{type(model).__name__} is in training mode; call .eval() first: an export has no batch norm")
    example = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) if example is None else example
    if example.dim() < 2 or len(example) < 2 or example.dtype != torch.float32:
        raise ValueError(
            f"the example must be at least two float32 inputs, got {tuple(example.shape)}, {example.dtype}"
        )
    example, path = example.detach().cpu(), Path(path)
    description = _preprocessing(model) | dict(metadata or {}) | {"input": list(example.shape[1:])}
    texts = {key: json.dumps(value) for key, value in description.items()}
    fixed = copy.deepcopy(model).cpu()
    for module in fixed.modules():
        if isinstance(module, StiefelProjection):
            module.fix()
    with torch.no_grad():
        expected = fixed(example)
        expected_alone = fixed(example[:1])
    batch = torch.export.Dim("batch")
    try:
        with torch.no_grad(), by_products():
            program = torch.onnx.export(fixed, (example,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.Unsupported) as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, ValueError):
            cause = cause.__cause__
        if isinstance(cause, ValueError):  # said by the part that cannot
            raise cause from error
        raise ExportError(f"torch cannot write {type(model).__name__} as ONNX: {error}") from error
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        name = os.path.join(folder, path.name)  # readable by whoever may read a new file, as no temporary file is
        proto = program.model_proto
        onnx.helper.set_model_props(proto, texts)
        onnx.save(proto, name)
        session = onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])
        for inputs, want in ((example, expected), (example[:1], expected_alone)):
            (got,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
            largest = want.abs().max().clamp(min=torch.finfo(want.dtype).tiny)
            apart = (torch.from_numpy(got) - want).abs().max() / largest
            if not apart <= tolerance:
                raise ExportError(
                    f"onnxruntime computes other outputs than torch from {tuple(inputs.shape)}: they differ by "
                    f"{apart.item():.2g} of the largest, {tolerance:g} are allowed; covariances whose trace is more "
                    "than 1e5 of the smallest eigenvalue need a shrinkage, or a larger tolerance"
                )
        os.replace(name, path)
    return path


def _preprocessing(model: nn.Module) -> dict[str, Any]:
    backbone = getattr(model, "backbone", None)
    found = {key: list(getattr(backbone, key)) for key in ("mean", "std") if hasattr(backbone, key)}
    return {"gcplib": __version__} | found


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what ``export`` has written into a file beside the network."""
    import onnx

    return {entry.key: json.loads(entry.value) for entry in onnx.load(path, load_external_data=False).metadata_props}
