"""Stage 2, a user's own labelled shapes: a folder of class folders <-> `LabelledClouds`.

    ROOT/<class>/*.ply|obj|npz|...                  names decide: about a quarter is the test split
    ROOT/<class>/{train,val,test}/*                 a split that is given
    ROOT/{train,val,test}/<class>/*                 the same, the other way round

Clouds and meshes may be mixed. With labels of points or faces (`part_labels`) they are parts, too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixcloud.data.pair_writer import named_generator
from pixcloud.data.part_labels import labelled_points
from pixcloud.data.part_list import PART_LIST, PartList, read_part_list
from pixcloud.data.shapes import SHAPE_SUFFIXES, shape_points
from pixcloud.errors import DataError, MissingSplitError, some
from pixcloud.types import LabelledClouds

SPLITS = ("train", "val", "test")
STORED_POINTS = 2048
TEST_SHARE = 0.25  # of the names of a class without a given split


class FolderShape(NamedTuple):
    """A shape of a user: its file, its class, and its split, "" where none is given."""

    path: Path
    category: str
    split: str


def has_class_folders(root: Path) -> bool:
    """Whether folders below it, or below splits in it, hold clouds or meshes."""
    for pattern in ("*/*", "*/*/*"):
        for path in root.glob(pattern):
            if path.suffix.lower() in SHAPE_SUFFIXES and not path.name.startswith("."):
                return True
    return False


def list_folder(root: Path) -> list[FolderShape]:
    """The shapes of class folders, sorted by class and name.

    Raises:
        DataError: if there are none, or some lie in folders below and would be left out.
    """
    places = _places(root)
    _refuse_deeper(list(places))
    shapes = [shape for folder, kind in places.items() for shape in _shapes(folder, *kind)]
    if not shapes:
        raise DataError(
            f"{root}: no shapes in class folders; expected <class>/*{', *'.join(SHAPE_SUFFIXES)}, "
            "or the same in <class>/{train,test}/ or {train,test}/<class>/"
        )
    return sorted(shapes, key=lambda shape: (shape.category, shape.path))


def _places(root: Path) -> dict[Path, tuple[str, str]]:
    """Folders whose files are read -> class and split of those, "" where none is given."""
    outer = _folders(root)
    if outer and set(outer) <= set(SPLITS):
        return {
            root / split / category: (category, split)
            for split in outer
            for category in _folders(root / split)
        }
    places = {root / category: (category, "") for category in outer}
    for category in outer:
        for split in sorted(set(_folders(root / category)) & set(SPLITS)):
            places[root / category / split] = (category, split)
    return places


def _refuse_deeper(places: list[Path]) -> None:
    """Shapes in folders below those that are read would be missed without a word."""
    for folder in places:
        for below in _folders(folder):
            if folder / below in places:
                continue
            if found := _first_shape(folder / below):
                raise DataError(
                    f"{found}: lies in a folder below those that are read, {folder}/*; put it "
                    f"into {folder} itself, or the folder {below} elsewhere"
                )


def _first_shape(root: Path) -> Path | None:
    """A shape at any depth, if there is one; hidden files and folders are passed over."""
    for parent, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SHAPE_SUFFIXES) and not name.startswith("."):
                return Path(parent, name)
    return None


def read_folder(root: Path, split: str) -> LabelledClouds:
    """Labelled clouds of a folder, 2,048 points of each.

    Meshes are sampled on their surface; of clouds a random part is taken, and points are repeated
    where there are fewer. What is drawn depends on the names of files alone.

    Args:
        root: folder of class folders; y is up.
        split: "train" or "test"; a given "val" is read by that name.

    Raises:
        DataError: if the split is empty, or a shape cannot be read.
    """
    chosen, classes = _of_split(root, split)
    points = [
        shape_points(shape.path, _name(root, shape), STORED_POINTS, "y", 0, "folder")
        for shape in chosen
    ]
    return LabelledClouds(
        name=root.name,
        split=split,
        points=np.stack(points),
        labels=np.array([classes.index(shape.category) for shape in chosen], np.int64),
        classes=classes,
    )


def read_part_folder(root: Path, split: str) -> LabelledClouds:
    """Clouds of a folder with a label for each point or face, 2,048 points of each.

    The labels of a category are its distinct numbers in order. `parts.json`, in ROOT or beside the
    shapes, may name them: {"mug": ["cup", "handle"]} for the labels 0 and 1, or
    {"mug": {"1": "cup", "7": "handle"}}.

    Args:
        root: folder of class folders; y is up.
        split: "train" or "test"; a given "val" is read by that name.

    Raises:
        DataError: if the split is empty, a shape cannot be read or has no labels, or it has labels
            that `parts.json` does not name.
    """
    chosen, classes = _of_split(root, split)
    found = {
        shape.path: labelled_points(shape.path, _name(root, shape), STORED_POINTS)
        for shape in _all(root)
    }
    names = _part_names(root, found)
    offsets, first = {}, 0
    for category, own in names.items():
        offsets[category] = first
        first += len(own)
    points, parts = [], []
    for shape in chosen:
        cloud, labels = found[shape.path]
        numbers = list(names[shape.category])
        points.append(cloud)
        parts.append(np.searchsorted(numbers, labels) + offsets[shape.category])
    return LabelledClouds(
        name=root.name,
        split=split,
        points=np.stack(points),
        labels=np.array([classes.index(shape.category) for shape in chosen], np.int64),
        classes=classes,
        parts=np.stack(parts).astype(np.int64),
        part_names={category: list(own.values()) for category, own in names.items()},
        part_labels={category: list(own) for category, own in names.items()},
    )


def _all(root: Path) -> list[FolderShape]:
    """Every shape with a split: the given one, or one drawn by its name.

    A number from its name decides alone, so that no shape changes sides when others come or go:
    below `TEST_SHARE` is test. Only a class that would lack a side by that gives it one shape, the
    one nearest to it; and a class that has a single shape has it in train.
    """
    shapes = list_folder(root)
    drawn: dict[Path, str] = {}
    for category in sorted({shape.category for shape in shapes}):
        members = [shape for shape in shapes if shape.category == category]
        given = {shape.split for shape in members if shape.split}
        draws = {shape.path: _draw(shape) for shape in members if not shape.split}
        own = {path: "test" if draw < TEST_SHARE else "train" for path, draw in draws.items()}
        ranked = sorted(own, key=lambda path: (draws[path], path.name))
        if ranked and "train" not in {*own.values(), *given}:
            own[ranked[-1]] = "train"
        if len(ranked) > 1 and "test" not in {*own.values(), *given}:
            own[ranked[0]] = "test"
        drawn |= own
    return [shape._replace(split=shape.split or drawn[shape.path]) for shape in shapes]


def _draw(shape: FolderShape) -> float:
    """A number in [0, 1) from class and name without suffixes, so that m1.obj goes with m1.ply.

    `pixcloud parts` adds a suffix to what it labels: corrected, that stays on its side, too.
    """
    name = shape.path.name
    while name.lower().endswith(SHAPE_SUFFIXES):
        name = name[: name.rindex(".")]
    return float(named_generator(0, "folder split", shape.category, name).random())


def _of_split(root: Path, split: str) -> tuple[list[FolderShape], list[str]]:
    shapes = _all(root)
    chosen = [shape for shape in shapes if shape.split == split]
    if not chosen:
        there = sorted({shape.split for shape in shapes})
        raise MissingSplitError(
            f"{root}: its {split} split holds no shapes; there are {', '.join(there)}"
        )
    return chosen, sorted({shape.category for shape in shapes})


def _part_names(
    root: Path, found: dict[Path, tuple[np.ndarray, np.ndarray]]
) -> dict[str, dict[int, str]]:
    """Category -> label -> name, both in order, of all labels that occur or are named."""
    shapes = list_folder(root)
    named, lists = _named_parts(root, shapes)
    names: dict[str, dict[int, str]] = {}
    for shape in shapes:
        labels = {int(label) for label in np.unique(found[shape.path][1])}
        own = names.setdefault(shape.category, dict(named.get(shape.category, {})))
        if shape.category in named:
            if unknown := labels - set(own):
                raise DataError(
                    f"{shape.path}: has labels that {lists[shape.category]} does not name for "
                    f"{shape.category}: {some(sorted(unknown))}; name them there, or correct them"
                )
        else:
            own |= {label: f"part {label}" for label in labels}
    return {category: dict(sorted(own.items())) for category, own in sorted(names.items())}


def _named_parts(root: Path, shapes: list[FolderShape]) -> tuple[PartList, dict[str, Path]]:
    """The names of each category that has some, and the list that they are in.

    One in the root counts first; then the first of those beside the shapes, where what `pixcloud
    parts` wrote has its own.
    """
    named, lists = {}, {}
    folders = {(shape.category, shape.path.parent) for shape in shapes}
    places = [(category, root) for category, _ in folders]
    for category, folder in [*sorted(places), *sorted(folders)]:
        own = read_part_list(folder / PART_LIST).get(category)
        if own is not None and category not in named:
            named[category], lists[category] = own, folder / PART_LIST
    return named, lists


def _shapes(folder: Path, category: str, split: str) -> list[FolderShape]:
    return [
        FolderShape(path, category, split)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SHAPE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]


def _folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _name(root: Path, shape: FolderShape) -> str:
    return shape.path.relative_to(root).as_posix()
