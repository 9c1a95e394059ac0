"""Stage 1, clouds in PLY: a file -> points (N, 3) and normals; `files.read_cloud` stands before it.

Training reads such a file once per sample, so the usual kind (vertices first, scalar properties)
takes one read and one view of the buffer: no mesh library, and no second look at a header that was
seen before. Anything else gives None, and `files` hands it to trimesh.
"""

from __future__ import annotations

import os
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixcloud.atomic import write_bytes
from pixcloud.errors import AGAIN, FileFormatError

SCALARS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
FIRST_READ = 1 << 16  # holds the header and 2,048 vertices with normals


class VertexLayout(NamedTuple):
    """Where the vertices lie after the header.

    encoding is a key of `BYTE_ORDERS`; record describes one vertex and has the field "xyz" when
    x, y, z are neighbours of one type; least_bytes is the smallest size that everything after the
    header can have.
    """

    encoding: str
    vertices: int
    record: np.dtype
    columns: tuple[str, ...]
    least_bytes: int


class PlyArrays(NamedTuple):
    """points (N, 3) and normals (N, 3) or None, in the number type of the file."""

    points: np.ndarray
    normals: np.ndarray | None


def read_ply_vertices(path: str | os.PathLike[str]) -> PlyArrays | None:
    """Read the vertices of one PLY file, binary or ASCII.

    Args:
        path: The file.

    Returns:
        Points and normals, or None if the file is of an unusual kind: another element before the
        vertices, or lists within them.

    Raises:
        FileFormatError: if it is no PLY file, its header is broken, or vertices are missing.
        OSError: if the file cannot be opened.
    """
    with open(path, "rb", buffering=0) as file:
        data = file.read(FIRST_READ)
        end = data.find(b"end_header")
        start = data.find(b"\n", end) + 1
        if end < 0 or start == 0:  # a header with very many comments
            data += file.readall()
            end = data.find(b"end_header")
            start = data.find(b"\n", end) + 1
        if not data.startswith(b"ply") or end < 0 or start == 0:
            raise FileFormatError(
                f"{path}: not a PLY file: no header from 'ply' to 'end_header'; {AGAIN}"
            )
        try:
            layout = parse_header(data[:end])
        except ValueError as problem:
            raise FileFormatError(f"{path}: broken PLY header: {problem}; {AGAIN}") from None
        if layout is None:
            return None
        missing = start + layout.vertices * layout.record.itemsize - len(data)
        if layout.encoding == "ascii" or missing > 0:
            data += file.readall()
        size = os.fstat(file.fileno()).st_size
    if layout.encoding == "ascii":
        return ascii_vertices(path, data[start:], layout)
    if size < start + layout.least_bytes:
        raise FileFormatError(
            f"{path}: truncated: {size} bytes, but its header asks for at least "
            f"{start + layout.least_bytes}; {AGAIN}"
        )
    return vertex_arrays(np.frombuffer(data, layout.record, layout.vertices, start))


@lru_cache(maxsize=256)
def parse_header(header: bytes) -> VertexLayout | None:
    """Read a header up to `end_header`; None for a kind that is left to trimesh.

    Raises:
        ValueError: with the reason, if it breaks the rules of the format.
    """
    elements, encoding = header_elements(header)
    if not elements or elements[0][0] != "vertex":
        if not any(name == "vertex" for name, *_ in elements):
            raise ValueError("no element named 'vertex'")
        return None
    _, count, properties = elements[0]
    if any(kind == "list" for _, kind in properties):
        return None
    columns = tuple(name for name, _ in properties)
    absent = {"x", "y", "z"} - set(columns)
    if absent:
        raise ValueError(f"the vertices have no property {', '.join(sorted(absent))}")
    order = BYTE_ORDERS[encoding]
    formats = [order + SCALARS[kind] for _, kind in properties]
    record = grouped_record(columns, formats)
    least = count * record.itemsize
    for _, other_count, other in elements[1:]:
        # A list may be empty: then only its count is there.
        least += other_count * sum(int(SCALARS.get(kind, "u1")[1]) for _, kind in other)
    return VertexLayout(encoding, count, record, columns, least)


