"""Stage 2, ModelNet40 as HDF5: a folder <-> one split as `LabelledClouds`.

    ROOT/modelnet40_ply_hdf5_2048/ply_data_{train,test}{0,1,...}.h5   data (S, N, 3), label (S, 1)
    ROOT/modelnet40_hdf5_2048/{train,test}{0,1,...}.h5                the same in another packing

beside which lie `shape_names.txt` (classes in label order) and lists of the files. The writer is
used by `make` and the synthetic data, so that one reader serves every labelled set of this kind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixcloud.data.atomic import write_bytes
from pixcloud.data.numbered_h5 import (
    check_finite,
    flat_labels,
    read_shards,
    smallest_unsigned,
    split_files,
    write_shards,
)
from pixcloud.errors import DataError, nearest, some
from pixcloud.types import LabelledClouds

FOLDER = "modelnet40_ply_hdf5_2048"
# For each packing: its usual folder, and what stands before the split in its files' names.
PACKINGS = ((FOLDER, "ply_data_"), ("modelnet40_hdf5_2048", ""))
SPLITS = ("train", "test")
CLASS_LISTS = ("shape_names.txt", "modelnet40_shape_names.txt")


def read_modelnet(root: Path, split: str) -> LabelledClouds:
    """Read one split of ModelNet40, or of any set in its HDF5 layout.

    Args:
        root: The folder that holds `modelnet40_ply_hdf5_2048/` or `modelnet40_hdf5_2048/`, or
            one of these itself.
        split: "train" or "test".

    Returns:
        Points (S, N, 3) float32 in the order of the files, labels (S,) int64 and the classes.

    Raises:
        DataError: if a folder, a file or the class list is missing, or the split has no such
            name.
        FileFormatError: if a file is broken, has other shapes than expected, a label out of
            range, or coordinates that are not finite.
    """
    root = Path(root)
    check_split(split)
    folder, prefix = find_packing(root, split)
    paths = split_files(folder, f"{prefix}{split}", f"{split}_files.txt")
    classes = read_class_list(folder)
    # The labels' second axis is 1 or absent, and both are published.
    arrays = read_shards(paths, {"data": ("data",)}, {"data": "N 3"})
    labels = read_labels(paths, len(arrays["data"]))
    return LabelledClouds(
        name="modelnet40",
        split=split,
        points=check_finite(paths[0], arrays["data"]),
        labels=flat_labels(paths[0], labels, len(classes)),
        classes=classes,
    )


def check_split(split: str, known: Sequence[str] = SPLITS) -> None:
    """Refuse the name of a split that is none.

    Raises:
        DataError: with the nearest known name.
    """
    if split not in known:
        raise DataError(f"split = {split!r}: {nearest(split, known)}")


def find_packing(root: Path, split: str) -> tuple[Path, str]:
    """The folder in which a split lies, and what stands before the split in its files' names.

    Raises:
        DataError: if no packing has a file of this split.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds {FOLDER}/")
    for name, prefix in PACKINGS:
        for folder in (root / name, root):
            if folder.is_dir() and any(folder.glob(f"{prefix}{split}[0-9]*.h5")):
                return folder, prefix
    inside = root / FOLDER if (root / FOLDER).is_dir() else root
    raise DataError(
        f"{inside}: no files of the split {split!r}; expected ply_data_{split}0.h5 (or "
        f"{split}0.h5) here or in {FOLDER}/"
    )


def read_labels(paths: Sequence[Path], count: int) -> np.ndarray:
    """The labels (S,) of files whose data set `label` is (S, 1) or (S,)."""
    import h5py

    with h5py.File(paths[0], "r") as file:
        axes = "1" if "label" in file and file["label"].ndim == 2 else ""
    labels = read_shards(paths, {"label": ("label",)}, {"label": axes})["label"].reshape(-1)
    if len(labels) != count:
        raise DataError(f"{paths[0].parent}: {count} clouds but {len(labels)} labels")
    return labels


