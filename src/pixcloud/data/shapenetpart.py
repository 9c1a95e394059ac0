"""Stage 2, ShapeNetPart in h5 files: a folder <-> `LabelledClouds` with parts (S, N).

Two packings are read in place: `shapenet_part_seg_hdf5_data/ply_data_train0.h5` ... with parts in
`pid`, and `shapenetpart_hdf5_2048/train0.h5` ... with parts in `seg`. Part numbers run through over
the categories: airplane 0-3, bag 4-5, ... 49. Data of other categories in this layout carry their
own `parts.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.atomic import write_bytes
from pixcloud.data import labelled_h5
from pixcloud.errors import DataError, FileFormatError, MissingSplitError
from pixcloud.types import LabelledClouds

FOLDERS = ("shapenet_part_seg_hdf5_data", "hdf5_data", "shapenetpart_hdf5_2048")
PART_KEYS = ("pid", "seg")
PART_LIST = "parts.json"
SPLITS = ("train", "val", "test")
PUBLISHED_FILES = {"train": 6, "val": 1, "test": 2}
# Categories in label order with their numbers of parts.
PUBLISHED_PARTS = {
    "airplane": 4, "bag": 2, "cap": 2, "car": 4, "chair": 4, "earphone": 3, "guitar": 3,
    "knife": 2, "lamp": 4, "laptop": 2, "motorbike": 6, "mug": 2, "pistol": 3, "rocket": 3,
    "skateboard": 3, "table": 3,
}  # fmt: skip


def read_part_names(root: Path) -> dict[str, list[str]]:
    """Categories in label order, each with the names of its parts in the order of their numbers.

    Raises:
        FileFormatError: if `parts.json` is there and broken.
    """
    path = _folder(root) / PART_LIST
    if not path.is_file():
        return {name: [f"part {i}" for i in range(n)] for name, n in PUBLISHED_PARTS.items()}
    try:
        content: Any = json.loads(path.read_text("utf-8"))
        if not all(isinstance(parts, list) for parts in content.values()):
            raise TypeError("of each category a list of parts")  # a word is none, but its letters
        return {str(name): [str(part) for part in parts] for name, parts in content.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise FileFormatError(
            f'{path}: expected {{"category": ["part", ...]}} ({error})'
        ) from error


def _own_parts(folder: Path) -> bool:
    """Whether the data say which categories and parts they have; else they are the published."""
    return (folder / PART_LIST).is_file()


def part_offsets(part_names: dict[str, list[str]]) -> list[int]:
    """The number of each category's first part, and one more for the end.

    >>> part_offsets({"mug": ["handle", "cup"], "cap": ["peak"]})
    [0, 2, 3]
    """
    return [0, *np.cumsum([len(parts) for parts in part_names.values()]).tolist()]


def read_shapenetpart(root: Path, split: str) -> LabelledClouds:
    """Read a split of ShapeNetPart's h5 packing, or of data in its layout.

    Args:
        root: The folder of the h5 files, or the one above it.
        split: "train", "val" or "test".

    Returns:
        Clouds (S, N, 3), labels (S,) and parts (S, N) int64, numbered through.

    Raises:
        DataError: if the folder or the split is missing.
        FileFormatError: if a file is broken, of another shape, or has parts of another category.
    """
    if split not in SPLITS:
        raise DataError(f"ShapeNetPart has the splits {', '.join(SPLITS)}, not '{split}'")
    folder = _folder(root)
    files = _files(folder, split)
    if not files:
        raise MissingSplitError(
            f"{folder}: no {split} split; expected ply_data_{split}0.h5 or {split}0.h5 in it"
        )
    labelled_h5.check_listed(folder / f"{split}_hdf5_file_list.txt", files)
    part_names = read_part_names(root)
    if not (folder / f"{split}_hdf5_file_list.txt").is_file() and not _own_parts(folder):
        prefixes = (f"ply_data_{split}", split)
        labelled_h5.check_published(files, prefixes, PUBLISHED_FILES[split], "ShapeNetPart")
    points, labels, parts = [], [], []
    for path in files:
        cloud, label, part = labelled_h5.read_datasets(path, [("data",), ("label",), PART_KEYS])
        points.append((path, labelled_h5.checked_clouds(path, cloud)))
        labels.append(labelled_h5.checked_labels(path, label, len(cloud), len(part_names)))
        parts.append(_checked_parts(path, part, cloud.shape[:2], labels[-1], part_names))
    clouds = LabelledClouds(
        name=_name(folder, part_names),
        split=split,
        points=labelled_h5.same_points(points),
        labels=np.concatenate(labels),
        classes=list(part_names),
        parts=np.concatenate(parts),
        part_names=part_names,
    )
    if not len(clouds.points):
        raise DataError(f"{folder}: the {split} split holds no clouds")
    return clouds


def _name(folder: Path, part_names: dict[str, list[str]]) -> str:
    """What tables call the data: ShapeNetPart only where categories and numbers of parts are."""
    counts = {name: len(parts) for name, parts in part_names.items()}
    if list(counts.items()) == list(PUBLISHED_PARTS.items()):
        return "shapenetpart"
    own = folder.parent.name if folder.name in FOLDERS else folder.name
    return f"other-{own}" if own == "shapenetpart" else own


def has_split(root: Path, split: str) -> bool:
    """Whether the folder has files of this split.

    Raises:
        DataError: if there is no ShapeNetPart in the folder.
    """
    return bool(_files(_folder(root), split))


def lies_in(folder: Path) -> bool:
    """Whether h5 files directly in a folder are of clouds with parts, by what is in one of them.

    Where they are broken, their names and the folder's have to do.
    """
    files = [
        path
        for split in SPLITS
        for pattern in (f"ply_data_{split}[0-9]*.h5", f"{split}[0-9]*.h5")
        for path in sorted(folder.glob(pattern))
    ]
    for path in files:
        if names := labelled_h5.dataset_names(path):
            return not names.isdisjoint(PART_KEYS)
    named = folder.name in FOLDERS or any(path.stem.startswith("ply_data_val") for path in files)
    return bool(files) and named


def _files(folder: Path, split: str) -> list[Path]:
    """The files of a split in either packing, which may be none."""
    for prefix in (f"ply_data_{split}", split):
        if files := labelled_h5.numbered(folder, prefix):
            return files
    return []


def _checked_parts(
    path: Path,
    parts: np.ndarray,
    shape: tuple[int, ...],
    labels: np.ndarray,
    part_names: dict[str, list[str]],
) -> np.ndarray:
    if parts.shape != shape:
        raise FileFormatError(f"{path}: 'pid' has shape {parts.shape}, expected {shape}")
    parts = labelled_h5.whole_numbers(path, "pid", parts)
    offsets = np.array(part_offsets(part_names))
    low, high = offsets[labels][:, None], offsets[labels + 1][:, None]
    wrong = ((parts < low) | (parts >= high)).any(axis=1)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise FileFormatError(
            f"{path}: cloud {first} is a {list(part_names)[labels[first]]} and has parts from "
            f"{parts[first].min()} to {parts[first].max()}, expected {low[first, 0]} to "
            f"{high[first, 0] - 1}"
        )
    return parts


def _folder(root: Path) -> Path:
    for folder in (*(root / name for name in FOLDERS), root):
        if folder.is_dir() and any(_files(folder, split) for split in SPLITS):
            return folder
    raise DataError(
        f"{root}: no ShapeNetPart there; expected ply_data_train0.h5 in it or in {FOLDERS[0]}/"
    )


def write_shapenetpart(
    root: Path, clouds: LabelledClouds, part_names: dict[str, list[str]]
) -> list[Path]:
    """Write a split in the layout of ShapeNetPart; the bytes depend on it alone.

    Args:
        root: The folder that holds, or will hold, `shapenet_part_seg_hdf5_data/`.
        clouds: With parts (S, N), numbered through.
        part_names: Categories in label order with the names of their parts.

    Returns:
        The h5 files.

    Raises:
        DataError: if the clouds have no parts, shapes, labels or parts are what
            `read_shapenetpart` would refuse, or another list of parts is there already.
    """
    if clouds.parts is None:
        raise DataError(f"{root}: clouds without part labels cannot be written as ShapeNetPart")
    folder = root / FOLDERS[0]
    labelled_h5.check_writable(folder, clouds)
    if list(part_names) != clouds.classes:
        raise DataError(f"{folder}: parts of {list(part_names)} for classes {clouds.classes}")
    _checked_parts(folder, clouds.parts, clouds.points.shape[:2], clouds.labels, part_names)
    listing, names = folder / PART_LIST, json.dumps(part_names, indent=1) + "\n"
    if listing.is_file() and listing.read_text("utf-8") != names:
        raise DataError(f"{listing}: lists other parts than the {clouds.split} split to write")
    datasets: dict[str, np.ndarray] = {
        "data": clouds.points.astype(np.float32),
        "label": clouds.labels[:, None].astype(np.int64),
        "pid": clouds.parts.astype(np.int64),
    }
    write_bytes(listing, names.encode())
    return labelled_h5.write_split(folder, f"ply_data_{clouds.split}", datasets)
