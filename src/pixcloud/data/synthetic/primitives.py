"""Stage 1, solids: numbers -> `Solid` (V, 3) and (F, 3); the categories put them together.

Tessellated with numpy alone. y is up; closed solids are wound counter-clockwise seen from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pixcloud.data.synthetic.curves import circle, cross, transported_frames

SIDES = 32  # of round things


@dataclass(frozen=True, slots=True)
class Solid:
    """A piece of an object: vertices (V, 3) float64 and faces (F, 3) int64 that name them."""

    vertices: np.ndarray
    faces: np.ndarray

    def at(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Solid:
        """Moved by (x, y, z)."""
        return Solid(self.vertices + (x, y, z), self.faces)

    def scaled(self, x: float = 1.0, y: float = 1.0, z: float = 1.0) -> Solid:
        """Scaled along the axes; an odd number of negative factors mirrors it."""
        faces = self.faces[:, ::-1] if x * y * z < 0 else self.faces
        return Solid(self.vertices * (x, y, z), faces)

    def turned(self, axis: str, degrees: float) -> Solid:
        """Turned about an axis through the origin, counter-clockwise seen from its tip."""
        return Solid(self.vertices @ rotation(axis, degrees).T, self.faces)


def rotation(axis: str, degrees: float) -> np.ndarray:
    """The matrix (3, 3) that turns columns about "x", "y" or "z".

    >>> (rotation("y", 90) @ [0, 0, 1]).round(6).tolist()
    [1.0, 0.0, 0.0]
    """
    one, two = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    matrix[one, one] = matrix[two, two] = cos
    matrix[one, two], matrix[two, one] = -sin, sin
    return matrix


def joined(*solids: Solid) -> Solid:
    """Several solids as one piece."""
    starts = np.cumsum([0] + [len(solid.vertices) for solid in solids[:-1]])
    return Solid(
        np.concatenate([solid.vertices for solid in solids]),
        np.concatenate([s.faces + start for s, start in zip(solids, starts, strict=True)]),
    )


def both_sides(solid: Solid, axis: str = "x") -> Solid:
    """A solid and its mirror image across the plane where `axis` is 0."""
    return joined(solid, solid.scaled(**{axis: -1.0}))


@lru_cache(maxsize=512)
def grid_faces(rows: int, columns: int, wrap_rows: bool, wrap_columns: bool) -> np.ndarray:
    """Triangles of a grid of rows x columns vertices; a wrapped axis joins its end to its start."""
    rows_of, columns_of = np.meshgrid(
        np.arange(rows if wrap_rows else rows - 1),
        np.arange(columns if wrap_columns else columns - 1),
        indexing="ij",
    )
    i, j = rows_of.ravel(), columns_of.ravel()
    a, b = i * columns + j, i * columns + (j + 1) % columns
    next_row = (i + 1) % rows * columns
    c, d = next_row + (j + 1) % columns, next_row + j
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])


@lru_cache(maxsize=512)
def lofted_faces(rows: int, columns: int, ring: bool, caps: bool) -> np.ndarray:
    """Triangles of a stack of loops; with caps, the two fans' centres follow the grid."""
    faces = [grid_faces(rows, columns, ring, True)]
    if caps:
        here = np.arange(columns)
        after = (here + 1) % columns
        last, centre = (rows - 1) * columns, rows * columns
        faces.append(np.stack([np.full(columns, centre), after, here], axis=1))
        faces.append(np.stack([np.full(columns, centre + 1), last + here, last + after], axis=1))
    return np.concatenate(faces)


def outward(solid: Solid) -> Solid:
    """A closed solid with its faces turned outside, by the sign of its volume."""
    a, b, c = (solid.vertices[solid.faces[:, k]] for k in range(3))
    inside_out = np.einsum("ij,ij->", cross(a, b), c) < 0
    return Solid(solid.vertices, solid.faces[:, ::-1]) if inside_out else solid


def loft(sections: np.ndarray, *, ring: bool = False, caps: bool = True) -> Solid:
    """A skin over closed loops.

    Args:
        sections: (S, K, 3), S loops of K points.
        ring: Join the last loop to the first, as in a torus.
        caps: Close both ends with fans about the loops' means; loops seen from there as stars.
    """
    rows, columns = sections.shape[:2]
    caps = caps and not ring
    vertices = sections.reshape(-1, 3)
    if caps:
        vertices = np.concatenate([vertices, sections[[0, -1]].mean(axis=1)])
    return outward(Solid(vertices, lofted_faces(rows, columns, ring, caps)))


def sheet(points: np.ndarray, thickness: float = 0.0, axis: int = 1) -> Solid:
    """A grid of points (A, B, 3) as a surface, or as a plate of some thickness along `axis`."""
    rows, columns = points.shape[:2]
    if thickness == 0:
        return Solid(points.reshape(-1, 3), grid_faces(rows, columns, False, False))
    offset = np.zeros(3)
    offset[axis] = thickness
    loops = np.concatenate([points, points[:, ::-1] + offset], axis=1)
    return loft(loops)


def lathe(profile: Sequence[Sequence[float]] | np.ndarray, sides: int = SIDES) -> Solid:
    """A profile of (radius, y), from bottom to top and back inside if hollow, turned about y."""
    profile = np.asarray(profile, dtype=float)
    around = circle(sides)
    sections = np.empty((len(profile), sides, 3))
    sections[..., 0] = profile[:, :1] * around[:, 0]
    sections[..., 1] = profile[:, 1:]
    sections[..., 2] = profile[:, :1] * around[:, 1]
    return loft(sections)