def read_class_list(folder: Path) -> list[str]:
    """Names of the classes in label order.

    Raises:
        DataError: if the list is missing or empty.
    """
    for name in CLASS_LISTS:
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
            classes = [line.strip() for line in lines if line.strip()]
            if classes:
                return classes
            raise DataError(f"{folder / name}: empty; expected one class name per line")
    raise DataError(
        f"{folder / CLASS_LISTS[0]}: missing; expected the class names in label order, one per line"
    )


def write_modelnet(
    root: Path,
    split: str,
    clouds: LabelledClouds,
    normals: np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Write one split as `ROOT/modelnet40_ply_hdf5_2048/`, 2,048 clouds to a file.

    A kill leaves either the split or one that `read_modelnet` refuses.

    Args:
        root: Folder in which the set's folder is made.
        split: "train" or "test".
        clouds: At least one; `clouds.name` and `clouds.split` are not stored.
        normals: (S, N, 3) of the points, or None.
        names: Name of each shape, kept in `ply_data_<split>_<i>_id2file.json` as the published
            set does, or None.

    Raises:
        DataError: if there is nothing to write, shapes do not fit, a label is out of range, or
            the other split there has other classes.

    Example:
        >>> import tempfile
        >>> clouds = LabelledClouds(name="two", split="train", points=np.zeros((2, 4, 3)),
        ...                         labels=np.array([0, 1]), classes=["a", "b"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_modelnet(Path(folder), "train", clouds)
        ...     read_modelnet(Path(folder), "train").labels.tolist()
        [0, 1]
    """
    check_split(split)
    folder = Path(root) / FOLDER
    check_writable(folder, clouds)
    classes = folder / CLASS_LISTS[0]
    other = next(name for name in SPLITS if name != split)
    has_other = folder.is_dir() and any(folder.glob(f"ply_data_{other}[0-9]*.h5"))
    if has_other and read_class_list(folder) != clouds.classes:
        raise DataError(
            f"{classes}: the {other} split here has other classes ("
            f"{some(read_class_list(folder))}); write to another folder"
        )
    arrays = {"data": clouds.points.astype(np.float32, copy=False)}
    arrays["label"] = smallest_unsigned(clouds.labels.reshape(-1, 1))
    for name, extra in (("normals", normals), ("names", names)):
        if extra is not None and len(extra) != len(clouds.points):
            raise DataError(f"{folder}: {len(extra)} {name} for {len(clouds.points)} clouds")
    if normals is not None:
        arrays["normal"] = normals.astype(np.float32, copy=False)
    write_bytes(classes, "".join(f"{name}\n" for name in clouds.classes).encode("utf-8"))
    write_names(folder, split, names)
    write_shards(folder, f"ply_data_{split}", f"{split}_files.txt", arrays)


def write_names(folder: Path, split: str, names: Sequence[str] | None) -> None:
    """Write `ply_data_<split>_<i>_id2file.json`: with one more underscore than the data has."""
    from pixcloud.data.numbered_h5 import SHARD

    for old in sorted(folder.glob(f"ply_data_{split}_*_id2file.json")):
        old.unlink()
    for number, start in enumerate(range(0, len(names or ()), SHARD)):
        content = json.dumps(list((names or ())[start : start + SHARD]), indent=0)
        write_bytes(folder / f"ply_data_{split}_{number}_id2file.json", content.encode())


def check_writable(folder: Path, clouds: LabelledClouds) -> None:
    """Refuse what the reader would refuse.

    Raises:
        DataError: if shapes or labels do not fit, or there are no clouds.
    """
    points, labels = clouds.points, clouds.labels
    if points.ndim != 3 or points.shape[2] != 3 or 0 in points.shape:
        raise DataError(f"{folder}: points must be (S, N, 3) and not empty, got {points.shape}")
    if labels.shape != (len(points),):
        raise DataError(f"{folder}: {labels.shape} labels for {len(points)} clouds")
    check_finite(folder, points)
    flat_labels(folder, labels, len(clouds.classes))
    for name in clouds.classes:
        if not name.strip() or name != name.strip() or len(name.splitlines()) != 1:
            raise DataError(f"{folder}: class name {name!r} cannot stand on a line of its own")
