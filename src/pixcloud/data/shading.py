"""Stage 1, light: what `render` needs of a mesh once, and the colour of a hit.

In: a mesh of radius 1 and, for each ray that hit it, the face, its barycentric place and the
directions. Out: linear RGB (3, n). `render` casts the rays and keeps the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixcloud.data.mesh_files import NEUTRAL_COLOR, linear_light
from pixcloud.data.surface import face_cross
from pixcloud.types import Mesh

# Faces that meet at less than this angle share a smooth normal.
CREASE_DEGREES = 40.0
# Directions towards the lights as (right, up, towards the camera), and their strengths.
KEY_LIGHT, KEY = (-0.55, 0.75, 0.55), 0.80
FILL_LIGHT, FILL = (0.85, 0.15, 0.50), 0.20
RIM_LIGHT, RIM = (0.35, 0.60, -0.75), 0.35
SKY, GROUND = 0.31, 0.10
SHADOW = 0.24  # share of the key light that reaches a shadow
GLOSS = 0.10


@dataclass(frozen=True)
class Surface:
    """A mesh made ready for shading.

    normals (3, 3, F) float32 unit normals: corner, axis, face; flat (3, F) float32 of the faces;
    albedo (3, F) float32 linear RGB. Faces come last, so that sums over axes are fast.
    """

    normals: np.ndarray
    flat: np.ndarray
    albedo: np.ndarray


def prepare_surface(mesh: Mesh) -> Surface:
    """Normals and colours of a mesh for shading."""
    cross = face_cross(mesh.vertices, mesh.faces)
    length = np.sqrt(np.square(cross).sum(axis=1, keepdims=True))
    flat = np.divide(cross, length, out=np.zeros_like(cross), where=length > 0)
    if mesh.face_colors is None:
        colors = np.tile(np.array(NEUTRAL_COLOR, np.float64), (len(mesh.faces), 1))
    else:
        colors = mesh.face_colors[:, :3].astype(np.float64)
    return Surface(
        normals=np.ascontiguousarray(corner_normals(mesh, cross, flat).transpose(1, 2, 0), "f4"),
        flat=np.ascontiguousarray(flat.T, np.float32),
        albedo=np.ascontiguousarray(linear_light(colors / 255).T, np.float32),
    )


def corner_normals(mesh: Mesh, cross: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Normals (F, 3, 3) of the corners, smooth across edges that are no creases.

    Corners at one place are one group if a walk over shared edges, none of them a crease, joins
    their faces; a group's normal is the sum of its faces' normals, weighted by area. So the side
    of a cylinder is smooth and its rim is sharp. Windings may disagree: signs are made equal
    within a group, and each corner's normal is turned to the side of its own face.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num_faces = len(mesh.faces)
    places = merged_places(mesh.vertices)[mesh.faces]
    first, second = joined_corners(places, flat)
    links = coo_array(
        (np.ones(len(first), np.int8), (first, second)), shape=(3 * num_faces, 3 * num_faces)
    )
    _, group = connected_components(links, directed=False)
    face = np.repeat(np.arange(num_faces), 3)
    _, leader = np.unique(group, return_index=True)
    side = np.sign(np.einsum("ij,ij->i", flat[face], flat[face[leader[group]]]))
    signed = cross[face] * np.where(side == 0, 1, side)[:, None]
    total = np.stack([np.bincount(group, signed[:, axis]) for axis in range(3)], axis=1)[group]
    total *= np.where(np.einsum("ij,ij->i", total, flat[face]) < 0, -1, 1)[:, None]
    length = np.sqrt(np.square(total).sum(axis=1, keepdims=True))
    smooth = np.divide(total, length, out=flat[face].copy(), where=length > 1e-20)
    return smooth.reshape(num_faces, 3, 3)


def merged_places(vertices: np.ndarray) -> np.ndarray:
    """Number (V,) of each vertex's place: vertices at one place, to 1e-6, have one number."""
    grid = np.rint(vertices * 1e6).astype(np.int64)
    order = np.lexsort(grid.T)
    new = np.any(np.diff(grid[order], axis=0) != 0, axis=1)
    place = np.empty(len(vertices), np.int64)
    place[order] = np.concatenate([[0], np.cumsum(new)])
    return place


