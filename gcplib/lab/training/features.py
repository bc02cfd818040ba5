"""Features of a frozen network, computed once and kept on disk."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from gcplib.backbones import usual_stride
from gcplib.features import create_features
from gcplib.lab.data import Images, Typefaces, require_sound
from gcplib.lab.files import cache_dir, digest
from gcplib.lab.machine import allotted_cores
from gcplib.lab.progress import track
from gcplib.lab.training.engine import Engine
from gcplib.lab.training.feature_files import Batches, stored
from gcplib.linalg.parallel import use_threads
from gcplib.models import create_backbone
from gcplib.nn import d4_views

__all__ = ["cache_all_features", "cache_features"]

# Images per step. Larger batches were slower on a CPU: the activations no longer fit in its caches.
BATCH = 16


def cache_features(
    dataset: Typefaces | Images,
    backbone: str = "tf_efficientnet_lite0",
    stride: int | None = None,
    pretrained: bool | str = True,
    options: Mapping[str, Any] | None = None,
    views: bool = False,
    *,
    engine: Engine | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the features ``(images, C, H, W)`` of a data set, in its order; computed at the first call.

    They are kept under ``data/cache``, in a folder named by a hash of data set, backbone, stride and kind of device; a
    truncated or altered file is noticed and made again. They are read from disk as they are needed.

    Args:
        dataset: the images.
        backbone: see ``gcplib.create_backbone``.
        stride: see ``gcplib.create_backbone``.
        pretrained: see ``gcplib.create_backbone``.
        options: see ``gcplib.create_backbone``.
        views: return ``(images, 8, C, H, W)``, of the eight views of ``gcplib.nn.d4_views``.
        engine: where they are computed; a GPU rounds otherwise than a CPU.
        dtype: that they are kept in; float16 takes half the space.

    Raises:
        ValueError: unknown backbone or stride; an untrained backbone, whose random weights would differ between
            calls; or images on disk that are corrupt: all of them are listed.
        OSError: the features are larger than the free disk; known after the first batch.
    """

    def make() -> Callable[[Tensor], dict[str, Tensor]]:
        network = create_backbone(backbone, pretrained, stride, options, pixels=dataset.spec.pixels).eval().to(device)

        def features(images: Tensor) -> dict[str, Tensor]:
            x = network.prepare(images)
            x = d4_views(x) if views else x
            return {"features": network(x.flatten(0, -4)).unflatten(0, x.shape[:-3])}

        return features

    # One name for the same features, asked for by number or not.
    stride = usual_stride(backbone, options) if stride is None else stride
    device = (engine or Engine()).kind
    what = {"stride": stride, "views": views, "options": dict(options or {})}
    return _cached(dataset, backbone, pretrained, what, make, device, dtype, BATCH // 8 if views else BATCH)["features"]


def cache_all_features(
    dataset: Typefaces | Images,
    backbone: str = "tf_efficientnet_lite0",
    strides: Sequence[int] | None = None,
    pretrained: bool | str = True,
    options: Mapping[str, Any] | None = None,
    *,
    engine: Engine | None = None,
    dtype: torch.dtype = torch.float16,
) -> dict[str, Tensor]:
    """Return all that ``gcplib.features.NetworkFeatures`` gives for the images of a data set; kept as by
    ``cache_features``, which has the other arguments, and what it raises.

    Args:
        strides: see ``gcplib.features.create_features``.
    """

    def make() -> Callable[[Tensor], dict[str, Tensor]]:
        network = create_features(backbone, pretrained, strides, options, dataset.spec.pixels).to(device)
        return lambda images: network(network.prepare(images))

    device = (engine or Engine()).kind
    what = {"strides": None if strides is None else sorted(strides), "all": True, "options": dict(options or {})}
    return _cached(dataset, backbone, pretrained, what, make, device, dtype, BATCH)


def _cached(
    dataset: Typefaces | Images,
    backbone: str,
    pretrained: bool | str,
    what: dict[str, Any],
    make: Callable[[], Callable[[Tensor], dict[str, Tensor]]],
    device: str,
    dtype: torch.dtype,
    batch: int,
) -> dict[str, Tensor]:
    if pretrained is False:
        raise ValueError("features of an untrained backbone differ at every call; give pretrained=True or a path")
    weights = str(pretrained)
    if not isinstance(pretrained, bool) and os.path.isfile(pretrained):
        found = os.stat(pretrained)
        weights += f" {found.st_size} {found.st_mtime_ns}"  # another file under the old name has other features
    about = what | {"data": dataset.digest, "backbone": backbone, "pretrained": weights, "device": device}
    folder = cache_dir() / f"features-{digest(about | {'dtype': str(dtype)})}"

    @torch.no_grad()  # not inference_mode: its tensors could not be trained on
    def rows(features: Callable[[Tensor], dict[str, Tensor]], start: int) -> dict[str, Tensor]:
        images = torch.tensor(dataset.images(range(start, min(start + batch, len(dataset)))))
        return {name: value.float().cpu() for name, value in features(images).items()}

    def compute() -> Batches:
        if isinstance(dataset, Images):
            require_sound(dataset)
        features = make()
        starts = range(0, len(dataset), batch)
        # On every core of this process, whatever a notebook has set for its small batches.
        with ThreadPoolExecutor(1, initializer=use_threads, initargs=(allotted_cores(),)) as cores:
            for start in track(starts, f"features of {len(dataset)} images", unit="batch"):
                yield cores.submit(rows, features, start).result()

    return stored(folder, len(dataset), compute, dtype)