def header_elements(header: bytes) -> tuple[list[tuple[str, int, list[tuple[str, str]]]], str]:
    """Elements in order as (name, count, [(property, type)]), and the encoding.

    Raises:
        ValueError: with the reason, if a line breaks the rules of the format.
    """
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    encoding = ""
    for line in header.decode("latin-1").splitlines()[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) >= 2 and words[1] in BYTE_ORDERS:
            encoding = words[1]
        elif words[0] == "element" and len(words) == 3 and words[2].isdigit():
            elements.append((words[1], int(words[2]), []))
        elif words[0] == "property" and elements and len(words) == 5 and words[1] == "list":
            elements[-1][2].append((words[4], "list"))
        elif words[0] == "property" and elements and len(words) == 3 and words[1] in SCALARS:
            elements[-1][2].append((words[2], words[1]))
        else:
            raise ValueError(f"cannot understand the line {line.strip()!r}")
    if not encoding:
        raise ValueError("no 'format' line")
    return elements, encoding


def grouped_record(columns: tuple[str, ...], formats: list[str]) -> np.dtype:
    """The dtype of one vertex, with "xyz" and "normal" as (3,) fields where neighbours allow it."""
    offsets = [0]
    for form in formats:
        offsets.append(offsets[-1] + np.dtype(form).itemsize)
    names, kinds, places = list(columns), list(formats), offsets[:-1]
    for group, members in (("xyz", ("x", "y", "z")), ("normal", ("nx", "ny", "nz"))):
        if members[0] in columns:
            i = columns.index(members[0])
            if columns[i : i + 3] == members and len(set(formats[i : i + 3])) == 1:
                names.append(group)
                kinds.append(f"(3,){formats[i]}")
                places.append(offsets[i])
    return np.dtype({"names": names, "formats": kinds, "offsets": places, "itemsize": offsets[-1]})


def vertex_arrays(vertices: np.ndarray) -> PlyArrays:
    """Points and normals of records (N,) of a `VertexLayout`."""
    arrays: list[np.ndarray | None] = []
    for group, members in (("xyz", ["x", "y", "z"]), ("normal", ["nx", "ny", "nz"])):
        fields = vertices.dtype.names or ()
        if group in fields:
            arrays.append(vertices[group])
        elif all(name in fields for name in members):
            arrays.append(np.stack([vertices[name] for name in members], axis=1))
        else:
            arrays.append(None)
    points, normals = arrays
    assert points is not None  # parse_header refuses a file without x, y, z
    return PlyArrays(points, normals)


def ascii_vertices(path: str | os.PathLike[str], body: bytes, layout: VertexLayout) -> PlyArrays:
    """Vertices of an ASCII file, one on each line."""
    lines = [line for line in body.split(b"\n", layout.vertices + 1) if line.strip()][
        : layout.vertices
    ]
    if len(lines) < layout.vertices:
        raise FileFormatError(
            f"{path}: truncated: {len(lines)} of {layout.vertices} vertices; {AGAIN}"
        )
    wanted = [layout.columns.index(name) for name in ("x", "y", "z")]
    if {"nx", "ny", "nz"} <= set(layout.columns):
        wanted += [layout.columns.index(name) for name in ("nx", "ny", "nz")]
    if not lines:
        return PlyArrays(np.empty((0, 3)), None)
    try:
        text = BytesIO(b"\n".join(lines))
        table = np.loadtxt(text, usecols=wanted, ndmin=2, comments=None)
    except ValueError as problem:
        raise FileFormatError(f"{path}: broken vertex in ASCII PLY: {problem}; {AGAIN}") from None
    return PlyArrays(table[:, :3], table[:, 3:] if len(wanted) == 6 else None)


def write_cloud_ply(path: str | os.PathLike[str], points: np.ndarray) -> None:
    """Write points as binary little-endian PLY with float32 x y z, in one step.

    Args:
        path: The file to create or replace; its folder is created.
        points: (N, 3) coordinates.

    Raises:
        ValueError: if points are not (N, 3).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_cloud_ply(f"{folder}/a.ply", np.eye(3))
        ...     read_ply_vertices(f"{folder}/a.ply").points[1].tolist()
        [0.0, 1.0, 0.0]
    """
    write_bytes(Path(path), cloud_ply_bytes(points))


def cloud_ply_bytes(points: np.ndarray) -> bytes:
    """The bytes of `write_cloud_ply`."""
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must be (N, 3), got {points.shape}")
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\nend_header\n"
    )
    return header.encode("ascii") + np.ascontiguousarray(points, "<f4").tobytes()
