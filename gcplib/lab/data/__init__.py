"""Data sets: the embedded Typefaces benchmark, drawn from pinned fonts, and pictures on the user's disk."""

from gcplib.lab.data.check import check_pictures, require_sound
from gcplib.lab.data.choose import choose_data, load_data
from gcplib.lab.data.pairs import Pair, pair
from gcplib.lab.data.pictures import Pictures, PicturesSpec, load_pictures
from gcplib.lab.data.typefaces import Typefaces, TypefacesSpec, load_typefaces

__all__ = [
    "Pair",
    "Pictures",
    "PicturesSpec",
    "Typefaces",
    "TypefacesSpec",
    "check_pictures",
    "choose_data",
    "load_data",
    "load_pictures",
    "load_typefaces",
    "pair",
    "require_sound",
]
