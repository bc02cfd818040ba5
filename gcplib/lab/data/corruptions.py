"""Images made worse, in the manner of ImageNet-C and ImageNet-P: corruptions of five severities, and short films.

The kinds are those of Hendrycks and Dietterich (ICLR 2019) where a library has them, and some more; **severities are
ours**, for small images of text: no result can be compared with a published one. Every draw depends on the seed, the
kind and the number of the image alone: the same image meets the same noise in any order and any batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy import ndimage
from skimage.draw import line
from skimage.filters import gaussian
from skimage.morphology import disk
from skimage.util import random_noise
from torchvision.transforms.v2 import functional

from gcplib.lab.data.dataset import choice
from gcplib.lab.machine import cpu_count

__all__ = ["CORRUPTIONS", "FILMS", "SEVERITIES", "choose_kinds", "corrupt", "film"]

# What each kind does at severity 1 to 5. Lengths are for a side of 224 pixels, and shrink with the image.
SEVERITIES = {
    "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),  # standard deviation, of a range of 1
    "shot_noise": (100, 40, 20, 10, 5),  # photons where an image is white
    "impulse_noise": (0.01, 0.03, 0.06, 0.12, 0.2),  # fraction of the values that are set to 0 or 1
    "gaussian_blur": (0.7, 1.2, 1.8, 2.5, 3.5),  # standard deviation in pixels
    "defocus_blur": (1, 2, 3, 4, 6),  # radius in pixels
    "motion_blur": (3, 6, 9, 13, 18),  # length in pixels, in a random direction
    "fog": (0.2, 0.35, 0.5, 0.65, 0.8),  # weight of a bright, cloudy layer
    "brightness": (1.15, 1.3, 1.5, 1.8, 2.2),  # factor
    "contrast": (0.7, 0.5, 0.35, 0.22, 0.12),  # factor of the distance from the mean gray
    "saturation": (0.7, 0.4, 0.0, 2.5, 5.0),  # factor of the distance from gray
    "posterize": (5, 4, 3, 2, 1),  # bits of a color
    "pixelate": (0.5, 0.4, 0.33, 0.25, 0.2),  # of the side, enlarged again
    "jpeg": (50, 30, 18, 10, 5),  # quality
    "elastic": (1, 2, 3, 4.5, 6),  # pixels, standard deviation of a smooth random shift
    "rotate": (3, 6, 10, 15, 22),  # degrees, either way
    "translate": (4, 9, 15, 22, 30),  # pixels, in a random direction
}

SIDE = 224


def _blurred(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return ndimage.convolve(x, (kernel / kernel.sum())[..., None], mode="nearest")


def _motion(x: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    angle, reach = rng.uniform(0, np.pi), max(1, round(length * x.shape[0] / SIDE / 2))
    down, across = round(reach * np.sin(angle)), round(reach * np.cos(angle))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=x.dtype)
    kernel[line(reach - down, reach - across, reach + down, reach + across)] = 1
    return _blurred(x, kernel)


def _rotated(x: np.ndarray, degrees: float) -> np.ndarray:
    return ndimage.rotate(x, -degrees, reshape=False, order=1, mode="nearest")


def _shifted(x: np.ndarray, length: float, angle: float) -> np.ndarray:
    return ndimage.shift(x, (-length * np.sin(angle), -length * np.cos(angle), 0), order=1, mode="nearest")


def _smooth(shape: tuple[int, int], part: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise of mean 0 and deviation 1, smooth over a part of the side (by Fourier transforms: fast)."""
    waves = ndimage.fourier_gaussian(np.fft.rfft2(rng.standard_normal(shape)), part * shape[0], n=shape[1])
    noise = np.fft.irfft2(waves, s=shape)
    return (noise - noise.mean()) / noise.std()


def _elastic(x: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    places = [at + pixels * x.shape[0] / SIDE * _smooth(x.shape[:2], 0.06, rng) for at in np.indices(x.shape[:2])]
    moved = [ndimage.map_coordinates(x[..., c], places, order=1, mode="nearest") for c in range(3)]
    return np.stack(moved, axis=-1)


def _fog(x: np.ndarray, weight: float, rng: np.random.Generator) -> np.ndarray:
    clouds = sum(part * _smooth(x.shape[:2], part, rng) for part in (0.2, 0.1, 0.05))
    layer = 0.85 + 0.1 * clouds / clouds.std()
    return (1 - weight) * x + weight * layer[..., None]


def _by(fn: Callable[[torch.Tensor, float], torch.Tensor]) -> Callable:
    """Make a corruption of a function of torchvision, on uint8 tensors with the channels first."""

    def apply(x: np.ndarray, value: float, _rng: np.random.Generator) -> np.ndarray:
        return fn(torch.from_numpy(_whole(x)).permute(2, 0, 1), value).permute(1, 2, 0).numpy() / 255

    return apply


def _pixelated(x: torch.Tensor, part: float) -> torch.Tensor:
    small = functional.resize(x, [max(1, round(part * side)) for side in x.shape[-2:]], antialias=True)
    return functional.resize(small, list(x.shape[-2:]), functional.InterpolationMode.NEAREST)


# Each of an image (H, W, 3) from 0 to 1 in float, the setting and a source of random numbers.
CORRUPTIONS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": lambda x, v, rng: x + v * rng.standard_normal(x.shape),
    "shot_noise": lambda x, v, rng: rng.poisson(x * v) / v,
    "impulse_noise": lambda x, v, rng: random_noise(x, mode="s&p", amount=v, rng=rng),
    # A blur narrower than 0.4 pixels would change nothing.
    "gaussian_blur": lambda x, v, rng: gaussian(x, max(0.4, v * x.shape[0] / SIDE), mode="nearest", channel_axis=-1),
    "defocus_blur": lambda x, v, rng: _blurred(x, disk(max(1, round(v * x.shape[0] / SIDE))).astype(x.dtype)),
    "motion_blur": _motion,
    "fog": _fog,
    "brightness": _by(functional.adjust_brightness),
    "contrast": _by(functional.adjust_contrast),
    "saturation": _by(functional.adjust_saturation),
    "posterize": _by(functional.posterize),
    "pixelate": _by(_pixelated),
    "jpeg": _by(functional.jpeg),
    "elastic": _elastic,
    "rotate": lambda x, v, rng: _rotated(x, v * rng.choice([-1, 1])),
    "translate": lambda x, v, rng: _shifted(x, v * x.shape[0] / SIDE, rng.uniform(0, 2 * np.pi)),
}


