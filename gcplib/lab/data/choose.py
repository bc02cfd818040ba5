"""The data of a run, whichever kind it is: from a spec, or from the parameters of a notebook."""

from __future__ import annotations

from gcplib.lab.data.dataset import choice
from gcplib.lab.data.images import Images, ImagesSpec, load_images
from gcplib.lab.data.readers import DATASETS
from gcplib.lab.data.typefaces import Typefaces, TypefacesSpec, load_typefaces

__all__ = ["choose_data", "load_data"]


def load_data(spec: TypefacesSpec | ImagesSpec) -> Typefaces | Images:
    """Return the images of a spec: drawn, if need be, or listed on the user's disk.

    Raises:
        TypeError: it is no spec. Other errors: see ``load_typefaces`` and ``load_images``.
    """
    if isinstance(spec, TypefacesSpec):
        return load_typefaces(spec)
    if isinstance(spec, ImagesSpec):
        return load_images(spec)
    raise TypeError(f"expected a TypefacesSpec or an ImagesSpec, got {spec!r} ({type(spec).__name__})")


def choose_data(
    dataset: str, root: str = "", *, families: int, train: int, validation: int, test: int, pixels: int
) -> TypefacesSpec | ImagesSpec:
    """Return the spec that the parameters of a notebook describe.

    Args:
        dataset: ``typefaces``, or one on disk: a name of ``gcplib.lab.data.readers.DATASETS``, such as ``cub``
            or ``folder`` (any folder of images) and ``csv``.
        root: its folder; typefaces have none, and ``elpv`` needs none where its package is installed.
        families: count of typefaces. It and the next three say nothing about data from disk, which has its own
            classes and images; a tenth of its training images is held out.
        train: training images per typeface.
        validation: validation images per typeface.
        test: test images per typeface.
        pixels: side of an image.

    Raises:
        ValueError: an unknown data set, a root that is missing, or one for typefaces, which have none.

    >>> choose_data("cub", "~/data", families=12, train=10, validation=4, test=6, pixels=448)
    ImagesSpec(dataset='cub', root='~/data', pixels=448, validation=0.1, seed=0, resize='shorter', scale=None, skip=(),
        test=0.25, skip_corrupt=False)
    """
    choice("data set", dataset, ("typefaces", *DATASETS))
    if dataset == "typefaces":
        if root:
            raise ValueError(
                f"root is {str(root)!r}, but typefaces are drawn on this machine and have no folder; leave it empty, "
                f"or give another dataset: {', '.join(map(repr, DATASETS))}"
            )
        return TypefacesSpec(families=families, train=train, validation=validation, test=test, pixels=pixels)
    return ImagesSpec(dataset, root, pixels)
