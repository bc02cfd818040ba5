"""The pages of ``docs/`` that are written from what they describe: kept measurements, docstrings, recipes, profiles."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

from gcplib.lab.bench.derivatives_page import derivatives_page
from gcplib.lab.bench.gpu_results import gpu_page
from gcplib.lab.bench.layers import speed_page
from gcplib.lab.bench.networks import training_speed_page
from gcplib.lab.bench.transforms import transforms_page
from gcplib.lab.data.readers import DATASETS
from gcplib.lab.files import project_root, write_text
from gcplib.lab.markdown import docstring, page, table
from gcplib.lab.study.evidence_pages import claims_page, verdicts_page
from gcplib.lab.training.published import list_recipes, load_recipe
from gcplib.lab.validation import read_yaml
from gcplib.nn import create_pool, list_pools

CHANNELS, REDUCED = 112, 64  # of the library's own backbone


def pools_page() -> str:
    """Return the page of all pools, from the registry."""
    rows, details = [], {}
    for name in list_pools():
        pool = create_pool(name, CHANNELS, reduction=REDUCED)
        kind, settings = type(pool).__name__, re.sub(r"^\d+, out_features=\d+(, )?", "", pool.extra_repr())
        rows.append((f"`{name}`", f"[{kind}](#{kind.lower()})", f"{pool.out_features:,}", settings))
        details[kind] = f"## {kind}\n\n{docstring(type(pool))}"
    lead = f"`length` is that of an image's vector after a reduction to {REDUCED} channels."
    overview = table(["name", "class", "length", "settings"], rows)
    parts = [f"{lead} More: [layers.md](layers.md).", overview, "## create_pool", docstring(create_pool)]
    return page("Pools", *parts, *details.values())


def recipes_page() -> str:
    """Return the page of the published recipes, from their files."""
    parts = []
    for file, group in itertools.groupby(list_recipes(), lambda name: name.partition("/")[0]):
        recipe = load_recipe((names := list(group))[0])
        parts += [f"## {file}", f"{recipe.title}. As {', '.join(f'`{name}`' for name in names)}."]
        parts += [f"Source: {recipe.source}.", f"Published: {recipe.published}.", "Differences from the source:"]
        parts += ["\n".join(f"* {text}" for text in recipe.differences)]
    lead = "`python -m gcplib train --config NAME --set data.root=FOLDER` trains one; see [running.md](running.md)."
    return page("Published recipes", lead, *parts)


def datasets_page() -> str:
    """Return the page of the data sets that can be read from disk, from their readers."""
    parts = []
    for name, reader in DATASETS.items():
        counts = [
            f"* {title}: " + ", ".join(f"{count:,} {what}" for what, count in numbers.items())
            for title, numbers in reader.published.items()
        ]
        parts += [f"## {name}", f"Expected under `root`: {reader.expected.replace('<', '&lt;')}."]
        parts += [docstring(getattr(reader.read, "func", reader.read)), "\n".join(counts)]
    lead = "What `dataset` and `data.dataset` may be; counts are as published."
    return page("Data sets on disk", f"{lead} How to use them: [data](../data/README.md).", *parts)


def profiles_page() -> str:
    """Return the page of the study's profiles, from their files."""
    parts = []
    for path in sorted((project_root() / "notebooks" / "profiles").glob("*.yaml")):
        profile, comment = read_yaml(path), re.match(r"(?:#.*\n)*", path.read_text(encoding="utf-8"))[0]
        parts += [f"## {path.stem}", f"{profile['description']}."]
        parts += [re.sub(r"^# ?", "", comment, flags=re.MULTILINE).strip()]
        rows = [(f"`{name}`", f"`{value}`") for name, value in profile.get("shared", {}).items()]
        parts += [table(["given to every notebook", ""], rows)] if rows else []
        grids = ", ".join(profile.get("runs", {})) or "none"
        parts += [f"{len(profile['notebooks'])} notebooks; grids of runs: {grids}."]
    lead = "`make study PROFILE=NAME` runs one. Their files are in `notebooks/profiles`; see [running.md](running.md)."
    return page("Profiles", lead, *parts)


def notebooks_page() -> str:
    """Return the page of the course, from the notebooks' own beginnings."""
    parts = []
    for path in sorted((project_root() / "notebooks").glob("*.ipynb")):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        title, _, rest = first.removeprefix("# ").partition("\n")
        parts += [f"## {title}", f"[{path.name}](../notebooks/{path.name})"]
        # Links of a notebook lead from its own folder.
        parts += [re.sub(r"\]\((\d\d_\w+\.ipynb)", r"](../notebooks/\1", rest.strip())]
    return page("Notebooks", *parts)


PAGES: dict[str, Callable[[], str]] = {
    "verdicts.md": verdicts_page,
    "claims.md": claims_page,
    "notebooks.md": notebooks_page,
    "profiles.md": profiles_page,
    "pools.md": pools_page,
    "transforms.md": transforms_page,
    "recipes.md": recipes_page,
    "data_sets.md": datasets_page,
    "speed.md": speed_page,
    "derivatives.md": derivatives_page,
    "training_speed.md": training_speed_page,
    "gpu.md": gpu_page,
}


def write_page(name: str) -> Path:
    """Write one of ``PAGES``, and return the file."""
    return write_text(project_root() / "docs" / name, PAGES[name]())


def stale_pages() -> list[Path]:
    """Return the pages that are missing or would be written differently."""
    paths = {project_root() / "docs" / name: make for name, make in PAGES.items()}
    return [path for path, make in paths.items() if not path.is_file() or path.read_text(encoding="utf-8") != make()]
