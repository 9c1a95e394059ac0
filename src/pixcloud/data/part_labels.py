"""Stage 1, labels of points and faces: a file -> points (N, 3) and a label (N,) of each.

Labels are found, in this order: in NAME.seg beside the file, a whole number on each line, for each
point of a cloud or face of a mesh (as the Princeton benchmark, COSEG and ShapeNetPart have them);
in a property `label` of PLY's vertices or faces; in an array `labels` of NPZ; in the last column of
a table of 4 (x y z label) or 7 columns (with normals, as ShapeNetPart's text has them).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixcloud.data.cloud_files import load_archive, load_array
from pixcloud.data.files import TEXT_SUFFIXES, read_cloud, read_mesh
from pixcloud.data.pair_writer import named_generator
from pixcloud.data.shapes import is_mesh, some_points
from pixcloud.data.surface import surface_points, unit_mesh
from pixcloud.errors import AGAIN, DataError, FileFormatError

COMPANION = ".seg"
NAMES = ("label", "labels", "part", "parts", "seg", "pid")
HIGHEST = 2**31 - 1  # of a property `int` of PLY, in which labels are written
WAYS = (
    "expected NAME.seg beside it with a number on each line, a property 'label' in PLY, an array "
    "'labels' in NPZ, or a 4th or 7th column"
)


class _Found(NamedTuple):
    """Labels as they lie there, and the words for where."""

    values: np.ndarray
    where: str


def labelled_points(path: Path, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Some points of a labelled cloud or mesh, a function of (its content, name).

    Args:
        path: a cloud with a label for each point, or a mesh with one for each face.
        name: what the draw depends on.
        count: points wanted; repeated where a cloud has fewer.

    Returns:
        Points (count, 3) float32 and labels (count,) int64, as the file numbers them.

    Raises:
        DataError: if the file is broken, has no labels, not one for each point or face, or some
            that are no whole numbers of 0 or more.
    """
    rng = named_generator(0, "parts", name)
    if is_mesh(path):
        mesh = read_mesh(path)
        labels = _checked(_labels_of_faces(path), len(mesh.faces), "faces")
        if mesh.pieces > 1:  # labels would go to other faces, and nothing would show it
            raise DataError(
                f"{path}: its faces lie in {mesh.pieces} objects or materials, and their labels "
                "follow the order of the file, which is lost so; save it as one, or as OFF or PLY"
            )
        try:
            points, _, faces = surface_points(unit_mesh(mesh), count, rng)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        return points, labels[faces]
    cloud = read_cloud(path).points
    labels = _checked(_labels_of_points(path), len(cloud), "points")
    chosen = some_points(len(cloud), count, rng)
    return cloud[chosen], labels[chosen]


def _labels_of_faces(path: Path) -> _Found:
    found = _companion(path, "face")
    if found is None and path.suffix.lower() == ".ply":
        found = _ply_column(path, "face")
    if found is None:
        raise DataError(f"{path}: no labels of faces; {WAYS}")
    return found


def _labels_of_points(path: Path) -> _Found:
    found, suffix = _companion(path, "point"), path.suffix.lower()
    if found is None and suffix == ".ply":
        found = _ply_column(path, "vertex")
    if found is None and suffix == ".npz":
        found = _archived(path)
    if found is None and suffix in (".npy", *TEXT_SUFFIXES):
        table = load_array(path) if suffix == ".npy" else _table(path)
        if table.ndim == 2 and table.shape[1] in (4, 7):
            found = _Found(table[:, -1], f"{path}, its last column")
    if found is None:
        raise DataError(f"{path}: no labels of points; {WAYS}")
    return found


def _archived(path: Path) -> _Found | None:
    with load_archive(path) as archive:
        name = next((name for name in NAMES if name in archive), None)
        if name is None:
            return None
        try:
            return _Found(archive[name], f"{path}, array '{name}'")
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise FileFormatError(f"{path}: broken array '{name}': {error}; {AGAIN}") from error


