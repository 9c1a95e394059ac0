"""Stage 1, clouds other than PLY: arrays, tables of text, HDF5, LAS -> points (N, 3) and normals.

`files.read_cloud` calls it, and brings what it returns to float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.errors import AGAIN, FileFormatError

POINT_KEYS = ("points", "data", "xyz", "pos", "vertices", "coords", "point_cloud", "pc")
NORMAL_KEYS = ("normals", "normal")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?nan|[-+]?inf(inity)?", re.I)
Arrays = tuple[np.ndarray, np.ndarray | None]


def read_table(path: Path, suffix: str) -> Arrays:
    """Read a cloud in the format that `suffix` names, except PLY.

    Raises:
        FileFormatError: with the reason, if that cannot be done.
        OSError: if the file cannot be opened.
    """
    if suffix == ".npy":
        return split_columns(path, load_array(path))
    if suffix == ".npz":
        with load_archive(path) as archive:
            return pick_arrays(path, archive)
    if suffix in (".h5", ".hdf5"):
        return read_hdf5(path)
    if suffix == ".las":
        return read_las(path)
    if suffix in (".txt", ".xyz", ".pts", ".csv", ".asc"):
        return read_text(path)
    raise FileFormatError(
        f"{path}: {suffix or 'no suffix'} is no cloud format known here; known ones are "
        ".ply .npy .npz .h5 .las .txt .xyz .pts .csv .asc"
    )


def load_array(path: Path) -> np.ndarray:
    """The array of one NPY file; pickled objects are refused."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError) as problem:
        raise FileFormatError(f"{path}: broken or truncated NPY: {problem}; {AGAIN}") from None


def load_archive(path: Path) -> Any:
    """The open archive of one NPZ file; pickled objects are refused."""
    import zipfile

    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise FileFormatError(f"{path}: broken or truncated NPZ: {problem}; {AGAIN}") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise FileFormatError(f"{path}: not an NPZ archive; {AGAIN}")
    return archive


def read_hdf5(path: Path) -> Arrays:
    """The first cloud of an HDF5 file."""
    import h5py

    with open(path, "rb"):  # a missing file is an OSError with a plain reason
        pass
    try:
        with h5py.File(path, "r") as file:
            return pick_arrays(path, {k: v for k, v in file.items() if hasattr(v, "dtype")})
    except (OSError, RuntimeError) as problem:
        raise FileFormatError(f"{path}: broken or truncated HDF5: {problem}; {AGAIN}") from None


def pick_arrays(path: Path, arrays: Mapping[str, Any]) -> Arrays:
    """The points among named arrays, and the normals if there are any."""
    names = sorted(arrays)
    found = [key for key in POINT_KEYS if key in names]
    if not found and len(names) == 1:
        found = names
    if not found:
        raise FileFormatError(
            f"{path}: expected an array named {', '.join(POINT_KEYS[:4])}; it has "
            f"{', '.join(names) or 'none'}"
        )
    try:
        points, normals = split_columns(path, np.asarray(first_cloud(arrays[found[0]])))
        for key in NORMAL_KEYS:
            if key in names:
                given = np.asarray(first_cloud(arrays[key]))
                normals = given if given.shape == points.shape else normals
                break
    except (ValueError, EOFError, OSError) as problem:
        raise FileFormatError(f"{path}: broken array {found[0]!r}: {problem}; {AGAIN}") from None
    return points, normals


def first_cloud(array: Any) -> Any:
    """(N, C) as it is, and the first of (S, N, C), read without the others."""
    return array[0] if len(array.shape) == 3 and array.shape[0] else array[()]


