"""A finished run, read from its folder, and what it says about pictures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gcplib.decoding import decode
from gcplib.lab.data.readers.reading import SUFFIXES
from gcplib.lab.files import runs_dir
from gcplib.lab.machine import cpu_count
from gcplib.lab.outcomes import pack
from gcplib.lab.plain import read_yaml
from gcplib.lab.progress import track
from gcplib.lab.training.build import make_network
from gcplib.lab.training.engine import Engine
from gcplib.lab.training.spec import RunSpec

# Pictures per step, as for features: larger batches are slower on a CPU.
BATCH = 16

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Run:
    """A finished run on disk.

    Its directory has ``spec.yaml``, ``metrics.csv``, ``result.json``, ``model.safetensors`` (with ``description``), and
    ``predictions.csv``. A diverged run has the first three only.
    """

    spec: RunSpec
    directory: Path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the run in a folder, or of that name in ``runs/train``; its data set need not be there.

        Raises:
            FileNotFoundError: no finished run is there.
        """
        given = Path(path).expanduser()
        directory = given.absolute() if given.is_dir() else runs_dir() / "train" / given
        if not all((directory / name).is_file() for name in ("spec.yaml", "result.json")):
            known = "; give a folder with a result.json, or the name of one in " + str(runs_dir() / "train")
            begun = "; the command that began it continues it" if (directory / "spec.yaml").is_file() else known
            raise FileNotFoundError(f"{directory} is no finished run{begun}")
        return cls(RunSpec.from_dict(read_yaml(directory / "spec.yaml"), str(directory / "spec.yaml")), directory)

    @cached_property
    def result(self) -> dict:
        """Outcome (``finished`` or ``diverged``), accuracies in percent, times, versions."""
        return json.loads((self.directory / "result.json").read_text())

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per epoch."""
        return pd.read_csv(self.directory / "metrics.csv")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per test image, with ``image``, ``label``, ``prediction``, names of both classes and of the file.

        Typefaces are no files.
        """
        table = pd.read_csv(self.directory / "predictions.csv", dtype=str, keep_default_na=False)  # a class may be "NA"
        return table.astype(dict.fromkeys(("image", "label", "prediction"), "int64"))

    @property
    def correct(self) -> str | None:
        """Which test images are right, as text (``gcplib.lab.outcomes``); None of a run that diverged."""
        if self.result["outcome"] != "finished":
            return None
        return pack(self.predictions["label"] == self.predictions["prediction"])

    @cached_property
    def description(self) -> dict:
        """What else the folder of weights tells, ``classes`` in the order of the logits, preprocessing, backbone."""
        with safe_open(self._weights, "pt") as file:
            return {name: json.loads(value) for name, value in file.metadata().items()}

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return self.description["classes"]

    @property
    def _weights(self) -> Path:
        path = self.directory / "model.safetensors"
        if self.result["outcome"] == "diverged":
            raise ValueError(
                f"{self.directory.name} diverged and has no model ({self.result.get('reason')}); "
                "train it again with a lower recipe.learning_rate"
            )
        if not path.is_file():
            raise FileNotFoundError(f"{path} is gone; delete the folder and train the run again")
        return path

    def load_model(self, whole: bool = False) -> nn.Module:
        """Return the trained network: a whole ``Model`` of the ``full`` stage, a ``Head`` of the ``head`` stage.

        With ``whole``, that head stands behind its pretrained backbone.

        Raises:
            ValueError: the run diverged; or, of a head, what ``gcplib.create_backbone`` raises.
        """
        weights = load_file(self._weights)
        classes = len(next(value for name, value in weights.items() if name.endswith("classifier.bias")))
        trained_all = self.spec.stage == "full"
        model = make_network(self.spec, classes, self.spec.recipe.epochs - 1, load=whole and not trained_all)
        (model if trained_all else model.head).load_state_dict(weights)
        return (model if trained_all or whole else model.head).eval()

    def predict(
        self, paths: str | Path | Iterable[str | Path], top: int = 3, accelerator: str = "auto"
    ) -> pd.DataFrame:
        """Return what the run says about pictures, which are prepared, and seen, as its test images were.

        Args:
            paths: of files, or of folders, whose pictures are taken from all levels.
            top: how many classes to tell.
            accelerator: ``cpu``, ``cuda``, or ``auto``.

        Returns:
            A row for each picture: ``file``, ``class``, ``probability``, then ``class_2``, ``probability_2`` and so on;
            ``problem`` says why a picture could not be read, whose classes are missing, and is empty otherwise.

        Raises:
            ValueError: no picture is given, ``top`` is below 1, or the run diverged.
        """
        if top < 1:
            raise ValueError(f"top is {top}; give at least 1")
        files = find_pictures([paths] if isinstance(paths, str | Path) else paths)
        names, data = self.class_names, self.spec.data
        model = self.load_model(whole=True).to(Engine(accelerator).kind)

        def read(path: Path) -> np.ndarray | ValueError:
            try:
                # Pictures are cut as typefaces' squares are, too: these have no settings of their own.
                return decode(path, data.pixels, getattr(data, "resize", "shorter"), getattr(data, "scale", None))
            except ValueError as error:
                return error

        rows = []
        with ThreadPoolExecutor(cpu_count()) as pool:
            for start in track(range(0, len(files), BATCH), f"{len(files)} pictures", unit="batch"):
                part = files[start : start + BATCH]
                images = list(pool.map(read, part))
                whole = [image for image in images if isinstance(image, np.ndarray)]
                found = iter(self._likeliest(model, np.stack(whole), min(top, len(names))) if whole else ())
                for path, image in zip(part, images, strict=True):
                    is_read = isinstance(image, np.ndarray)
                    rows.append({"file": str(path), "problem": "" if is_read else str(image)})
                    for place, (number, probability) in enumerate(next(found) if is_read else (), 1):
                        suffix = f"_{place}" if place > 1 else ""
                        rows[-1] |= {f"class{suffix}": names[int(number)], f"probability{suffix}": probability}
        table = pd.DataFrame(rows)
        return table[[*(name for name in table if name != "problem"), "problem"]]

    def _likeliest(self, model: nn.Module, images: np.ndarray, count: int) -> list[list[list[float]]]:
        """Return number and probability of the likeliest classes of each image."""
        x = model.backbone.prepare(images)
        logits = _logits(model, x, self.spec)
        probabilities, numbers = logits.softmax(1).topk(count)
        return torch.stack([numbers.to(probabilities.dtype), probabilities], -1).tolist()


