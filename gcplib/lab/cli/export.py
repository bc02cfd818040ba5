"""The command ``export``."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "write the network of a finished run as an ONNX file"
DETAIL = """Write the whole network of a finished run, backbone and head, as an ONNX file with its preprocessing
constants and class names. Before it says so, it compares what onnxruntime computes with torch, on images of the
run's test set."""
EXAMPLE = "python -m gcplib export runs/train/mpn_cov-fine-head-0-0123456789ab --output birds.onnx"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options, without importing anything heavy."""
    parser.add_argument("run_folder", metavar="RUN", help="the folder of the run, or its name in runs/train")
    parser.add_argument("--output", type=Path, metavar="X.onnx", help="default: model.onnx in the folder of the run")


def run(arguments: argparse.Namespace) -> int:
    """Write the file, and return the exit code."""
    from gcplib.exporting import export
    from gcplib.lab.data import load_data
    from gcplib.lab.files import runs_dir
    from gcplib.lab.plain import read_yaml
    from gcplib.lab.training import Run, RunSpec

    folder = Path(arguments.run_folder).expanduser()
    folder = folder if folder.is_dir() else runs_dir() / "train" / folder
    if not (folder / "model.safetensors").is_file() or not (folder / "result.json").is_file():
        raise FileNotFoundError(f"{folder} is no finished run: it has no result.json with a model.safetensors")
    found = Run(RunSpec.from_dict(read_yaml(folder / "spec.yaml"), str(folder / "spec.yaml")), folder)
    model, dataset = found.load_model(whole=True), load_data(found.spec.data)
    images = model.backbone.prepare(dataset.images(dataset.indices("test")[:4]))
    names = {"classes": found.class_names, "run": folder.name}
    path = export(model, arguments.output or folder / "model.onnx", images, metadata=names)
    print(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB), for images of {tuple(images.shape[1:])}")
    return 0
