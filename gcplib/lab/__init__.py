"""The lab, behind one door: data, training, analysis, the study and its benchmarks. Its packages are extras."""

import importlib.metadata
import re
from importlib.util import find_spec

__all__ = ["remedy"]

# Packages whose modules have other names.
PACKAGES = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def remedy(module: str) -> str:
    """Return the command that installs a missing module with an extra of gcplib; nothing if none has it."""
    name = module.partition(".")[0]
    package = re.escape(PACKAGES.get(name, name.replace("_", "-")))
    for line in importlib.metadata.requires("gcplib") or ():
        if found := re.match(rf"{package}\b.*extra == ['\"](\w+)['\"]", line):
            return f"; it comes with: pip install 'gcplib[{found[1]}]'"
    return ""


for _name in ("filelock", "lightning_fabric", "pandas", "PIL", "psutil", "pydantic", "safetensors", "tqdm", "yaml"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(f"gcplib.lab needs {_name}{remedy(_name)}", name=_name)