def cylinder(
    radius: float, height: float, top: float | None = None, bevel: float = 0.0, sides: int = SIDES
) -> Solid:
    """A cylinder that stands on y = 0, or a cone's stump with another radius at the top."""
    top = radius if top is None else top
    bevel = min(bevel, 0.45 * height, 0.9 * radius, 0.9 * top)
    if bevel <= 0:
        return lathe([(radius, 0), (top, height)], sides)
    turn = np.linspace(0, np.pi / 2, 3)
    low = [(radius - bevel * (1 - np.sin(t)), bevel * (1 - np.cos(t))) for t in turn]
    high = [(top - bevel * (1 - np.sin(t)), height - bevel * (1 - np.cos(t))) for t in turn[::-1]]
    return lathe(low + high, sides)


def ellipsoid(x: float, y: float, z: float, sides: int = 24, rows: int = 13) -> Solid:
    """An ellipsoid about the origin with these half axes."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, rows)
    return lathe(np.stack([np.cos(angle), np.sin(angle)], axis=1), sides).scaled(x, y, z)


def box(width: float, height: float, depth: float, bevel: float = 0.0, steps: int = 2) -> Solid:
    """A box along x, y and z, centred in x and z, that stands on y = 0; rounded by `bevel`."""
    half = np.array([width, height, depth]) / 2
    bevel = min(bevel, 0.98 * half.min())
    if bevel <= 0:
        steps, bevel = 0, 0.0
    quarter = np.linspace(0, np.pi / 2, steps + 1)
    around = np.concatenate([quarter + k * np.pi / 2 for k in range(4)])
    up = np.concatenate([quarter - np.pi / 2, quarter])
    sign_x = np.repeat([1, -1, -1, 1], steps + 1)
    sign_z = np.repeat([1, 1, -1, -1], steps + 1)
    sign_y = np.repeat([-1, 1], steps + 1)
    inner = half - bevel
    sections = np.empty((len(up), len(around), 3))
    sections[..., 0] = sign_x * inner[0] + bevel * np.cos(up)[:, None] * np.cos(around)
    sections[..., 1] = (sign_y * inner[1] + bevel * np.sin(up))[:, None] + half[1]
    sections[..., 2] = sign_z * inner[2] + bevel * np.cos(up)[:, None] * np.sin(around)
    if steps == 0:  # without a bevel the upper and lower rows are the box itself
        sections = sections[[0, 1]]
    return loft(sections)


def tube(
    path: np.ndarray, radius: float | np.ndarray, sides: int = 12, *, ring: bool = False,
    flatten: float = 1.0,
) -> Solid:  # fmt: skip
    """A tube along a path (P, 3).

    Args:
        path: Its middle line.
        radius: One, or one per point of the path.
        sides: Of its cross-section.
        ring: Whether the path closes.
        flatten: Scale of the cross-section across the plane in which the path bends.
    """
    path = np.asarray(path, dtype=float)
    normal, binormal = transported_frames(path, ring)
    around = circle(sides)
    reach = np.broadcast_to(np.asarray(radius, dtype=float), (len(path),))[:, None, None]
    offsets = around[:, :1] * normal[:, None] + flatten * around[:, 1:] * binormal[:, None]
    return loft(path[:, None] + reach * offsets, ring=ring)


def rod(
    start: Sequence[float] | np.ndarray, end: Sequence[float] | np.ndarray, radius: float,
    end_radius: float | None = None,
    sides: int = 12,
) -> Solid:  # fmt: skip
    """A round bar from one point to another, tapered if the radii differ."""
    radii = np.array([radius, radius if end_radius is None else end_radius])
    return tube(np.array([start, end], dtype=float), radii, sides)


def beam(
    start: Sequence[float], end: Sequence[float], width: float, depth: float, taper: float = 1.0
) -> Solid:
    """A bar with horizontal ends of width x depth, the lower end `start` scaled by `taper`."""
    corner = np.array([[1, 0, 1], [1, 0, -1], [-1, 0, -1], [-1, 0, 1]]) / 2 * (width, 0, depth)
    return loft(np.stack([np.array(start) + taper * corner, np.array(end) + corner]))


def extrusion(outline: np.ndarray, thickness: float, bevel: float = 0.0) -> Solid:
    """An outline (K, 2) in x and y, seen as a star from its mean, thickened along z about 0."""
    half = thickness / 2
    bevel = min(bevel, 0.9 * half)
    centre = outline.mean(axis=0)
    reach = np.sqrt(np.square(outline - centre).sum(axis=1, keepdims=True)).max()
    inset = centre + (outline - centre) * (1 - bevel / reach)
    layers = [(outline, -half), (outline, half)]
    if bevel > 0:
        layers = [(inset, -half), (outline, bevel - half), (outline, half - bevel), (inset, half)]
    return loft(np.stack([np.column_stack([o, np.full(len(o), z)]) for o, z in layers]))


def hoop(outer: np.ndarray, inner: np.ndarray, thickness: float) -> Solid:
    """A flat frame between two outlines (K, 2) in x and y, thickened along z about 0."""
    half = np.full(len(outer), thickness / 2)
    corners = [(outer, -half), (outer, half), (inner, half), (inner, -half)]
    return loft(np.stack([np.column_stack([o, z]) for o, z in corners], axis=1), ring=True)


def torus(radius: float, thickness: float, sides: int = SIDES, tube_sides: int = 12) -> Solid:
    """A ring about the z axis; `thickness` is the radius of its tube."""
    ring = np.column_stack([circle(sides) * radius, np.zeros(sides)])
    return tube(ring, thickness, tube_sides, ring=True)
