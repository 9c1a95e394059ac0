"""Stage 2, ModelNet40 in h5 files: a folder <-> `LabelledClouds`, points (S, N, 3), y up.

Two packings are read in place: `modelnet40_ply_hdf5_2048/ply_data_train0.h5` ... with its lists,
and `modelnet40_hdf5_2048/train0.h5` ... . `pixcloud data make` and the embedded data are written
in the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from pixcloud.atomic import write_bytes
from pixcloud.data import labelled_h5
from pixcloud.errors import DataError, MissingSplitError
from pixcloud.types import LabelledClouds

FOLDER = "modelnet40_ply_hdf5_2048"
OTHER_FOLDER = "modelnet40_hdf5_2048"
CLASS_LIST = "shape_names.txt"
NAME = "modelnet40"
CLASSES = [
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone",
    "cup", "curtain", "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard",
    "lamp", "laptop", "mantel", "monitor", "night_stand", "person", "piano", "plant", "radio",
    "range_hood", "sink", "sofa", "stairs", "stool", "table", "tent", "toilet", "tv_stand", "vase",
    "wardrobe", "xbox",
]  # fmt: skip
PUBLISHED_FILES = {"train": 5, "test": 2}
Split = Literal["train", "test"]


def read_modelnet(root: Path, split: str) -> LabelledClouds:
    """Read a split of a ModelNet40 packing, or of data in its layout.

    Lists such as `train_files.txt` hold paths of another machine: only the base names count, and
    each must be there. Without a list the files are taken in the order of their numbers.

    Args:
        root: The folder of the h5 files, or the one above it.
        split: "train" or "test".

    Returns:
        Clouds (S, N, 3) float32 as stored, and labels (S,) int64. Without `shape_names.txt` the
        classes are called "0", "1", ... up to the highest label of both splits. The name is
        "modelnet40" where the data say so, as in `data_name`.

    Raises:
        DataError: if a folder, list or file is missing.
        FileFormatError: if a file is broken, or holds something of another shape.

    Example:
        >>> train = read_modelnet(Path("/data/modelnet40_ply_hdf5_2048"), "train")  # doctest: +SKIP
        >>> train.points.shape  # doctest: +SKIP
        (9840, 2048, 3)
    """
    if split not in ("train", "test"):
        raise DataError(f"ModelNet40 has the splits 'train' and 'test', not '{split}'")
    folder = _folder(root)
    files = _files(folder, split)
    loaded = []
    for path in files:
        points, labels = labelled_h5.read_datasets(path, [("data",), ("label",)])
        loaded.append((path, labelled_h5.checked_clouds(path, points), labels))
    names = folder / CLASS_LIST
    listed = names.is_file()
    if listed:
        classes = labelled_h5.read_lines(names)
    else:
        own = [(path, labels) for path, _, labels in loaded]
        classes = _numbered_classes([*own, *_labels_of_the_other(folder, split)])
    labels = np.concatenate(
        [labelled_h5.checked_labels(p, found, len(x), len(classes)) for p, x, found in loaded]
    )
    points = labelled_h5.same_points([(path, points) for path, points, _ in loaded])
    if not len(points):
        raise DataError(f"{folder}: the {split} split holds no clouds")
    name = data_name(folder, len(classes), classes if listed else None)
    if name == NAME and not (folder / f"{split}_files.txt").is_file():
        prefixes = (f"ply_data_{split}", split)
        labelled_h5.check_published(files, prefixes, PUBLISHED_FILES[split], "ModelNet40")
    return LabelledClouds(name=name, split=split, points=points, labels=labels, classes=classes)


def _labels_of_the_other(folder: Path, split: str) -> list[tuple[Path, np.ndarray]]:
    """Files of the other split, where there is one, and their labels."""
    try:
        files = _files(folder, "test" if split == "train" else "train")
    except MissingSplitError:
        return []
    return [(path, labelled_h5.read_datasets(path, [("label",)])[0]) for path in files]


def _numbered_classes(found: list[tuple[Path, np.ndarray]]) -> list[str]:
    """Classes without names: a split that lacks the last ones has as many as the other."""
    numbers = [labelled_h5.whole_numbers(path, "label", labels) for path, labels in found]
    highest = max((int(labels.max()) for labels in numbers if labels.size), default=-1)
    return [str(number) for number in range(highest + 1)]


def data_name(folder: Path, number: int, listed: list[str] | None) -> str:
    """What tables and results call the data: ModelNet40 only where it is.

    It is where the listed classes are its own. Without a list the folder's name is believed if the
    labels are 40. Everything else goes by the folder that holds it, under "other-" if that lays
    claim to the name.

    Args:
        folder: The folder of the h5 files.
        number: How many classes there are.
        listed: Their names from `shape_names.txt`, or None without it.

    >>> data_name(Path("/data/modelnet40_ply_hdf5_2048"), 40, CLASSES)
    'modelnet40'
    >>> data_name(Path("/data/mine/modelnet40_ply_hdf5_2048"), 2, ["cup", "mug"])
    'mine'
    """
    folder = folder.absolute()
    claims = NAME in folder.name.lower()
    if sorted(listed) == CLASSES if listed is not None else claims and number == len(CLASSES):
        return NAME
    # Data made by us and by others lie in a folder of the published name: it tells nothing then.
    own = folder.parent.name if folder.name in (FOLDER, OTHER_FOLDER) else folder.name
    return f"other-{own}" if NAME in own.lower() else own or folder.name


def lies_in(folder: Path) -> bool:
    """Whether numbered h5 files lie directly in a folder, by their names."""
    names = (f"{before}{split}0.h5" for before in ("ply_data_", "") for split in ("train", "test"))
    return any((folder / name).is_file() for name in names)


def _folder(root: Path) -> Path:
    for folder in (root / FOLDER, root / OTHER_FOLDER, root):
        if folder.is_dir() and next(folder.glob("*.h5"), None):
            return folder
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected {FOLDER}/ or its h5 files there")
    raise DataError(
        f"{root}: no ModelNet40 there; expected ply_data_train0.h5 or train0.h5, in it, in "
        f"{FOLDER}/ or in {OTHER_FOLDER}/"
    )


def _files(folder: Path, split: str) -> list[Path]:
    listing = folder / f"{split}_files.txt"
    if listing.is_file():
        bases = [
            line.replace("\\", "/").rsplit("/", 1)[-1] for line in labelled_h5.read_lines(listing)
        ]
        files = [folder / base for base in bases]
        if twice := [base for base in bases if bases.count(base) > 1]:
            raise DataError(f"{listing}: names {twice[0]} twice; leave one out")
        if missing := [path.name for path in files if not path.is_file()]:
            raise DataError(f"{folder}: {listing.name} names {missing[0]}, which is missing")
        if files:
            return files
    for prefix in (f"ply_data_{split}", split):
        if files := labelled_h5.numbered(folder, prefix):
            return files
    raise MissingSplitError(
        f"{folder}: no {split} split; expected ply_data_{split}0.h5 or {split}0.h5 in it"
    )


def write_modelnet(
    root: Path, clouds: LabelledClouds, normals: np.ndarray | None = None
) -> list[Path]:
    """Write a split in the layout of `modelnet40_ply_hdf5_2048`; the bytes depend on it alone.

    A split that is there is replaced; a kill leaves one that is whole, or that is refused.

    Args:
        root: The folder that holds, or will hold, `modelnet40_ply_hdf5_2048/`.
        clouds: Points (S, N, 3), labels (S,), classes, and the split's name.
        normals: (S, N, 3) or None.

    Returns:
        The h5 files.

    Raises:
        DataError: if shapes, labels or coordinates are what `read_modelnet` would refuse, or the
            class list differs from the one that is there.
    """
    folder = root / FOLDER
    labelled_h5.check_writable(folder, clouds)
    names = "".join(f"{name}\n" for name in clouds.classes)
    classes = folder / CLASS_LIST
    if classes.is_file() and classes.read_text("utf-8") != names:
        raise DataError(f"{classes}: lists other classes than the {clouds.split} split to write")
    datasets: dict[str, np.ndarray] = {
        "data": clouds.points.astype(np.float32),
        "label": clouds.labels[:, None].astype(np.int64),
    }
    if normals is not None:
        if normals.shape != clouds.points.shape:
            raise DataError(f"{folder}: normals {normals.shape} for points {clouds.points.shape}")
        datasets["normal"] = normals.astype(np.float32)
    write_bytes(classes, names.encode())
    listing = folder / f"{clouds.split}_files.txt"
    return labelled_h5.write_split(folder, f"ply_data_{clouds.split}", datasets, listing)
