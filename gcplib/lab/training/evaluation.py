"""What a network makes of images that it is not trained on, and its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gcplib.lab.training.engine import agree, share_buffers
from gcplib.lab.training.loop import Diverged
from gcplib.lab.training.sources import Batch, ImageSource, Source
from gcplib.linalg import NonFiniteError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["BATCH", "accuracy", "evaluate", "top5"]

# Images per batch, on each device.
BATCH = 64


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    fabric: Fabric,
    source: Source | ImageSource,
    indices: Tensor,
    flip: bool = False,
    batch_size: int = BATCH,
) -> Tensor:
    """Return the logits ``(len(indices), classes)`` on the CPU; with ``flip`` the mean over images and mirror images.

    Raises:
        Diverged: features or logits are not finite, as when the last step of an epoch went too far.
    """
    network.eval()
    share_buffers(fabric, network)
    rank, world = fabric.global_rank, fabric.world_size
    mine, found, reason = indices[rank::world], [], ""
    batches = [Batch(part) for part in mine.split(batch_size)] if len(mine) else []
    try:
        for x in source.batches(batches):
            with fabric.autocast():
                logits = network(x).float()
                found.append((logits + network(x.flip(-1)).float()) / 2 if flip else logits)
    except NonFiniteError as error:
        reason = str(error)
    bad = sum(int((~torch.isfinite(part)).any(1).sum()) for part in found)
    reason = reason or (f"logits of {bad} of {len(mine)} images are not finite" if bad else "")
    if agree(fabric, torch.zeros(2, device=source.device), bool(reason), False)["broken"]:
        raise Diverged(f"evaluation: {reason or 'not finite on another device'}")
    return torch.cat(found).cpu() if world == 1 else _gather(fabric, found, source, len(indices))


def _gather(fabric: Fabric, found: list[Tensor], source: Source | ImageSource, count: int) -> Tensor:
    """Return the logits of all devices in the order of the images, which were dealt out like cards."""
    world, most = fabric.world_size, -(-count // fabric.world_size)
    width = torch.tensor(found[0].shape[1] if found else 0, device=source.device)
    width = int(fabric.all_gather(width).max())
    mine = torch.zeros(most, width, device=source.device)
    if found:
        own = torch.cat(found)
        mine[: len(own)] = own
    everyone = fabric.all_gather(mine)
    return everyone.transpose(0, 1).reshape(most * world, width)[:count].cpu()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose class is the likeliest one."""
    return (logits.argmax(1) == labels).double().mean().item()


def top5(logits: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose class is among the five likeliest."""
    return (logits.topk(min(5, logits.shape[1])).indices == labels[:, None]).any(1).double().mean().item()
