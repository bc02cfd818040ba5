"""The command ``export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from gcplib.lab.training import Run

SUMMARY = "write the network of a finished run as an ONNX file"
DETAIL = """Write the whole network of a finished run, backbone and head, as an ONNX file with its preprocessing
constants and class names. Before it says so, it compares what onnxruntime computes with torch, on images of the
run's test set, or on noise where that is not there."""
EXAMPLE = "python -m gcplib export runs/train/mpn_cov-fine-head-0-0123456789ab --output birds.onnx"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options, without importing anything heavy."""
    parser.add_argument("run_folder", metavar="RUN", help="the folder of the run, or its name in runs/train")
    parser.add_argument("--output", type=Path, metavar="X.onnx", help="default: model.onnx in the folder of the run")


def run(arguments: argparse.Namespace) -> int:
    """Write the file, and return the exit code."""
    from gcplib.exporting import export
    from gcplib.lab.training import Run

    found = Run.load(arguments.run_folder)
    model = found.load_model(whole=True)
    images, what = _examples(found)
    names = {key: value for key, value in found.description.items() if key != "gcplib"} | {"run": found.directory.name}
    path = arguments.output or found.directory / "model.onnx"
    export(model, path, model.backbone.prepare(images), metadata=names)
    print(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB), compared on {what} of {images.shape[1:]}")
    return 0


def _examples(run: Run) -> tuple[np.ndarray, str]:
    import numpy as np

    from gcplib.lab.data import load_data

    try:
        dataset = load_data(run.spec.data)
        return dataset.images(dataset.indices("test")[:4]), "test images"
    except (OSError, ValueError, RuntimeError):  # the data set has moved or changed, or its fonts are not installed
        pixels = run.spec.data.pixels
        return np.random.default_rng(0).integers(0, 256, (4, pixels, pixels, 3), dtype=np.uint8), "noise"
