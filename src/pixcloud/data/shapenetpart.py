"""Stage 2, ShapeNetPart as HDF5: a folder <-> one split as `LabelledClouds` with parts.

    ROOT/shapenet_part_seg_hdf5_data/ply_data_{train,val,test}{0,1,...}.h5
        data (S, N, 3), label (S, 1) category, pid (S, N) part, numbered through all categories

Categories and parts are the published ones, unless `all_object_categories.txt` names others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixcloud.data.atomic import write_bytes
from pixcloud.data.modelnet import check_split, check_writable, read_labels
from pixcloud.data.numbered_h5 import (
    check_finite,
    flat_labels,
    read_shards,
    smallest_unsigned,
    split_files,
    write_shards,
)
from pixcloud.errors import DataError
from pixcloud.types import LabelledClouds

FOLDER = "shapenet_part_seg_hdf5_data"
FOLDERS = (FOLDER, "hdf5_data")
SPLITS = ("train", "val", "test")
CATEGORY_LIST = "all_object_categories.txt"
# Category, in label order -> number of its parts; parts are numbered through, 0 to 49.
SHAPENETPART = {
    "airplane": 4, "bag": 2, "cap": 2, "car": 4, "chair": 4, "earphone": 3, "guitar": 3,
    "knife": 2, "lamp": 4, "laptop": 2, "motorbike": 6, "mug": 2, "pistol": 3, "rocket": 3,
    "skateboard": 3, "table": 3,
}  # fmt: skip
NUM_PARTS = sum(SHAPENETPART.values())
SPELLINGS = {"motor": "motorbike", "motorcycle": "motorbike", "aeroplane": "airplane"}


def read_shapenetpart(root: Path, split: str) -> LabelledClouds:
    """Read one split of ShapeNetPart in its HDF5 layout.

    Args:
        root: The folder that holds `shapenet_part_seg_hdf5_data/` or `hdf5_data/`, or one of
            these itself.
        split: "train", "val", "test", or "trainval" for the first two together.

    Returns:
        Points (S, N, 3) float32, labels (S,) int64, and parts (S, N) int64.

    Raises:
        DataError: if a folder or file is missing, or the split has no such name.
        FileFormatError: if a file is broken, has other shapes than expected, a category or part
            out of range, or coordinates that are not finite.
    """
    root = Path(root)
    check_split(split, (*SPLITS, "trainval"))
    folder = find_folder(root, "train" if split == "trainval" else split)
    paths = []
    for name in ("train", "val") if split == "trainval" else (split,):
        paths += split_files(folder, f"ply_data_{name}", f"{name}_hdf5_file_list.txt")
    keys = {"data": ("data",), "pid": ("pid", "seg")}
    arrays = read_shards(paths, keys, {"data": "N 3", "pid": "N"})
    points, parts = arrays["data"], arrays["pid"]
    if parts.shape != points.shape[:2]:
        raise DataError(
            f"{folder}: parts have the shape {parts.shape}; expected {points.shape[:2]}, one part "
            "for each point"
        )
    classes = read_categories(folder)
    standard = classes == list(SHAPENETPART)
    last_part = NUM_PARTS if standard else int(parts.max(initial=0)) + 1
    labels = read_labels(paths, len(points))
    return LabelledClouds(
        name="shapenetpart",
        split=split,
        points=check_finite(paths[0], points),
        labels=flat_labels(paths[0], labels, len(classes), "category"),
        classes=classes,
        parts=flat_labels(paths[0], parts, last_part, "part"),
    )


def find_folder(root: Path, split: str) -> Path:
    """The folder in which a split lies.

    Raises:
        DataError: if there is none.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds {FOLDER}/")
    for folder in (*(root / name for name in FOLDERS), root):
        if folder.is_dir() and any(folder.glob(f"ply_data_{split}[0-9]*.h5")):
            return folder
    raise DataError(
        f"{root}: no files of the split {split!r}; expected ply_data_{split}0.h5 here or in "
        f"{' or '.join(name + '/' for name in FOLDERS)}"
    )