def _table(path: Path) -> np.ndarray:
    """The numbers of a text file, whatever separates them; lines that are none are left out."""
    from pixcloud.data.cloud_files import is_row, split_line

    text = path.read_text(encoding="utf-8-sig", errors="replace")
    separator = next((mark for mark in ",;" if mark in text), None)
    rows = [split_line(line, separator) for line in text.splitlines() if is_row(line, separator)]
    width = {len(row) for row in rows}
    if len(width) != 1:
        raise FileFormatError(
            f"{path}: its lines have {sorted(width)} columns, expected one number"
        )
    return np.array(rows, np.float64)


def _companion(path: Path, of: str) -> _Found | None:
    """The labels in NAME.seg beside a file, a label of each `of`."""
    beside = path.with_suffix(COMPANION)
    if not beside.is_file():
        return None
    expected = f"expected a whole number on each line, the label of each {of} of {path.name}"
    try:
        lines = beside.read_text(encoding="utf-8-sig").splitlines()
        lines = [line for line in lines if line.split("#")[0].strip()]
        table = np.loadtxt(lines, ndmin=2) if lines else np.empty((0, 1))
    except (ValueError, OSError) as error:
        reason = str(error).split(";")[0]
        raise FileFormatError(f"{beside}: {expected} ({reason}); {AGAIN}") from error
    if not len(table):
        raise FileFormatError(f"{beside}: is empty; {expected}")
    if table.shape[1] != 1:
        raise FileFormatError(
            f"{beside}: {table.shape[1]} numbers on each line; {expected}: leave the others out"
        )
    return _Found(table[:, 0], str(beside))


def _ply_column(path: Path, element: str) -> _Found | None:
    """The property `label`, or one of its other names, of PLY's vertices or faces."""
    import trimesh

    try:
        loaded: Any = trimesh.load(path, file_type="ply", process=False)
        data: Any = loaded.metadata.get("_ply_raw", {}).get(element, {}).get("data", {})
    except Exception as problem:  # a parser raises whatever a broken file makes it trip over
        raise FileFormatError(f"{path}: broken PLY ({type(problem).__name__}: {problem})") from None
    names = data.dtype.names or () if isinstance(data, np.ndarray) else data
    # CloudCompare puts `scalar_` before each property that it writes.
    known = {name.lower().removeprefix("scalar_"): name for name in names}
    name = next((known[name] for name in NAMES if name in known), None)
    if name is None or isinstance(data[name], dict):  # trimesh gives lists so
        return None
    return _Found(np.asarray(data[name]).reshape(-1), f"{path}, property '{name}'")


def _checked(found: _Found, count: int, of: str) -> np.ndarray:
    """Labels (count,) int64.

    Raises:
        DataError: naming the place, if they are anything but whole numbers in [0, HIGHEST], one for
            each point or face.
    """
    values, where = np.asarray(found.values), found.where
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: labels of the type {values.dtype}; expected whole numbers, whose names may "
            "stand in parts.json"
        )
    if values.ndim != 1 and max(values.shape, default=0) != values.size:
        raise DataError(f"{where}: labels of the shape {values.shape}; expected ({count},)")
    values = values.reshape(-1)
    if len(values) != count:
        each = "faces must be triangles, with" if of == "faces" else "expected"
        raise DataError(
            f"{where}: {len(values)} labels for {count} {of}; {each} one label for each"
        )
    whole = np.isfinite(values) & (values == np.round(values))
    if not whole.all():
        first = int(np.argmin(whole))
        raise DataError(
            f"{where}: labels must be whole numbers, and number {first} is {values[first]}"
        )
    if values.min() < 0 or values.max() > HIGHEST:
        low, high = int(values.min()), int(values.max())
        raise DataError(
            f"{where}: labels from {low} to {high}; expected 0 to {HIGHEST}: "
            "give what has no label a number of its own, or leave the shape out"
        )
    return values.astype(np.int64)