def split_columns(path: Path, table: np.ndarray) -> Arrays:
    """Points, and normals where columns 4 to 6 have unit length, of a table (N, 3 or more)."""
    if table.dtype.names:
        return named_columns(path, table.dtype.names, lambda name: np.asarray(table[name]))
    if table.dtype.kind not in "fiu":
        raise FileFormatError(f"{path}: expected numbers, found the type {table.dtype}")
    if table.ndim == 3 and len(table):
        table = table[0]
    # Three or six rows of very many columns are coordinates stored the other way round.
    lying = table.ndim == 2 and table.shape[0] in (3, 6) and table.shape[1] > 20
    if table.ndim != 2 or table.shape[1] < 3 or lying:
        hint = "; transpose it" if lying else ""
        raise FileFormatError(
            f"{path}: expected a table of points (N, 3 or more), found {table.shape}{hint}"
        )
    normals = table[:, 3:6] if table.shape[1] >= 6 else None
    return table[:, :3], normals if normals is not None and unit_length(normals) else None


def unit_length(vectors: np.ndarray) -> bool:
    """Whether all vectors (N, 3) look like normals, and not like colours or something else."""
    length = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return len(length) > 0 and bool(np.all(np.abs(length - 1) < 0.02))


def named_columns(path: Path, names: Iterable[str], column: Any) -> Arrays:
    """Points and normals out of columns named x, y, z, nx, ny, nz in any order and case."""
    known = {name.strip().lower().lstrip("/#"): name for name in names}
    if not {"x", "y", "z"} <= set(known):
        raise FileFormatError(
            f"{path}: expected columns named x, y, z; found {', '.join(sorted(known))}"
        )
    points = np.stack([column(known[axis]) for axis in "xyz"], axis=1)
    normals = None
    if {"nx", "ny", "nz"} <= set(known):
        normals = np.stack([column(known[axis]) for axis in ("nx", "ny", "nz")], axis=1)
    return points, normals


def read_text(path: Path) -> Arrays:
    """A table of text: an optional header or count, then a point on each line."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    separator = next((mark for mark in ",;" if mark in text), None)
    lines = text.splitlines()
    header: list[str] = []
    start = 0
    while start < len(lines) and not is_row(lines[start], separator):
        words = split_line(lines[start].lstrip("/# \t"), separator)
        if {"x", "y", "z"} <= {word.lower() for word in words}:
            header = words
        start += 1
        if start > 20:
            raise FileFormatError(f"{path}: no point on its first 20 lines: expected x y z")
    rows = lines[start:]
    try:
        table = np.loadtxt(rows, delimiter=separator, comments="#", ndmin=2) if rows else None
    except ValueError as problem:
        raise FileFormatError(
            f"{path}: broken table after line {start}: {str(problem).split(';')[0]}; {AGAIN}"
        ) from None
    if table is None or len(table) == 0:
        raise FileFormatError(f"{path}: holds no points; {AGAIN}")
    promised = lines[start - 1].strip() if start else ""
    if promised.isdigit() and int(promised) > len(table):
        raise FileFormatError(f"{path}: truncated: {len(table)} of {promised} points; {AGAIN}")
    if header and len(header) == table.shape[1]:
        return named_columns(path, header, lambda name: table[:, header.index(name)])
    return split_columns(path, table)


def split_line(line: str, separator: str | None) -> list[str]:
    """The words of one line, quotes and blanks taken away."""
    return [word.strip().strip('"') for word in line.split(separator)]


def is_row(line: str, separator: str | None) -> bool:
    """Whether a line begins with three numbers; counts, headers and comments do not."""
    words = split_line(line, separator)
    return len(words) >= 3 and all(NUMBER.fullmatch(word) for word in words[:3])


def read_las(path: Path) -> Arrays:
    """A LAS file, by laspy."""
    try:
        import laspy
    except ImportError:
        raise FileFormatError(f"{path}: LAS needs laspy: pip install laspy") from None
    try:
        return np.asarray(laspy.read(path).xyz, np.float64), None
    except OSError:
        raise
    except Exception as problem:  # laspy has its own errors, and struct's for truncated files
        raise FileFormatError(f"{path}: broken or truncated LAS: {problem}; {AGAIN}") from None
