"""Stage 2, sources: NAME:/path -> pairs or labelled clouds; a bare path is recognised.

To add a data set, write its reader and put one line into a table below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pixcloud.data import modelnet, scanobjectnn, shapenet, shapenetpart
from pixcloud.errors import ConfigError, DataError, nearest
from pixcloud.types import LabelledClouds

# What tells a bare path apart: a pattern of what lies below it, or a function of it.
Marks = tuple[str | Callable[[Path], bool], ...]


def _modelnet_files(root: Path) -> bool:
    return modelnet.lies_in(root) and not shapenetpart.lies_in(root)  # named alike


def _folder(root: Path, split: str) -> LabelledClouds:
    from pixcloud.data.folder import read_folder

    return read_folder(root, split)


def _part_folder(root: Path, split: str) -> LabelledClouds:
    from pixcloud.data.folder import read_part_folder

    return read_part_folder(root, split)


def _scanobjectnn(variant: str) -> Callable[[Path, str], LabelledClouds]:
    def read(root: Path, split: str) -> LabelledClouds:
        return scanobjectnn.read_scanobjectnn(root, split, variant)

    return read


PAIR_READERS: dict[str, tuple[Callable[[Path], shapenet.PairIndex], Marks]] = {
    "pairs": (shapenet.read_crosspoint_tree, ("ShapeNet", "ShapeNetRendering")),
    "shapenet55": (shapenet.read_shapenet55, ("shapenet_pc", "ShapeNet-55")),
}
LABELLED_READERS: dict[str, tuple[Callable[[Path, str], LabelledClouds], Marks]] = {
    "modelnet40": (
        modelnet.read_modelnet,
        (modelnet.FOLDER, modelnet.OTHER_FOLDER, _modelnet_files),
    ),
    "shapenetpart": (
        shapenetpart.read_shapenetpart,
        (*shapenetpart.FOLDERS, shapenetpart.lies_in),
    ),
    "scanobjectnn": (
        _scanobjectnn(""),
        (
            *("main_split*", "h5_files/main_split*", "ScanObjectNN/main_split*"),
            *("ScanObjectNN/h5_files/main_split*", "*_objectdataset*.h5", scanobjectnn.lies_in),
        ),
    ),
    "folder": (_folder, ()),
}
# A variant is part of the name, since a folder holds all of them.
LABELLED_READERS |= {
    f"scanobjectnn-{variant}": (_scanobjectnn(variant), ()) for variant in scanobjectnn.VARIANTS
}
# Those whose clouds have parts; a folder's shapes have them where points or faces are labelled.
PART_READERS: dict[str, tuple[Callable[[Path, str], LabelledClouds], Marks]] = {
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
        name = recognise(root, _marks(PAIR_READERS), "pairs")
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
    name = recognise(root, _marks(LABELLED_READERS), "")
    pairs = recognise(root, _marks(PAIR_READERS), "")
    if name or pairs or not root.is_dir():
        return name or "modelnet40"
    from pixcloud.data.folder import has_class_folders

    return "folder" if has_class_folders(root) else "modelnet40"


def _known(readers: Mapping[str, object]) -> str:
    return f"known ones are {', '.join(repr(name) for name in readers)}"


def split_there(source: str, split: str) -> bool:
    """Whether a source whose clouds have parts has this split; unlike an error in one it has."""
    name, root = parse_source(source)
    return _has_split(_parts_kind(name, root, "data.source"), root, split)


def _has_split(kind: str, root: Path, split: str) -> bool:
    from pixcloud.data.folder import list_folder

    if kind == "shapenetpart":
        return shapenetpart.has_split(root, split)
    return any(shape.split == split for shape in list_folder(root))


def labelled_splits(source: str, key: str = "data.source") -> tuple[str, ...]:
    """The names of a labelled source's splits: val is among them only where it is there.

    Raises:
        DataError: if the source is missing.
    """
    name, root = parse_source(source, key)
    kind = name if name in LABELLED_READERS else _labelled_kind(root)
    val = kind in PART_READERS and _has_split(kind, root, "val")
    return ("train", "val", "test") if val else ("train", "test")


def open_parts(source: str, split: str, key: str = "data.source") -> LabelledClouds:
    """One split of a source whose clouds have parts, with the names of these.

    Raises:
        ConfigError: if the source has no parts.
        DataError: if it is missing or incomplete.
    """
    name, root = parse_source(source, key)
    clouds = PART_READERS[_parts_kind(name, root, key)][0](root, split)
    if source == SYNTHETIC:
        clouds.name = SYNTHETIC
    return clouds


def _parts_kind(name: str, root: Path, key: str) -> str:
    """Which reader of parts; a bare path that another packing lies at is no folder of shapes."""
    name = name or recognise(root, _marks(PART_READERS), "")
    name = name or recognise(root, _marks(LABELLED_READERS), "folder")
    if name not in PART_READERS:
        raise ConfigError(
            f"{key}: '{name}' holds no parts; expected one of {', '.join(PART_READERS)}"
        )
    return name


def _marks(readers: Mapping[str, tuple[object, Marks]]) -> dict[str, Marks]:
    return {name: marks for name, (_, marks) in readers.items()}


def holds(source: str) -> tuple[bool, bool]:
    """Whether pairs, and whether labelled clouds, seem to lie in a source.

    No cloud is read; of h5 files at most the names in them.

    Raises:
        ConfigError: for an unknown name.
        DataError: if the path does not exist.
    """
    name, root = parse_source(source)
    pairs = _marks(PAIR_READERS)
    labelled = _marks(LABELLED_READERS)
    has_pairs = name in PAIR_READERS or (not name and recognise(root, pairs, "") != "")
    beside = recognise(root, labelled, "") or (_labelled_kind(root) == "folder" and not name)
    return has_pairs, name in LABELLED_READERS or bool(beside)


def recognise(root: Path, markers: dict[str, Marks], default: str) -> str:
    """The name whose marks `root` has; the default's reader then says what it expected."""
    for name, marks in markers.items():
        if any(mark(root) if callable(mark) else next(root.glob(mark), None) for mark in marks):
            return name
    return default
