"""Stage 1, labels of points and faces: a file -> points (N, 3) and a label (N,) of each.

Labels are found, in this order: in NAME.seg beside the file, a whole number on each line, for each
point of a cloud or face of a mesh (as the Princeton benchmark, COSEG and ShapeNetPart have them);
in a property `label` of PLY's vertices or faces; in an array `labels` of NPZ; in the last column of
a table of 4 (x y z label) or 7 columns (with normals, as ShapeNetPart's text has them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.data.cloud_files import load_archive, load_array
from pixcloud.data.files import TEXT_SUFFIXES, read_cloud, read_mesh
from pixcloud.data.pair_writer import named_generator
from pixcloud.data.shapes import is_mesh, some_points
from pixcloud.data.surface import surface_points, unit_mesh
from pixcloud.errors import DataError, FileFormatError

COMPANION = ".seg"
NAMES = ("label", "labels", "part", "parts", "seg", "pid")
WAYS = (
    "expected NAME.seg beside it with a number on each line, a property 'label' in PLY, an array "
    "'labels' in NPZ, or a 4th or 7th column"
)


def labelled_points(path: Path, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Some points of a labelled cloud or mesh, a function of (its content, name).

    Args:
        path: a cloud with a label for each point, or a mesh with one for each face.
        name: what the draw depends on.
        count: points wanted; repeated where a cloud has fewer.

    Returns:
        Points (count, 3) float32 and labels (count,) int64, as the file numbers them.

    Raises:
        DataError: if the file is broken, has no labels, or not one for each point or face.
    """
    rng = named_generator(0, "parts", name)
    if is_mesh(path):
        mesh = read_mesh(path)
        labels = _checked(path, _labels_of_faces(path), len(mesh.faces), "faces")
        try:
            points, _, faces = surface_points(unit_mesh(mesh), count, rng)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        return points, labels[faces]
    cloud = read_cloud(path).points
    labels = _checked(path, _labels_of_points(path), len(cloud), "points")
    chosen = some_points(len(cloud), count, rng)
    return cloud[chosen], labels[chosen]


def _labels_of_faces(path: Path) -> np.ndarray:
    found = _companion(path)
    if found is None and path.suffix.lower() == ".ply":
        found = _ply_column(path, "face")
    if found is None:
        raise DataError(f"{path}: no labels of faces; {WAYS}")
    return found


def _labels_of_points(path: Path) -> np.ndarray:
    found, suffix = _companion(path), path.suffix.lower()
    if found is None and suffix == ".ply":
        found = _ply_column(path, "vertex")
    if found is None and suffix == ".npz":
        with load_archive(path) as archive:
            found = next((archive[name] for name in NAMES if name in archive), None)
    if found is None and suffix in (".npy", *TEXT_SUFFIXES):
        table = load_array(path) if suffix == ".npy" else _table(path)
        if table.ndim == 2 and table.shape[1] in (4, 7):
            found = table[:, -1]
    if found is None:
        raise DataError(f"{path}: no labels of points; {WAYS}")
    return np.asarray(found).reshape(-1)


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


def _companion(path: Path) -> np.ndarray | None:
    beside = path.with_suffix(COMPANION)
    if not beside.is_file():
        return None
    try:
        return np.loadtxt(beside, ndmin=1)
    except (ValueError, OSError) as error:
        raise FileFormatError(
            f"{beside}: expected a whole number on each line ({error})"
        ) from error


def _ply_column(path: Path, element: str) -> np.ndarray | None:
    """The property `label`, or one of its other names, of PLY's vertices or faces."""
    import trimesh

    try:
        loaded: Any = trimesh.load(path, file_type="ply", process=False)
        data: Any = loaded.metadata.get("_ply_raw", {}).get(element, {}).get("data", {})
    except Exception as problem:  # a parser raises whatever a broken file makes it trip over
        raise FileFormatError(f"{path}: broken PLY ({type(problem).__name__}: {problem})") from None
    names = data.dtype.names or () if isinstance(data, np.ndarray) else data
    column = next((data[name] for name in NAMES if name in names), None)
    if isinstance(column, dict):  # trimesh gives lists so
        return None
    return None if column is None else np.asarray(column).reshape(-1)


def _checked(path: Path, labels: np.ndarray, count: int, of: str) -> np.ndarray:
    if len(labels) != count:
        hint = "; faces must be triangles" if of == "faces" else ""
        raise DataError(f"{path}: {len(labels)} labels for {count} {of}{hint}")
    whole = np.asarray(labels, np.float64)
    if not (np.isfinite(whole).all() and (whole == np.round(whole)).all()):
        raise DataError(f"{path}: labels must be whole numbers")
    return whole.astype(np.int64)
