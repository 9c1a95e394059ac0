"""Stage 1, surfaces: `Mesh` -> points (n, 3), normals (n, 3) and face numbers (n,).

`render` and `pair_writer` stand after it; `files.read_mesh` and the synthetic shapes before it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pixcloud.errors import DataError
from pixcloud.types import Mesh

# Share of the squared extent below which a mesh's area is rounding and nothing else.
LEAST_AREA = 1e-12


def unit_mesh(mesh: Mesh) -> Mesh:
    """Move and scale a mesh so that its bounding box is centred at 0 and its radius is 1.

    The sums run in float64 and on differences, so that tiny, huge and far-off meshes keep their
    shape. Vertices that no face names do not count.

    Args:
        mesh: Any mesh with faces.

    Returns:
        The same faces, with vertices (V, 3) float64 whose farthest one is at distance 1 from 0.

    Raises:
        DataError: if the mesh has no faces, vertices that are not finite, or no extent.
    """
    if len(mesh.faces) == 0:
        raise DataError("the mesh has no faces")
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces] = True
    corners = mesh.vertices[used]
    if not np.isfinite(corners).all():
        bad = int((~np.isfinite(corners).all(axis=1)).sum())
        raise DataError(f"the mesh has {bad} vertices that are NaN or infinite")
    low, high = corners.min(axis=0), corners.max(axis=0)
    with np.errstate(over="ignore"):
        extent = (high - low).max()
    if not np.isfinite(extent):
        raise DataError("the mesh is too large for float64")
    if extent == 0:
        raise DataError("the mesh has no extent: all its corners are one point")
    vertices = np.zeros_like(mesh.vertices, dtype=np.float64)
    vertices[used] = (corners - low) / extent - (high - low) / extent / 2
    radius = np.sqrt(np.square(vertices).sum(axis=1).max())
    return replace(mesh, vertices=vertices / radius)


def y_up(mesh: Mesh) -> Mesh:
    """Turn a mesh whose z axis is up into one whose y axis is up: (x, y, z) -> (x, z, -y)."""
    x, y, z = mesh.vertices.T
    return replace(mesh, vertices=np.stack([x, z, -y], axis=1))


def face_cross(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals (F, 3) whose length is twice the face's area, by the right-hand rule."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    return np.cross(b - a, c - a)


def surface_points(
    mesh: Mesh, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw points uniformly on a surface: faces by area, then uniformly within the triangle.

    A uniform point of a triangle is (1 - r) a + r (1 - s) b + r s c with r the square root of a
    uniform number and s uniform (Osada et al. 2002, "Shape distributions").

    Args:
        mesh: The surface.
        n: Number of points.
        rng: Source of the 3 n random numbers.

    Returns:
        Points (n, 3) float32 in the unit of the mesh, unit normals (n, 3) float32 of their faces
        as wound, and face numbers (n,) int64.

    Raises:
        DataError: if the mesh has no faces, no area, or corners that are not finite.

    Example:
        >>> square = Mesh(vertices=np.array([[0., 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]),
        ...               faces=np.array([[0, 1, 2], [0, 2, 3]]))
        >>> points, normals, faces = surface_points(square, 5, np.random.default_rng(0))
        >>> points.shape, normals[0].tolist()
        ((5, 3), [0.0, 0.0, 1.0])
    """
    # Areas on the unit mesh: the square of a huge or tiny edge would leave the range of float64.
    cross = face_cross(unit_mesh(mesh).vertices, mesh.faces)
    doubled = np.sqrt(np.square(cross).sum(axis=1))
    until = np.cumsum(doubled)
    if not until[-1] > LEAST_AREA:
        raise DataError("the mesh has no area: all its faces are lines or points")
    draw = rng.random((3, n))
    # side="right" never chooses a face of area 0; the last draw may round up to the total.
    last = int(np.flatnonzero(doubled)[-1])
    chosen = np.minimum(np.searchsorted(until, draw[0] * until[-1], side="right"), last)
    r = np.sqrt(draw[1])[:, None]
    s = draw[2][:, None]
    a, b, c = (mesh.vertices[mesh.faces[chosen, k]] for k in range(3))
    points = (1 - r) * a + r * (1 - s) * b + r * s * c
    normals = cross[chosen] / doubled[chosen, None]
    return points.astype(np.float32), normals.astype(np.float32), chosen.astype(np.int64)


def unit_sphere(points: np.ndarray) -> np.ndarray:
    """Centre a cloud (N, 3) at its mean and scale its farthest point to distance 1.

    A cloud of one place stays at 0.
    """
    centred = points.astype(np.float64)
    centred = centred - centred.mean(axis=0)
    radius = np.sqrt(np.square(centred).sum(axis=1).max())
    return (centred / radius if radius > 0 else centred).astype(np.float32)
