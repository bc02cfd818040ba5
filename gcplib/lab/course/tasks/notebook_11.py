"""Tasks of notebook 11: what the block does to class maps, and cross-entropy over the hardest classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]


def maps_with_hits() -> list[tuple[Tensor, Tensor, Tensor, float]]:
    """Class maps that patches do not divide evenly, some of them with equal values, and what is hit."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for size, factor in (((2, 3, 5, 7), 0.1), ((1, 4, 4, 3), 0.5), ((2, 2, 6, 6), 0.0)):
        maps = torch.randn(*size, generator=generator, dtype=torch.float64)
        patches = (*size[:2], -(-size[2] // 3), -(-size[3] // 3))
        peak_hit, patch_hit = (torch.rand(shape, generator=generator) < 0.5 for shape in (size[:2], patches))
        cases.append((maps, peak_hit, patch_hit, factor))
    return cases


def whole_patches(maps: Tensor, patch_hit: Tensor) -> Tensor:
    """Which positions patches hit, ``(B, C, h w)``."""
    hit = patch_hit.repeat_interleave(3, 2).repeat_interleave(3, 3)
    return hit[..., : maps.shape[2], : maps.shape[3]].flatten(2)


def peaks(maps: Tensor) -> Tensor:
    """The place of the largest value of every map ``(B, C, 1)``."""
    return maps.flatten(2).argmax(-1, keepdim=True)


def suppress(maps: Tensor, peak_hit: Tensor, patch_hit: Tensor, factor: float = 0.1) -> Tensor:
    """A solution."""
    hit = whole_patches(maps, patch_hit).scatter(-1, peaks(maps), peak_hit[..., None])
    return torch.where(hit.view_as(maps), factor * maps, maps)


def _by_hit(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What becomes of maps where other places are hit."""

    def made(maps: Tensor, peak_hit: Tensor, patch_hit: Tensor, factor: float = 0.1) -> Tensor:
        hit = change(maps, peak_hit, patch_hit).reshape(maps.shape)
        return torch.where(hit, factor * maps, maps)

    return made


def _peak_as_well(maps: Tensor, peak_hit: Tensor, patch_hit: Tensor) -> Tensor:
    hit = whole_patches(maps, patch_hit)
    return hit.scatter(-1, peaks(maps), peak_hit[..., None] | hit.gather(-1, peaks(maps)))


def _peak_never(maps: Tensor, peak_hit: Tensor, patch_hit: Tensor) -> Tensor:
    return whole_patches(maps, patch_hit).scatter(-1, peaks(maps), False)


def _peak_of_image(maps: Tensor, peak_hit: Tensor, patch_hit: Tensor) -> Tensor:
    place = peaks(maps.amax(1, keepdim=True)).expand(-1, maps.shape[1], -1)
    return whole_patches(maps, patch_hit).scatter(-1, place, peak_hit[..., None])


def _patches_side_by_side(maps: Tensor, peak_hit: Tensor, patch_hit: Tensor) -> Tensor:
    rows, columns = patch_hit.shape[2:]
    hit = patch_hit.repeat(1, 1, 3, 3)[..., : maps.shape[2], : maps.shape[3]].flatten(2)
    assert hit.shape[-1] == maps[0, 0].numel(), (rows, columns)
    return hit.scatter(-1, peaks(maps), peak_hit[..., None])


def _suppress_in_loops(maps: Tensor, peak_hit: Tensor, patch_hit: Tensor, factor: float = 0.1) -> Tensor:
    found = maps.clone()
    for b, c in torch.cartesian_prod(torch.arange(maps.shape[0]), torch.arange(maps.shape[1])).tolist():
        top = divmod(int(maps[b, c].argmax()), maps.shape[3])
        for i in range(maps.shape[2]):
            for j in range(maps.shape[3]):
                hit = peak_hit[b, c] if (i, j) == top else patch_hit[b, c, i // 3, j // 3]
                found[b, c, i, j] *= factor if hit else 1
    return found


def scores() -> list[tuple[Tensor, Tensor, int]]:
    """Logits, classes and k; some are so large that their exponentials overflow, one k is that of all classes."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for images, classes, k, scale in ((4, 6, 2, 1.0), (3, 5, 4, 2.0), (2, 9, 3, 500.0)):
        logits = scale * torch.randn(images, classes, generator=generator, dtype=torch.float64)
        target = torch.randint(classes, (images,), generator=generator)
        target[0] = logits[0].argmax()  # the right class may be the largest
        cases.append((logits.requires_grad_(), target, k))
    return cases


def value_and_gradient(loss: Callable[..., Tensor], logits: Tensor, target: Tensor, k: int) -> dict[str, Tensor]:
    """The loss, and its gradient by the logits."""
    value = loss(logits, target, k)
    (gradient,) = torch.autograd.grad(value, logits)
    return {"loss": value.detach(), "gradient": gradient}


def split(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of the right classes ``(B, 1)``, and all with minus infinity in their places."""
    return logits.gather(1, target[:, None]), logits.scatter(1, target[:, None], -torch.inf)


def boosted_loss(logits: Tensor, target: Tensor, k: int) -> Tensor:
    """A solution."""
    score, wrong = split(logits, target)
    return (torch.cat([score, wrong.topk(k).values], 1).logsumexp(1) - score[:, 0]).mean()


def _by_cross_entropy(logits: Tensor, target: Tensor, k: int) -> Tensor:
    score, wrong = split(logits, target)
    return cross_entropy(torch.cat([score, wrong.topk(k).values], 1), torch.zeros_like(target))


def _own_among_the_hardest(logits: Tensor, target: Tensor, k: int) -> Tensor:
    score, _ = split(logits, target)
    return (torch.cat([score, logits.topk(k).values], 1).logsumexp(1) - score[:, 0]).mean()


def _without_own(logits: Tensor, target: Tensor, k: int) -> Tensor:
    score, wrong = split(logits, target)
    return (wrong.topk(k).values.logsumexp(1) - score[:, 0]).mean()


def _easiest(logits: Tensor, target: Tensor, k: int) -> Tensor:
    score = logits.gather(1, target[:, None])
    wrong = logits.scatter(1, target[:, None], torch.inf)
    return (torch.cat([score, wrong.topk(k, largest=False).values], 1).logsumexp(1) - score[:, 0]).mean()


TASKS = {
    "11_suppress": Task(
        "Write the body of `suppress`: patches of 3 x 3, the peak by its own draw, and what is hit times the factor.",
        suppress,
        maps_with_hits,
        mistakes={
            "patches hit the peak as well; only its own draw may": _by_hit(_peak_as_well),
            "the peak's own draw is not used": _by_hit(_peak_never),
            "only the peaks are hit; patches are, too": _by_hit(
                lambda maps, peak_hit, patch_hit: torch.zeros_like(maps.flatten(2), dtype=torch.bool).scatter(
                    -1, peaks(maps), peak_hit[..., None]
                )
            ),
            "the peak is that of the image; each class has its own": _by_hit(_peak_of_image),
            "what is hit stays, and the rest is suppressed": lambda maps, peak_hit, patch_hit, factor=0.1: (
                maps + factor * maps - suppress(maps, peak_hit, patch_hit, factor)
            ),
            "what is hit is multiplied by 1 - factor; multiply by the factor": lambda maps, p, q, factor=0.1: suppress(
                maps, p, q, 1 - factor
            ),
            "what is left is scaled up, as dropout does; the block does not": lambda m, p, q, f=0.1: (
                suppress(m, p, q, f) / (1 - 0.5 * (1 - f))
            ),
            "a patch is one block of 3 x 3 neighbors: repeat_interleave, not repeat": _by_hit(_patches_side_by_side),
        },
        alternatives=(_suppress_in_loops,),
    ),
    "11_boosted_loss": Task(
        "Write the body of `boosted_loss`: the right class and the k largest of the others, log-sum-exp, mean.",
        boosted_loss,
        scores,
        value_and_gradient,
        mistakes={
            "this is cross-entropy over all classes; take the k hardest wrong ones": lambda s, y, k: cross_entropy(
                s, y
            ),
            "the right class can be among the k: take it out before topk": _own_among_the_hardest,
            "the right class is missing in the sum below the fraction": _without_own,
            "these are the easiest wrong classes; take those with the largest logits": _easiest,
            "it is one wrong class too few": lambda s, y, k: boosted_loss(s, y, k - 1),
            "it is a sum over the images; take the mean": lambda s, y, k: boosted_loss(s, y, k) * len(s),
            "the sign is wrong: the loss is minus the logarithm": lambda s, y, k: -boosted_loss(s, y, k),
        },
        alternatives=(_by_cross_entropy,),
    ),
}
