"""The files of a run, and what it says while it trains."""

import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from gcplib.lab.data import Images, Typefaces
from gcplib.lab.files import write_atomic, write_text
from gcplib.lab.progress import in_notebook, progress_wanted, track
from gcplib.lab.training.build import describe
from gcplib.lab.training.engine import Engine
from gcplib.lab.training.spec import RunSpec
from gcplib.lab.training.state import TrainingState, save_checkpoint

# Writing checkpoints may take this fraction of the time.
CHECKPOINT_FRACTION = 0.02


class RunWriter:
    """The files of a run. Only the first of several processes writes."""

    def __init__(self, spec: RunSpec, directory: Path, state: TrainingState, fabric: Fabric, engine: Engine):
        self.spec, self.directory, self.state, self.fabric, self.engine = spec, directory, state, fabric, engine
        self.saved, self.cost = time.perf_counter(), 0.0
        self.tensorboard = None
        if not fabric.is_global_zero:
            return
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob(".*-*"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        write_text(directory / "spec.yaml", yaml.safe_dump(spec.to_dict(), sort_keys=False))
        if engine.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.tensorboard = SummaryWriter(str(directory / "tensorboard"), purge_step=state.epoch)

    def watch(self, steps: range) -> Iterator[int]:
        """Yield the steps of an epoch, with checkpoints between them, and with a bar where epochs take long."""
        text = f"epoch {self.state.epoch + 1} of {self.spec.recipe.epochs}"
        is_shown = self.spec.stage == "full" and self.fabric.is_global_zero
        for step in track(steps, text, unit="batch") if is_shown else steps:
            yield step
            if step + 1 < steps.stop and self._due():
                self.save()

    def _due(self) -> bool:
        return time.perf_counter() >= self.saved + max(self.engine.checkpoint_seconds, self.cost / CHECKPOINT_FRACTION)

    def after_epoch(self) -> None:
        if not self.fabric.is_global_zero:
            return
        row = self.state.history[-1]
        self._try(self._write_metrics)
        if self.tensorboard is not None:
            for name, value in row.items():
                self.tensorboard.add_scalar(name, value, row["epoch"])
            self.tensorboard.flush()
        if progress_wanted() and not in_notebook() and (self.fabric.world_size > 1 or self.spec.stage == "full"):
            tqdm.write(
                f"epoch {row['epoch'] + 1} of {self.spec.recipe.epochs}: loss {row['train_loss']:.3f}, "
                f"training {row['train_accuracy']:.1%}, validation {row['validation_accuracy']:.1%}, "
                f"{row['images_per_second']:.1f} images/s, waiting for images {row['waiting_share']:.1%}"
            )
        if self.state.epoch < self.spec.recipe.epochs and self._due():
            self.save()

    def save(self) -> None:
        """Write a checkpoint; a full disk costs the checkpoint, not the run."""
        if not self.fabric.is_global_zero:
            return
        begin = time.perf_counter()
        self._try(lambda: save_checkpoint(self.directory, self.state, self.fabric, self.spec.name))
        self.saved = time.perf_counter()
        self.cost = self.saved - begin

    def _write_metrics(self) -> None:
        table = pd.DataFrame(self.state.history, columns=None if self.state.history else ["epoch"])
        write_text(self.directory / "metrics.csv", table.to_csv(index=False))

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            free = "free some space, or the run may have to start from its last checkpoint"
            warnings.warn(f"{self.directory.name}: could not write ({error}); going on: {free}", stacklevel=2)

    def finish(self, result: dict, logits: Tensor | None, dataset: Typefaces | Images) -> None:
        """Write the results; ``result.json`` last, for its presence says that the run is whole."""
        if self.fabric.is_global_zero:
            self._write_metrics()
            if logits is not None:
                table = _predictions(logits, dataset, self.spec.labels)
                write_text(self.directory / "predictions.csv", table.to_csv(index=False))
                weights = {name: value.contiguous() for name, value in self.state.evaluated.state_dict().items()}
                known = describe(self.spec, dataset.class_names(self.spec.labels))
                with write_atomic(self.directory / "model.safetensors") as temporary:
                    save_file(weights, temporary, {name: json.dumps(value) for name, value in known.items()})
            write_text(self.directory / "result.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
            for path in self.directory.glob("checkpoint-*.pt"):
                path.unlink()
            if self.tensorboard is not None:
                self.tensorboard.close()
        self.fabric.barrier()


def _predictions(logits: Tensor, dataset: Typefaces | Images, kind: str) -> pd.DataFrame:
    places, predicted, names = dataset.indices("test"), logits.argmax(1).numpy(), np.array(dataset.class_names(kind))
    labels = dataset.labels(kind)[places]
    found = {"image": places, "label": labels, "prediction": predicted}
    if isinstance(dataset, Images):
        found["file"] = [dataset.listing.paths[place] for place in places]
    return pd.DataFrame(found | {"label_name": names[labels], "prediction_name": names[predicted]})
