"""Stanford Dogs."""

from __future__ import annotations

from pathlib import Path

from gcplib.lab.data.layouts.listing import Layout, Listing
from gcplib.lab.data.layouts.reading import find_folder, read_mat

__all__ = ["LAYOUT"]


def _find(root: Path) -> Path | None:
    # lists.tar holds the lists without a folder, so that they may lie in either.
    return root if find_folder(root, ("lists", ""), "train_list.mat") else None


def _read(root: Path) -> Listing:
    """Read Stanford Dogs. It has no coarse classes: the names of breeds follow no pattern ("Shih-Tzu")."""
    lists = find_folder(root, ("lists", ""), "train_list.mat")
    if lists is None:
        raise ValueError("no train_list.mat in lists/ or here")
    paths, classes, splits = [], [], []
    folders: dict[int, str] = {}
    for split in ("train", "test"):
        file = lists / f"{split}_list.mat"
        rows, labels = read_mat(file, "file_list"), read_mat(file, "labels")
        if len(rows) != len(labels):
            raise ValueError(f"{file.name} has {len(rows)} images and {len(labels)} labels")
        for path, label in zip(map(str, rows), map(int, labels), strict=True):
            folder = path.split("/")[0]
            if folders.setdefault(label, folder) != folder:
                raise ValueError(f"{file.name} has the class {label} in two folders: {folders[label]}, {folder}")
            paths.append(f"Images/{path}")
            classes.append(label)
            splits.append(split)
    order = sorted(folders)
    numbers = {label: number for number, label in enumerate(order)}
    # "n02085620-Chihuahua": the number is WordNet's.
    names = [folders[label].partition("-")[2].replace("_", " ") or folders[label] for label in order]
    return Listing(root, paths, [numbers[label] for label in classes], splits, names, None)


LAYOUT = Layout(
    _read,
    "Stanford Dogs as published: Images/<class>/<image>.jpg, and train_list.mat and test_list.mat in lists/ or "
    "beside Images",
    _find,
    {"Stanford Dogs": {"train": 12000, "test": 8580, "classes": 120}},
)
