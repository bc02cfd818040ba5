"""Features of a frozen backbone, computed once and kept in one file."""

import errno
import math
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gcplib.lab.data import Images, Typefaces, require_sound
from gcplib.lab.files import cache_dir, digest, is_verified, locked, mark_verified, write_atomic
from gcplib.lab.machine import cpu_count
from gcplib.lab.progress import track
from gcplib.lab.training.engine import Engine
from gcplib.linalg.parallel import use_threads
from gcplib.models import create_backbone
from gcplib.nn import d4_views

__all__ = ["cache_features"]

# Images per step. Larger batches were slower on a CPU: the activations no longer fit in its caches.
BATCH = 16

# The part of the free memory that features may take: the rest is for the backbone's activations and everyone else.
MEMORY_FRACTION = 0.9


def _read(path: Path) -> Tensor | None:
    """Return the features, memory-mapped, or None where the file is not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            features = file.get_tensor("features")
            if not is_verified(path) and (file.metadata() or {}).get("checksum") != _checksum(features):
                return None
    except (SafetensorError, OSError):
        return None
    mark_verified(path)
    return features


def _checksum(features: Tensor) -> str:
    # Reading every byte (a tenth of a second) is cheaper than training on altered features.
    return str(int(features.view(torch.int32).sum(dtype=torch.int64)))


def cache_features(
    dataset: Typefaces | Images,
    backbone: str = "tf_efficientnet_lite0",
    stride: int = 16,
    pretrained: bool | str = True,
    options: Mapping[str, Any] | None = None,
    views: bool = False,
    *,
    engine: Engine | None = None,
) -> Tensor:
    """Return the features ``(images, C, H, W)`` of a data set, float32, in its order; computed at the first call.

    They are kept under ``data/cache`` in a file named by a hash of data set, backbone, stride and kind of device; a
    truncated or altered file is noticed and made again.

    Args:
        dataset: the images.
        backbone: see ``gcplib.create_backbone``.
        stride: see ``gcplib.create_backbone``.
        pretrained: see ``gcplib.create_backbone``.
        options: see ``gcplib.create_backbone``.
        views: return ``(images, 8, C, H, W)``, of the eight views of ``gcplib.nn.d4_views``.
        engine: where they are computed; a GPU rounds otherwise than a CPU.

    Raises:
        ValueError: unknown backbone or stride; an untrained backbone, whose random weights would differ between
            calls; or images on disk that are corrupt: all of them are listed.
        MemoryError, OSError: the features are larger than the free memory, or disk; known after the first batch.
    """
    if pretrained is False:
        raise ValueError("features of an untrained backbone differ at every call; give pretrained=True or a path")
    device = (engine or Engine()).kind
    what = {"data": dataset.digest, "backbone": backbone, "stride": stride, "pretrained": str(pretrained)}
    what |= {"options": dict(options or {}), "views": views, "device": device}
    path = cache_dir() / f"features-{digest(what)}.safetensors"
    with locked(path):
        if path.exists():
            if (features := _read(path)) is not None:
                return features
            warnings.warn(f"{path.name} is truncated or altered; computing the features again", stacklevel=2)
            path.unlink()
        if isinstance(dataset, Images):
            require_sound(dataset)
        # On every core: whoever else needs these features is waiting for the lock, not computing.
        with ThreadPoolExecutor(1, initializer=use_threads, initargs=(cpu_count(),)) as all_cores:
            network = create_backbone(backbone, pretrained, stride, options).eval().to(device)
            features = all_cores.submit(_compute, dataset, network, views).result()
        with write_atomic(path) as temporary:
            save_file({"features": features}, temporary, {"checksum": _checksum(features), "data": dataset.digest})
    return features


@torch.no_grad()  # not inference_mode: its tensors could not be trained on
def _compute(dataset: Typefaces | Images, backbone: torch.nn.Module, views: bool) -> Tensor:
    features, batch = None, BATCH // 8 if views else BATCH
    starts = range(0, len(dataset), batch)
    for start in track(starts, f"features of {len(dataset)} images", unit="batch"):
        x = backbone.prepare(dataset.images(range(start, min(start + batch, len(dataset)))))
        if views:
            x = d4_views(x)
        out = backbone(x.flatten(0, -4)).float().cpu().unflatten(0, x.shape[:-3])
        if features is None:
            _check_room((len(dataset), *out.shape[1:]))
            features = torch.empty(len(dataset), *out.shape[1:])
        features[start : start + len(out)] = out
    return features


def _check_room(shape: tuple[int, ...]) -> None:
    """Refuse features that would fill memory or disk hours from now."""
    size = math.prod(shape) * torch.float32.itemsize
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(cache_dir()).free
    entries = " x ".join(map(str, shape[1:]))
    what = f"the features of {shape[0]} images, {entries} entries each, take {size / 1e9:.3g} GB, more than"
    remedy = "Train with stage='full', which keeps none, or take fewer pixels, a larger stride, or fewer channels"
    if size > MEMORY_FRACTION * memory:
        raise MemoryError(f"{what} {MEMORY_FRACTION:.0%} of the {memory / 1e9:.3g} GB of free memory. {remedy}")
    if size > disk:
        raise OSError(errno.ENOSPC, f"{what} the {disk / 1e9:.3g} GB that are free in {cache_dir()}. {remedy}")