def read_categories(folder: Path) -> list[str]:
    """Categories in label order: the published sixteen, or those that the folder's list names."""
    path = folder / CATEGORY_LIST
    if not path.is_file():
        return list(SHAPENETPART)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    # The list of the published set has a synset behind each name, after a tab.
    names = [line.split("\t")[0].strip() for line in lines if line.strip()]
    usual = [SPELLINGS.get(name.lower(), name.lower()) for name in names]
    return list(SHAPENETPART) if usual == list(SHAPENETPART) else names


def part_ranges(clouds: LabelledClouds) -> list[tuple[int, ...]]:
    """The parts of each category, in label order.

    Args:
        clouds: With parts. For the published categories only their names count; for others, the
            parts that occur, so hand in the split with all of them.

    Raises:
        DataError: if the clouds have no parts.

    Example:
        >>> clouds = LabelledClouds(name="", split="", points=np.zeros((1, 1, 3)),
        ...     labels=np.zeros(1), classes=list(SHAPENETPART), parts=np.zeros((1, 1), int))
        >>> part_ranges(clouds)[1]
        (4, 5)
    """
    if clouds.parts is None:
        raise DataError(f"{clouds.name}: these clouds have no parts")
    if clouds.classes == list(SHAPENETPART):
        ends = np.cumsum(list(SHAPENETPART.values())).tolist()
        starts = [0, *ends[:-1]]
        return [tuple(range(a, b)) for a, b in zip(starts, ends, strict=True)]
    return [
        tuple(np.unique(clouds.parts[clouds.labels == number]).tolist())
        for number in range(len(clouds.classes))
    ]


def write_shapenetpart(
    root: Path, split: str, clouds: LabelledClouds, normals: np.ndarray | None = None
) -> None:
    """Write one split as `ROOT/shapenet_part_seg_hdf5_data/`, 2,048 clouds to a file.

    A kill leaves either the split or one that `read_shapenetpart` refuses.

    Args:
        root: Folder in which the set's folder is made.
        split: "train", "val" or "test".
        clouds: At least one, with parts; the categories may be others than the published ones.
        normals: (S, N, 3) of the points, or None.

    Raises:
        DataError: if there is nothing to write, shapes do not fit, or a label is out of range.

    Example:
        >>> import tempfile
        >>> clouds = LabelledClouds(name="two", split="val", points=np.zeros((2, 4, 3)),
        ...     labels=np.array([0, 1]), classes=["a", "b"], parts=np.ones((2, 4), int))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_shapenetpart(Path(folder), "val", clouds)
        ...     read_shapenetpart(Path(folder), "val").parts.tolist()
        [[1, 1, 1, 1], [1, 1, 1, 1]]
    """
    check_split(split, SPLITS)
    folder = Path(root) / FOLDER
    check_writable(folder, clouds)
    parts, points = clouds.parts, clouds.points
    if parts is None or parts.shape != points.shape[:2]:
        raise DataError(f"{folder}: parts must be {points.shape[:2]}, one for each point")
    if clouds.classes == list(SHAPENETPART):
        flat_labels(folder, parts, NUM_PARTS, "part")
    arrays = {"data": points.astype(np.float32, copy=False)}
    arrays["label"] = smallest_unsigned(clouds.labels.reshape(-1, 1))
    arrays["pid"] = smallest_unsigned(parts)
    if normals is not None:
        if normals.shape != points.shape:
            raise DataError(f"{folder}: normals {normals.shape} for points {points.shape}")
        arrays["normal"] = normals.astype(np.float32, copy=False)
    names = "".join(f"{name}\n" for name in clouds.classes)
    write_bytes(folder / CATEGORY_LIST, names.encode("utf-8"))
    write_shards(folder, f"ply_data_{split}", f"{split}_hdf5_file_list.txt", arrays)
