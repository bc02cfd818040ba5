"""The lab, behind one door: data, training, analysis, the study and its benchmarks. Its packages are extras."""

from importlib.util import find_spec

__all__ = ["require"]


def require(extra: str, *packages: str) -> None:
    """Refuse to go on without packages that an extra of gcplib installs.

    Args:
        extra: its name.
        packages: names to import.

    Raises:
        ModuleNotFoundError: some are missing; the message has the command that installs them.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        text = f"gcplib.lab needs {', '.join(missing)}: pip install 'gcplib[{extra}]'"
        raise ModuleNotFoundError(text, name=missing[0])


require("train", "filelock", "lightning_fabric", "pandas", "PIL", "psutil", "pydantic", "safetensors", "tqdm", "yaml")
