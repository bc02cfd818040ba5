"""What a run trains, and with what: network, optimizer and batches, from its spec."""

import functools
import json

import torch
from lightning_fabric import Fabric
from torch import nn

from gcplib import __version__
from gcplib.lab.data import Images, Typefaces, load_data, require_sound
from gcplib.lab.training.engine import Engine
from gcplib.lab.training.features import cache_features
from gcplib.lab.training.sources import ImageSource, Source, default_loaders
from gcplib.lab.training.spec import RunSpec
from gcplib.lab.training.state import TrainingState, make_average, make_optimizer
from gcplib.lab.training.systems import build_head, build_model
from gcplib.models import create_backbone
from gcplib.nn import create_pool

__all__ = ["describe", "features_of", "make_network", "make_start", "set_up", "switch_pool"]


def _make_pool(spec: RunSpec, channels: int, epoch: int = 0) -> nn.Module:
    """Return the pool of a run as it is from ``epoch`` on, untrained."""
    pool, options = spec.pool_at(epoch)
    return create_pool(pool, channels, reduction=spec.reduction, **options)


def make_network(spec: RunSpec, classes: int, epoch: int = 0, load: bool = True) -> nn.Module:
    """Return what a run of the ``full`` stage trains from ``epoch`` on, without ``load`` with a backbone at random."""
    options, pixels = spec.backbone_options, spec.data.pixels
    backbone = create_backbone(spec.backbone, spec.pretrained, spec.stride, options, load, pixels)
    return build_model(backbone, _make_pool(spec, backbone.out_channels, epoch), classes, spec.systems)


def make_start(spec: RunSpec, classes: int, channels: int) -> nn.Module:
    """Return what a run trains as it is before the first step: a head on ``channels``, or in the full stage all."""
    torch.manual_seed(spec.seed)
    if spec.stage == "full":
        return make_network(spec, classes)
    return build_head(_make_pool(spec, channels), classes, spec.systems)


def features_of(spec: RunSpec) -> tuple:
    """Return what names the features of a run: the arguments of ``cache_features`` after the data."""
    return spec.backbone, spec.stride, spec.pretrained, spec.backbone_options, "views" in spec.systems


def describe(spec: RunSpec, class_names: list[str]) -> dict:
    """Return what one must know to use the network of a run: its classes, how images are prepared, its backbone."""
    return {
        "classes": class_names,
        **{key: getattr(spec.data, key, None) for key in ("pixels", "resize", "scale")},
        "backbone": spec.backbone,
        **_constants(spec.backbone, spec.pretrained, spec.stride, json.dumps(spec.backbone_options)),
        "gcplib": __version__,
    }


@functools.cache  # many runs have one backbone
def _constants(backbone: str, pretrained: bool | str, stride: int | None, options: str) -> dict:
    with torch.random.fork_rng(devices=[]):
        made = create_backbone(backbone, pretrained, stride, json.loads(options), load=False)
    return {"stride": made.stride, "mean": list(made.mean), "std": list(made.std)}


def switch_pool(state: TrainingState, spec: RunSpec, epoch: int) -> None:
    """Put the pool of ``epoch`` in place of the one that is there; parts with weights, as the reduction, stay.

    The optimizer, other devices and the moving average hold the same parameters as before.
    """
    for network in state.networks:
        head = getattr(network, "head", network)
        fresh = _make_pool(spec, head.pool.in_channels, epoch)
        if fresh.out_features != head.pool.out_features:
            raise ValueError(
                f"recipe.switch: {spec.pool_at(epoch)[0]} has vectors of {fresh.out_features} entries, the pool before "
                f"it {head.pool.out_features}; the classifier fits one length only"
            )
        for name, part in head.pool.named_children():
            if hasattr(fresh, name):
                setattr(fresh, name, part)
        head.pool = fresh.to(head.classifier.weight.device).train(network.training)


def set_up(
    spec: RunSpec, fabric: Fabric, engine: Engine, checkpoint: dict | None = None
) -> tuple[TrainingState, Typefaces | Images, Source | ImageSource]:
    """Return network and optimizer of a run on their devices, its data, and where its batches come from.

    With a ``checkpoint`` (``latest_checkpoint``) they are as the run has left them.

    Raises:
        ValueError: a pool of ``recipe.switch`` does not fit, or a batch has fewer images than there are devices.
    """
    dataset, device, is_head = load_data(spec.data), fabric.device, spec.stage == "head"
    classes, labels = len(dataset.class_names(spec.labels)), torch.as_tensor(dataset.labels(spec.labels))
    if is_head:
        features = cache_features(dataset, *features_of(spec), engine=Engine(device.type))
    elif isinstance(dataset, Images):
        require_sound(dataset)
    network = make_start(spec, classes, features.shape[-3] if is_head else 0)
    if is_head:
        source = Source(lambda batch: features[batch].to(device), labels, device)
    else:
        loaders = default_loaders(device, isinstance(dataset, Images)) if engine.loaders is None else engine.loaders
        source = ImageSource(dataset, network.backbone.prepare, labels, device, loaders)
    network.to(device)
    state = TrainingState(network, network, make_optimizer(network, spec.recipe))
    state.average = make_average(network, spec.recipe.ema)
    if spec.recipe.batch_size < fabric.world_size:
        raise ValueError(f"recipe.batch_size is {spec.recipe.batch_size}, fewer than the {fabric.world_size} devices")
    for phase in reversed(spec.phases):
        switch_pool(state, spec, phase)  # a pool that does not fit shows now, not in its epoch
    if checkpoint is not None:
        switch_pool(state, spec, checkpoint["state"]["epoch"])
        state.load_state_dict(checkpoint["state"])
        fabric.strategy.precision.load_state_dict(checkpoint["scaler"])
    wrapped = torch.compile(network) if spec.recipe.compile else network
    state.model, state.optimizer = fabric.setup(wrapped, state.optimizer)
    return state, dataset, source
