"""Stage 1, labelled shapes out: points or a mesh with a part of each -> PLY with colours, labels.

Viewers show the colours; `pixcloud.data.part_labels` reads the property `label` again.
"""

from __future__ import annotations

import colorsys
import json
from pathlib import Path

import numpy as np

from pixcloud.atomic import write_bytes
from pixcloud.types import Mesh


def part_colors(count: int) -> np.ndarray:
    """Distinct colours (count, 3) uint8 sRGB: hues apart by the golden ratio, two brightnesses.

    >>> part_colors(2).tolist()
    [[217, 89, 76], [75, 101, 204]]
    """
    return _colors(np.arange(count))


def _colors(labels: np.ndarray) -> np.ndarray:
    """The colour of each label (N, 3), whatever other labels there are."""
    values = [(0.85, 0.65), (0.80, 0.63), (0.70, 0.60)]
    own, places = np.unique(labels, return_inverse=True)  # numbers of a user may be large
    colors = [
        colorsys.hsv_to_rgb((0.015 + 0.618034 * i) % 1, values[i % 3][1], values[i % 3][0])
        for i in own.tolist()
    ]
    return np.round(255 * np.array(colors).reshape(-1, 3)).astype(np.uint8)[places]


def write_labelled_cloud(
    path: Path, points: np.ndarray, labels: np.ndarray, category: str = ""
) -> None:
    """Points (N, 3) with labels (N,) as binary PLY: x y z, red green blue, label; in one step.

    The category, if given, is a comment that `written_category` reads.
    """
    record = np.dtype(
        [("xyz", "<f4", 3), ("color", "u1", 3), ("label", "<i4")]
    )  # without gaps between fields, as PLY wants it
    vertices = np.empty(len(points), record)
    vertices["xyz"], vertices["label"] = points, labels
    vertices["color"] = _colors(labels)
    header = _header(category, f"element vertex {len(points)}", _XYZ, _COLOR, _LABEL)
    write_bytes(path, header + vertices.tobytes())


def write_labelled_mesh(path: Path, mesh: Mesh, labels: np.ndarray, category: str = "") -> None:
    """A mesh with labels (F,) of its faces as binary PLY; the faces have colours, label too.

    The category, if given, is a comment that `written_category` reads.
    """
    record = np.dtype(
        [("count", "u1"), ("corners", "<i4", 3), ("color", "u1", 3), ("label", "<i4")]
    )
    faces = np.empty(len(mesh.faces), record)
    faces["count"], faces["corners"], faces["label"] = 3, mesh.faces, labels
    faces["color"] = _colors(labels)
    header = _header(
        category,
        f"element vertex {len(mesh.vertices)}",
        _XYZ,
        f"element face {len(mesh.faces)}",
        "property list uchar int vertex_indices",
        _COLOR,
        _LABEL,
    )
    write_bytes(path, header + mesh.vertices.astype("<f4").tobytes() + faces.tobytes())


_XYZ = "property float x\nproperty float y\nproperty float z"
_COLOR = "property uchar red\nproperty uchar green\nproperty uchar blue"
_LABEL = "property int label"
_CATEGORY = "comment category "


def _header(category: str, *lines: str) -> bytes:
    # As JSON, for a name may have letters that are not ASCII, or a line break.
    comment = [f"{_CATEGORY}{json.dumps(category)}"] if category else []
    text = "\n".join(["ply", "format binary_little_endian 1.0", *comment, *lines, "end_header"])
    return (text + "\n").encode("ascii")


def written_category(path: Path) -> str:
    """The category that a file was labelled as; "" where it does not say, or cannot be read.

    Files of earlier versions do not, nor what other programs saved without comments.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(1 << 12).split(b"end_header")[0].decode("ascii", "replace")
        comments = [line for line in header.splitlines() if line.startswith(_CATEGORY)]
        return str(json.loads(comments[0].removeprefix(_CATEGORY))) if comments else ""
    except (OSError, ValueError):
        return ""