@torch.inference_mode()
def _logits(model: nn.Module, x: Tensor, spec: RunSpec) -> Tensor:
    """Return logits (B, classes) as evaluation has them, in float64."""
    # Features of the head stage are float32 whatever the precision, and a CPU has no fp16 of its own.
    is_half = spec.stage == "full" and spec.recipe.precision in HALF
    half = is_half and (x.is_cuda or spec.recipe.precision == "bf16")
    around = torch.autocast(x.device.type, HALF[spec.recipe.precision]) if half else contextlib.nullcontext()
    with around:
        logits = model(x).double()
        return (logits + model(x.flip(-1)).double()) / 2 if spec.recipe.flip else logits


def find_pictures(paths: Iterable[str | Path]) -> list[Path]:
    """Return the files among the paths, and the pictures in the folders among them, each once.

    Raises:
        ValueError: nothing is given, or a folder has no picture.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        path = path.expanduser()
        if path.is_dir():
            inner = sorted(file for file in path.rglob("*") if _is_picture(file.relative_to(path)))
            if not inner:
                raise ValueError(f"{path} has no pictures ({', '.join(sorted(SUFFIXES))}), also not in folders within")
            found += inner
        else:
            found.append(path)
    if not found:
        raise ValueError("no picture is given; give files, or folders of pictures")
    return list(dict.fromkeys(found))


def _is_picture(path: Path) -> bool:
    # Hidden files are what file managers leave behind, some of them with names like ._bird.jpg.
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)
