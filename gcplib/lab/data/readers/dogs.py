"""Stanford Dogs."""

from __future__ import annotations

from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, listing_of
from gcplib.lab.data.readers.reading import find_folder, folder_with, read_mat

# lists.tar holds the lists without a folder, so that they may lie in either.
_MARK = {"places": ("lists", ""), "mark": "train_list.mat"}


def _read(root: Path) -> Listing:
    """Read Stanford Dogs. It has no coarse classes: the names of breeds follow no pattern ("Shih-Tzu")."""
    lists = folder_with(root, **_MARK)
    rows = []
    folders: dict[int, str] = {}
    for split in ("train", "test"):
        file = lists / f"{split}_list.mat"
        paths, labels = read_mat(file, "file_list"), read_mat(file, "labels")
        if len(paths) != len(labels):
            raise ValueError(f"{file.name} has {len(paths)} images and {len(labels)} labels")
        for path, label in zip(map(str, paths), map(int, labels), strict=True):
            folder = path.split("/")[0]
            if folders.setdefault(label, folder) != folder:
                raise ValueError(f"{file.name} has the class {label} in two folders: {folders[label]}, {folder}")
            rows.append((f"Images/{path}", label, split))
    # "n02085620-Chihuahua": the number is WordNet's.
    names = {label: text.partition("-")[2].replace("_", " ") or text for label, text in sorted(folders.items())}
    return listing_of(root, rows, names)


READER = Reader(
    _read,
    "Stanford Dogs as published: Images/<class>/<image>.jpg, and train_list.mat and test_list.mat in lists/ or "
    "beside Images",
    lambda root: root if find_folder(root, **_MARK) else None,
    {"Stanford Dogs": {"train": 12000, "test": 8580, "classes": 120}},
)
