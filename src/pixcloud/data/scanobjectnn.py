"""Stage 2, ScanObjectNN in h5 files: a folder -> `LabelledClouds`, points (S, N, 3), y up.

Scans of real objects (Uy et al. 2019, arXiv:1908.04616) in 15 classes, not normalised. The same
file names lie in two trees, with background points (`main_split`) and without (`main_split_nobg`).
They are read in place; nothing is downloaded, for their licence asks each user to sign a form.
"""

from __future__ import annotations

from pathlib import Path

from pixcloud.data import labelled_h5
from pixcloud.errors import ConfigError, DataError, MissingSplitError, nearest
from pixcloud.types import LabelledClouds

NAME = "scanobjectnn"
HOME = "https://hkust-vgd.github.io/scanobjectnn/"
WITH_BACKGROUND, WITHOUT = "main_split", "main_split_nobg"
CLASSES = [
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed",
    "pillow", "sink", "sofa", "toilet",
]  # fmt: skip
# Variant, in the words of the paper -> what stands behind `training_objectdataset`.
SUFFIXES = {
    "obj_bg": "",
    "obj_only": "",
    "pb_t25": "_augmented25_norot",
    "pb_t25_r": "_augmented25rot",
    "pb_t50_r": "_augmentedrot",
    "pb_t50_rs": "_augmentedrot_scale75",
}
# The perturbed ones exist in both trees; without background they have a name of their own here.
VARIANTS = (*SUFFIXES, *(f"{name}_nobg" for name in SUFFIXES if name.startswith("pb_")))


def read_scanobjectnn(root: Path, split: str, variant: str = "") -> LabelledClouds:
    """Read a split of a variant of ScanObjectNN.

    Args:
        root: the folder that holds `h5_files/`, that folder, one of its two trees, or CrossPoint's
            copy of OBJ_BG (`ScanObjectNN/main_split/{train,test}.h5`) or the folder above it.
        split: "train" or "test".
        variant: one of `VARIANTS`; empty is OBJ_BG, or OBJ_ONLY where `root` is the tree without
            background.

    Returns:
        Clouds (S, N, 3) float32 as stored, labels (S,) int64, the 15 classes. The name is
        "scanobjectnn-obj_bg" and the like.

    Raises:
        ConfigError: for a variant that does not exist, or not in the tree that `root` is.
        DataError: if the folder or the file is missing.
        FileFormatError: if the file is broken, or holds something of another shape.

    Example:
        >>> test = read_scanobjectnn(Path("/data/ScanObjectNN"), "test")  # doctest: +SKIP
        >>> test.points.shape  # doctest: +SKIP
        (581, 2048, 3)
    """
    if split not in ("train", "test"):
        raise DataError(f"ScanObjectNN has the splits 'train' and 'test', not '{split}'")
    variant = variant or ("obj_only" if root.name == WITHOUT else "obj_bg")
    if variant not in VARIANTS:
        raise ConfigError(f"ScanObjectNN has no variant '{variant}': {nearest(variant, VARIANTS)}")
    path = _file(root, split, variant)
    points, labels = labelled_h5.read_datasets(path, [("data",), ("label",)])
    points = labelled_h5.checked_clouds(path, points)
    if not len(points):
        raise DataError(f"{path}: holds no clouds; copy it again")
    return LabelledClouds(
        name=f"{NAME}-{variant}",
        split=split,
        points=points,
        labels=labelled_h5.checked_labels(path, labels, len(points), len(CLASSES)),
        classes=CLASSES,
    )


def lies_in(folder: Path) -> bool:
    """Whether a folder is one of the two trees itself, or CrossPoint's copy of one."""
    names = ("*_objectdataset*.h5", *(f"{split}.h5" for split in ("train", "test")))
    tree = folder.name in (WITH_BACKGROUND, WITHOUT)
    return tree and any(next(folder.glob(name), None) for name in names)


def _file(root: Path, split: str, variant: str) -> Path:
    """The file of a split, wherever below `root` its tree lies."""
    bare = variant == "obj_only" or variant.endswith("_nobg")
    tree, other = (WITHOUT, WITH_BACKGROUND) if bare else (WITH_BACKGROUND, WITHOUT)
    if root.name == other:
        raise ConfigError(
            f"{root}: holds the variants with{'' if bare else 'out'} background, and '{variant}' "
            f"is not one of them; give {root.parent} or its folder {tree}"
        )
    suffix = SUFFIXES[variant.removesuffix("_nobg")]
    prefix = "training" if split == "train" else "test"
    names = [f"{prefix}_objectdataset{suffix}.h5"]
    if variant == "obj_bg":
        names.append(f"{split}.h5")  # CrossPoint's copy
    within = Path() if root.name == tree else Path(tree)
    for above in ("", "h5_files", "ScanObjectNN", "ScanObjectNN/h5_files"):
        for name in names:
            path = root / above / within / name
            if path.is_file():
                return path
    place = root / "h5_files" / within if within.parts else root
    raise MissingSplitError(
        f"{place}: no {split} split of {variant}; "
        f"expected {' or '.join(names)} there; the data come from {HOME}, where a form asks for "
        "your consent to its terms"
    )