# The n-th image of a film from its first one, a direction, a sign, and a source of random numbers.
FILMS: dict[str, Callable[[np.ndarray, int, float, int, np.random.Generator], np.ndarray]] = {
    "translate": lambda x, n, angle, _sign, _rng: _shifted(x, 1.0 * n, angle),
    "rotate": lambda x, n, _angle, sign, _rng: _rotated(x, sign * 1.0 * n),
    "brightness": lambda x, n, _angle, sign, _rng: x * 1.04 ** (sign * n),
    "gaussian_noise": lambda x, _n, _angle, _sign, rng: x + 0.04 * rng.standard_normal(x.shape),
}


def choose_kinds(given: str | Sequence[str], known: Iterable[str]) -> list[str]:
    """Return the names of corruptions or films that somebody chose; ``all`` stands for all that are known.

    Raises:
        ValueError: one that is not known.

    >>> choose_kinds("all", FILMS) == list(FILMS), choose_kinds(["fog"], CORRUPTIONS)
    (True, ['fog'])
    """
    known = list(known)
    if given == "all":
        return known
    for name in given:
        choice("corruption or film", name, known)
    return list(given)


def corrupt(
    images: np.ndarray, kind: str, severity: int, seed: int = 0, numbers: Iterable[int] | None = None
) -> np.ndarray:
    """Return images made worse, of the same shape and dtype.

    Args:
        images: ``(B, H, W, 3)`` of uint8.
        kind: of ``CORRUPTIONS``.
        severity: 1 to 5, see ``SEVERITIES``.
        seed: of the draws.
        numbers: that tell the images apart, such as their places in the data set; by default their places here.

    Raises:
        ValueError: another shape or dtype, an unknown kind or severity, or not one number per image.
    """
    choice("corruption", kind, list(CORRUPTIONS))
    if severity not in range(1, 6):
        raise ValueError(f"severity must be 1 to 5, got {severity!r}")
    value = SEVERITIES[kind][severity - 1]
    made = _each(images, numbers, seed, kind, lambda x, rng: [CORRUPTIONS[kind](x, value, rng)])
    return made[:, 0]


def film(
    images: np.ndarray, kind: str, length: int = 8, seed: int = 0, numbers: Iterable[int] | None = None
) -> np.ndarray:
    """Return a film of every image, ``(B, length, H, W, 3)``, that begins with it and changes little by little.

    By a pixel in one random direction, by a degree, by 4 % of brightness; or, ``gaussian_noise``, by noise of 4 %
    that is new in every image and so makes no film: compare each with the first.

    Args:
        images: see ``corrupt``, as seed and numbers.
        kind: of ``FILMS``.
        length: images of a film.
        seed: of the draws.
        numbers: of the images.

    Raises:
        ValueError: an unknown kind, fewer than 2 images, or what ``corrupt`` refuses.
    """
    choice("film", kind, list(FILMS))
    if length < 2:
        raise ValueError(f"a film needs 2 images or more, got {length}")

    def frames(x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        way = (0.0, 1) if kind == "gaussian_noise" else (rng.uniform(0, 2 * np.pi), rng.choice([-1, 1]))
        return [x, *(FILMS[kind](x, n, *way, rng) for n in range(1, length))]

    return _each(images, numbers, seed, f"film {kind}", frames)


def _whole(x: np.ndarray) -> np.ndarray:
    return (x.clip(0, 1) * 255).round().astype(np.uint8)


def _each(images: np.ndarray, numbers: Iterable[int] | None, seed: int, name: str, make: Callable) -> np.ndarray:
    """Return the images that ``make`` gives for each image, side by side on all cores."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"expected images (B, H, W, 3) of uint8, got {images.shape} {images.dtype}")
    numbers = list(range(len(images)) if numbers is None else map(int, numbers))
    if len(numbers) != len(images):
        raise ValueError(f"need one number per image, got {len(numbers)} for {len(images)} images")

    def one(place: int) -> np.ndarray:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), numbers[place]])
        return np.stack([_whole(x) for x in make(images[place] / 255.0, rng)])

    with ThreadPoolExecutor(cpu_count()) as pool:
        return np.stack(list(pool.map(one, range(len(images)))))
