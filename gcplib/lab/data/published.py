"""Where published data sets are: their files, with sizes and checksums and who says so, and whom to ask for others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["ELSEWHERE", "PUBLISHED", "File", "Published"]


class File(NamedTuple):
    """One file of a data set. What no source confirms is None, and is not checked."""

    url: str
    size: int | None  # in bytes
    checksum: str | None  # such as "md5:0123"
    source: str  # who says so
    name: str = ""  # of the file here, where the last part of the address is none

    @property
    def filename(self) -> str:
        """The name of the file on this machine."""
        return self.name or self.url.rpartition("/")[2]


class Published(NamedTuple):
    """A data set that anybody may download."""

    title: str
    files: tuple[File, ...]
    inside: str = ""  # the folder in the archive that becomes the data set's


_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
# The commit whose README announces the validation images.
_GROCERY = "b545e4c5db0a77d9274bc7753eb409f83772a3a5"
_TFDS = "TensorFlow Datasets, url_checksums"


def _listed(folder: str, source: str, *files: tuple[str, int, str]) -> tuple[File, ...]:
    """Files of one folder: names, sizes, and the SHA-256 sums that one list has of them."""
    return tuple(File(f"{folder}/{name}", size, f"sha256:{sum}", f"{_TFDS}/{source}.txt") for name, size, sum in files)


PUBLISHED: Mapping[str, Published] = {
    "cub": Published(
        "CUB-200-2011",
        (
            File(
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
                1150585339,
                # Others give the MD5 97eceeb196236b17998738112f37df78 for the file at this address.
                "sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
                f"{_TFDS}/caltech_birds2011.txt (for the publishers' copy on Google Drive)",
                "CUB_200_2011.tgz",
            ),
        ),
    ),
    "aircraft": Published(
        "FGVC-Aircraft 2013b",
        (
            File(
                f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                # The publishers say 2.75 GB; two public download scripts check these bytes, and neither is official.
                2753340328,
                # The publishers' own page of the sum could not be read; torchvision checks none.
                "md5:d4acdd33327262359767eeaa97a4f732",
                "torchvision for R (mlverse), dataset-fgvc.R, and Nevis (DeepMind), fgvc_aircraft",
            ),
        ),
    ),
    "dogs": Published(
        "Stanford Dogs",
        _listed(
            "http://vision.stanford.edu/aditya86/ImageNetDogs",
            "stanford_dogs",
            ("images.tar", 793579520, "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58"),
            ("lists.tar", 481280, "34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c"),
        ),
    ),
    "flowers": Published(
        "Oxford Flowers 102",
        _listed(
            f"{_OXFORD}/flowers/102",
            "oxford_flowers102",
            ("102flowers.tgz", 344862509, "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246"),
            ("imagelabels.mat", 502, "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d"),
            ("setid.mat", 14989, "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd"),
        ),
    ),
    "pets": Published(
        "Oxford-IIIT Pets",
        _listed(
            f"{_OXFORD}/pets/data",
            "oxford_iiit_pet",
            ("images.tar.gz", 791918971, "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d"),
            ("annotations.tar.gz", 19173078, "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91"),
        ),
    ),
    "grocery": Published(
        "Grocery Store",
        (
            File(
                f"https://github.com/marcusklasson/GroceryStoreDataset/archive/{_GROCERY}.tar.gz",
                # Nobody publishes size or sum of the archive, which GitHub packs anew when asked: the counts of the
                # check are all that tells a damaged one.
                None,
                None,
                "none; the commit is pinned",
                f"GroceryStoreDataset-{_GROCERY}.tar.gz",
            ),
        ),
        inside=f"GroceryStoreDataset-{_GROCERY}",
    ),
    "ucm": Published(
        "UC Merced Land Use",
        _listed(
            "http://weegee.vision.ucmerced.edu/datasets",
            "uc_merced",  # TorchGeo gives the MD5 5b7ec56793786b6dc8a908e8854ac0e4
            ("UCMerced_LandUse.zip", 332468434, "06c539ef28703a58fb07bd2837991ac7c48b813b00bb12ac197efd813a18daeb"),
        ),
    ),
    "dtd": Published(
        "DTD",
        _listed(
            f"{_OXFORD}/dtd/download",
            "dtd",
            ("dtd-r1.0.1.tar.gz", 625239812, "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205"),
        ),
    ),
}

# What is no longer published, asks for an account or consent, or comes by another way.
ELSEWHERE: Mapping[str, str] = {
    "cars": "Stanford Cars is no longer at the address of its publishers (ai.stanford.edu/~jkrause/cars); ask them, or "
    "whoever keeps a copy in your group",
    "inaturalist": "iNaturalist asks for consent to its terms of use; its archives are named at "
    "https://github.com/visipedia/inat_comp",
    "imagenet": "ImageNet asks for an account and consent to its terms, at https://www.image-net.org/download",
    "aid": "AID is given out from pages that ask for a browser; see https://captain-whu.github.io/AID/",
    "nwpu": "NWPU-RESISC45 is given out from a page that asks for a browser; look for it by the name of its authors, "
    "Cheng, Han and Lu (2017)",
    "elpv": "ELPV is a package: run `pip install elpv-dataset`, and `gcplib data check --dataset elpv` needs no folder",
}
