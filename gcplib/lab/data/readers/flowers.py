"""Oxford Flowers 102."""

from __future__ import annotations

from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, listing_of
from gcplib.lab.data.readers.reading import find_folder, folder_with, read_mat

_PLACES = ("", "flowers-102")  # the second is what torchvision calls it
_LISTS = {"trnid": "train", "valid": "validation", "tstid": "test"}
# The files number the classes; their names, in this order, are on the page of the data set, question mark included.
_NAMES = """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid,
bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris,
globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, pincushion flower,
fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke, sweet
william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya, cape
flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia, bolero deep
blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia, wild pansy, primula, sunflower,
pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink-yellow dahlia?, cautleya spicata, japanese
anemone, black-eyed susan, silverbush, californian poppy, osteospermum, spring crocus, bearded iris, windflower,
tree poppy, gazania, azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus, toad lily,
anthurium, frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen, watercress,
canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea, camellia, mallow, mexican petunia, bromelia,
blanket flower, trumpet creeper, blackberry lily
"""
NAMES = tuple(" ".join(_NAMES.split()).split(", "))


def _find(root: Path) -> Path | None:
    base = find_folder(root, _PLACES, "imagelabels.mat")
    return base if base and (base / "setid.mat").is_file() and (base / "jpg").is_dir() else None


def _read(root: Path) -> Listing:
    """Read Oxford Flowers 102, split as published, with its own validation images. There are no coarse classes.

    The published training images are few, 10 of every class, and most images are for test; some papers train on the
    test images and test on the training images.
    """
    base = folder_with(root, _PLACES, "imagelabels.mat")
    labels = [int(label) for label in read_mat(base / "imagelabels.mat", "labels")]
    if odd := sorted({label for label in labels if not 1 <= label <= len(NAMES)}):
        raise ValueError(f"imagelabels.mat has the label {odd[0]}, where numbers from 1 to {len(NAMES)} are expected")
    rows = []
    splits: dict[int, str] = {}
    for name, split in _LISTS.items():
        for number in map(int, read_mat(base / "setid.mat", name)):
            if not 1 <= number <= len(labels):
                raise ValueError(f"setid.mat has the image {number}, and imagelabels.mat has {len(labels)} labels")
            if splits.setdefault(number, split) != split:
                raise ValueError(f"setid.mat has the image {number} in {splits[number]} and in {split}")
            rows.append((f"jpg/image_{number:05d}.jpg", labels[number - 1], split))
    return listing_of(base, rows, {label: NAMES[label - 1] for label in sorted(set(labels))})


READER = Reader(
    _read,
    "Oxford Flowers 102 as published, here or in flowers-102/: imagelabels.mat, setid.mat and jpg/image_<number>.jpg",
    _find,
    {"Oxford Flowers 102": {"train": 1020, "validation": 1020, "test": 6149, "classes": 102}},
)