def joined_corners(places: np.ndarray, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of corners (numbers 3 face + corner) that meet across an edge that is no crease."""
    face = np.tile(np.arange(len(places)), 3)
    start = np.concatenate([places[:, k] for k in range(3)])
    end = np.concatenate([places[:, (k + 1) % 3] for k in range(3)])
    start_corner = 3 * face + np.repeat([0, 1, 2], len(places))
    end_corner = 3 * face + np.repeat([1, 2, 0], len(places))
    turned = start > end
    low, high = np.where(turned, end, start), np.where(turned, start, end)
    low_corner = np.where(turned, end_corner, start_corner)
    high_corner = np.where(turned, start_corner, end_corner)
    key = low * (places.max() + 1) + high
    order = np.argsort(key, kind="stable")
    a, b = order[:-1], order[1:]
    agree = np.abs(np.einsum("ij,ij->i", flat[face[a]], flat[face[b]]))
    joined = (key[a] == key[b]) & (agree > np.cos(np.radians(CREASE_DEGREES)))
    a, b = a[joined], b[joined]
    first = np.concatenate([low_corner[a], high_corner[a]])
    second = np.concatenate([low_corner[b], high_corner[b]])
    return first, second


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (3, ...) at length 1; those of length 0 stay."""
    squared = vectors[0] * vectors[0] + vectors[1] * vectors[1] + vectors[2] * vectors[2]
    return vectors / np.sqrt(np.maximum(squared, 1e-30))


def light_direction(light: tuple[float, float, float], frame: np.ndarray) -> np.ndarray:
    """The direction (3,) float32 towards a light, out of the camera's frame (3, 3)."""
    return unit(np.array(light) @ frame).astype(np.float32)


def facing_normals(
    surface: Surface, face: np.ndarray, u: np.ndarray, v: np.ndarray, towards: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth and flat normals (3, n) of hits, both turned to the side that the camera sees."""
    first, second, third = surface.normals
    smooth = first.take(face, axis=1) * (1 - u - v)
    smooth += second.take(face, axis=1) * u
    smooth += third.take(face, axis=1) * v
    flat = surface.flat.take(face, axis=1)
    along = flat[0] * towards[0] + flat[1] * towards[1] + flat[2] * towards[2]
    turn = np.where(along < 0, np.float32(-1), np.float32(1))
    return unit(smooth) * turn, flat * turn


def shade(
    albedo: np.ndarray,
    normal: np.ndarray,
    towards: np.ndarray,
    lit: np.ndarray,
    frame: np.ndarray,
) -> np.ndarray:
    """Linear RGB (3, n) of hits under a key, a fill and a rim light and a soft sky.

    Args:
        albedo: (3, n) linear RGB.
        normal: (3, n) unit normals on the camera's side.
        towards: (3, n) unit directions to the camera.
        lit: (n,) bool, whether the key light reaches the hit.
        frame: (3, 3) rows right, up, towards the camera.
    """
    lights = np.stack([light_direction(x, frame) for x in (KEY_LIGHT, FILL_LIGHT, RIM_LIGHT)])
    on_key, on_fill, on_rim = lights @ normal
    share = np.where(lit, np.float32(1), np.float32(SHADOW))
    # The wrap softens the terminator, which on coarse meshes would show their faces.
    diffuse = np.maximum((on_key + 0.15) * (KEY / 1.15), 0) * share
    diffuse += np.maximum(on_fill, 0) * FILL
    diffuse += (SKY + GROUND) / 2 + (SKY - GROUND) / 2 * normal[1]
    facing = normal[0] * towards[0] + normal[1] * towards[1] + normal[2] * towards[2]
    grazing = 1 - np.clip(facing, 0, 1)
    glow = grazing * grazing * grazing * np.clip(on_rim + 0.3, 0, 1) * RIM
    half = unit(towards + lights[0][:, None])
    gloss = np.maximum(normal[0] * half[0] + normal[1] * half[1] + normal[2] * half[2], 0)
    gloss *= gloss  # to the power of 32 by squaring: a general power takes ten times as long
    gloss *= gloss
    gloss *= gloss
    gloss *= gloss
    gloss *= gloss
    glow += gloss * share * GLOSS
    return albedo * diffuse + glow
