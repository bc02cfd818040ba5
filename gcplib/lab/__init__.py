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
    package = PACKAGES.get(name, name.replace("_", "-"))
    lines = [
        re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", line) for line in importlib.metadata.requires("gcplib") or ()
    ]
    extras = [(found[1], found[2]) for found in lines if found]
    fitting = [extra for required, extra in extras if required == package]
    # The smallest: an extra that is made of others requires what they do.
    smallest = min(fitting, key=[extra for _, extra in extras].count, default=None)
    return f"; it comes with: pip install 'gcplib[{smallest}]'" if smallest else ""


for _name in ("filelock", "lightning_fabric", "pandas", "PIL", "psutil", "pydantic", "safetensors", "tqdm", "yaml"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(f"gcplib.lab needs {_name}{remedy(_name)}", name=_name)
