"""Stage 2, sources: NAME:/path -> pairs or labelled clouds; a bare path is recognised.

To add a data set, write its reader and put one line into a table below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pixcloud.data import shapenet
from pixcloud.data.scanobjectnn import VARIANTS as SCANOBJECTNN
from pixcloud.errors import ConfigError, DataError, nearest
from pixcloud.types import LabelledClouds


def _modelnet(root: Path, split: str) -> LabelledClouds:
    from pixcloud.data.modelnet import read_modelnet

    return read_modelnet(root, split)


def _shapenetpart(root: Path, split: str) -> LabelledClouds:
    from pixcloud.data.shapenetpart import read_shapenetpart

    return read_shapenetpart(root, split)


def _folder(root: Path, split: str) -> LabelledClouds:
    from pixcloud.data.folder import read_folder

    return read_folder(root, split)


def _part_folder(root: Path, split: str) -> LabelledClouds:
    from pixcloud.data.folder import read_part_folder

    return read_part_folder(root, split)


def _scanobjectnn(variant: str) -> Callable[[Path, str], LabelledClouds]:
    def read(root: Path, split: str) -> LabelledClouds:
        from pixcloud.data.scanobjectnn import read_scanobjectnn

        return read_scanobjectnn(root, split, variant)

    return read


# What lies below the root of a source, which tells a bare path apart.
PAIR_READERS: dict[str, tuple[Callable[[Path], shapenet.PairIndex], tuple[str, ...]]] = {
    "pairs": (shapenet.read_crosspoint_tree, ("ShapeNet", "ShapeNetRendering")),
    "shapenet55": (shapenet.read_shapenet55, ("shapenet_pc", "ShapeNet-55")),
}
LABELLED_READERS: dict[str, tuple[Callable[[Path, str], LabelledClouds], tuple[str, ...]]] = {
    "modelnet40": (_modelnet, ("modelnet40_ply_hdf5_2048", "modelnet40_hdf5_2048", "*_train0.h5")),
    "shapenetpart": (_shapenetpart, ("shapenet_part_seg_hdf5_data", "hdf5_data")),
    "scanobjectnn": (
        _scanobjectnn(""),
        ("main_split*", "h5_files/main_split*", "ScanObjectNN/main_split", "*_objectdataset*.h5"),
    ),
    "folder": (_folder, ()),
}
# A variant is part of the name, since a folder holds all of them.
LABELLED_READERS |= {
    f"scanobjectnn-{variant}": (_scanobjectnn(variant), ()) for variant in SCANOBJECTNN
}
# Those whose clouds have parts; a folder's shapes have them where points or faces are labelled.
PART_READERS: dict[str, tuple[Callable[[Path, str], LabelledClouds], tuple[str, ...]]] = {
    "shapenetpart": LABELLED_READERS["shapenetpart"],
    "folder": (_part_folder, ()),
}
SYNTHETIC = "synthetic"


def parse_source(source: str, key: str = "data.source") -> tuple[str, Path]:
    """Split NAME:/path into its name ("" for a bare path) and an absolute path without ~.

    The embedded data is made on first use; its name becomes that of a bare path.

    Raises:
        ConfigError: for an unknown name.
        DataError: if the path does not exist.
    """
    if source == SYNTHETIC:
        from pixcloud.data.synthetic import ensure_synthetic

        return "", ensure_synthetic()
    name, colon, rest = source.partition(":")
    # A drive letter is no name, and neither is a path that has a colon in it.
    if not colon or len(name) == 1 or "/" in name or Path(source).exists():
        name, rest = "", source
    known = {*PAIR_READERS, *LABELLED_READERS}
    if name and name not in known:
        raise ConfigError(f"{key}: unknown data set '{name}': {nearest(name, {*known, SYNTHETIC})}")
    root = Path(rest).expanduser().absolute()
    if not rest or not root.exists():
        what = f"{root} does not exist" if rest else "names no folder"
        raise DataError(
            f"{key} = {source}: {what}; check the path, or give NAME:/path with NAME one of "
            f"{', '.join(sorted(n for n in known if '-' not in n))}, or '{SYNTHETIC}'"
        )
    return name, root


def open_pairs(source: str, unpaired: str = "error") -> list[shapenet.Pair]:
    """The pairs of a source, sorted.

    Raises:
        ConfigError: if the source is no set of pairs.
        DataError: if it is missing or incomplete.
    """
    return shapenet.complete_pairs(open_pair_index(source), unpaired)


def open_pair_index(source: str) -> shapenet.PairIndex:
    """The pairs of a source and the names of what has no partner.

    Raises:
        ConfigError: if the source is no set of pairs.
        DataError: if it is missing.
    """
    name, root = parse_source(source)
    if not name:
        name = recognise(root, {n: marks for n, (_, marks) in PAIR_READERS.items()}, "pairs")
    if name not in PAIR_READERS:
        raise ConfigError(
            f"data.source: '{name}' holds no pairs of clouds and pictures; {_known(PAIR_READERS)}; "
            "of meshes pixcloud data make makes some"
        )
    return PAIR_READERS[name][0](root)


def open_labelled(source: str, split: str, key: str = "data.source") -> LabelledClouds:
    """One split of a labelled source, or of the labelled clouds that lie beside pairs.

    Raises:
        DataError: if it is missing or incomplete.
    """
    name, root = parse_source(source, key)
    if name not in LABELLED_READERS:  # of pairs it is the split that lies beside them
        name = _labelled_kind(root)
    clouds = LABELLED_READERS[name][0](root, split)
    if source == SYNTHETIC:
        clouds.name = SYNTHETIC
    return clouds


def _labelled_kind(root: Path) -> str:
    """What lies at a bare path, or beside pairs: class folders are known by the shapes in them."""
    name = recognise(root, {n: marks for n, (_, marks) in LABELLED_READERS.items()}, "")
    pairs = recognise(root, {n: marks for n, (_, marks) in PAIR_READERS.items()}, "")
    if name or pairs or not root.is_dir():
        return name or "modelnet40"
    from pixcloud.data.folder import has_class_folders

    return "folder" if has_class_folders(root) else "modelnet40"


def _known(readers: Mapping[str, object]) -> str:
    return f"known ones are {', '.join(repr(name) for name in readers)}"


def split_there(source: str, split: str) -> bool:
    """Whether a source whose clouds have parts has this split; unlike an error in one it has."""
    from pixcloud.data.folder import list_folder
    from pixcloud.data.shapenetpart import has_split

    name, root = parse_source(source)
    if _parts_kind(name, root) == "shapenetpart":
        return has_split(root, split)
    return any(shape.split == split for shape in list_folder(root))


def open_parts(source: str, split: str, key: str = "data.source") -> LabelledClouds:
    """One split of a source whose clouds have parts, with the names of these.

    Raises:
        ConfigError: if the source has no parts.
        DataError: if it is missing or incomplete.
    """
    name, root = parse_source(source, key)
    if name and name not in PART_READERS:
        raise ConfigError(
            f"{key}: '{name}' holds no parts; expected one of {', '.join(PART_READERS)}"
        )
    clouds = PART_READERS[_parts_kind(name, root)][0](root, split)
    if source == SYNTHETIC:
        clouds.name = SYNTHETIC
    return clouds


def _parts_kind(name: str, root: Path) -> str:
    return name or recognise(root, {n: marks for n, (_, marks) in PART_READERS.items()}, "folder")


def holds(source: str) -> tuple[bool, bool]:
    """Whether pairs, and whether labelled clouds, seem to lie in a source; no file is opened.

    Raises:
        ConfigError: for an unknown name.
        DataError: if the path does not exist.
    """
    name, root = parse_source(source)
    pairs = {n: marks for n, (_, marks) in PAIR_READERS.items()}
    labelled = {n: marks for n, (_, marks) in LABELLED_READERS.items()}
    has_pairs = name in PAIR_READERS or (not name and recognise(root, pairs, "") != "")
    beside = recognise(root, labelled, "") or (_labelled_kind(root) == "folder" and not name)
    return has_pairs, name in LABELLED_READERS or bool(beside)


def recognise(root: Path, markers: dict[str, tuple[str, ...]], default: str) -> str:
    """The name whose marks lie below `root`; the default's reader then says what it expected."""
    for name, marks in markers.items():
        if any(next(root.glob(mark), None) for mark in marks):
            return name
    return default
