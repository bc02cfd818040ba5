"""Data sets: the embedded Typefaces benchmark, drawn on the user's machine from pinned fonts."""

from gcplib.data.pairs import Pair, pair
from gcplib.data.typefaces import Typefaces, TypefacesSpec, load_typefaces

__all__ = ["Pair", "Typefaces", "TypefacesSpec", "load_typefaces", "pair"]
