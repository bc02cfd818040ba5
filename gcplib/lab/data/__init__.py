"""Data sets: the embedded Typefaces benchmark, drawn from pinned fonts, and images on the user's disk."""

from gcplib.lab.data.check import check_images, require_sound
from gcplib.lab.data.choose import choose_data, load_data
from gcplib.lab.data.images import Images, ImagesSpec, load_images
from gcplib.lab.data.typefaces import Pair, Typefaces, TypefacesSpec, load_typefaces, pair

__all__ = [
    "Images",
    "ImagesSpec",
    "Pair",
    "Typefaces",
    "TypefacesSpec",
    "check_images",
    "choose_data",
    "load_data",
    "load_images",
    "load_typefaces",
    "pair",
    "require_sound",
]
