"""Stage 1, pictures: `Mesh` -> (V, size, size, 4) uint8 RGBA; `pair_writer` stands after it.

Rays against the triangles, shaded by `shading`: no display and no graphics driver is needed, and
the same mesh and camera give the same bytes. The camera looks from a ring around the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pixcloud.data.mesh_files import srgb
from pixcloud.data.shading import (
    KEY_LIGHT,
    Surface,
    facing_normals,
    light_direction,
    prepare_surface,
    shade,
    unit,
)
from pixcloud.data.surface import surface_points, unit_mesh
from pixcloud.types import Mesh

__all__ = ["camera_ring", "render_views", "surface_points"]

DISTANCE = 3.2  # of the camera from the centre of a mesh of radius 1
MARGIN = 0.04  # share of the frame that stays empty on each side
# Places on the surface that are looked for: where one lies and the first ray met nothing, there is
# something thinner than a pixel, and further rays go there.
MARKS = 4096
CONTRAST = 10  # of 255: neighbours that differ by more are looked at more closely
# Where in its pixel the first ray goes: the four places of the pattern alternate, so that a pole
# thinner than a pixel is seen at least in every second row.
FIRST = np.array([[0.375, 0.125], [0.875, 0.375], [0.125, 0.625], [0.625, 0.875]], np.float32)
# The further rays of a pixel with an edge (the usual places of eightfold multisampling).
FURTHER = (
    np.array([[1, -3], [-1, 3], [5, 1], [-3, -5], [-5, 5], [-7, -1], [3, 7], [7, -7]], np.float32)
    / 16
    + 0.5
)
# Linear light in steps of 1 / 16383 to sRGB; a step is less than a quarter of a grey level.
ENCODED = np.rint(srgb(np.linspace(0, 1, 16384)) * 255).astype(np.uint8)


@dataclass(frozen=True)
class RayScene:
    """A mesh of radius 1 in the ray tracer.

    corners (V, 3) float64 that faces name; marks (M, 3) float64, places all over the surface.
    """

    tracer: Any
    surface: Surface
    corners: np.ndarray
    marks: np.ndarray


def camera_ring(views: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places of cameras around a shape.

    Args:
        views: Number of pictures V.
        rng: Source of the 2 V + 1 random numbers.

    Returns:
        Azimuths (V,) in degrees, spread evenly from a random start and each moved by up to a
        quarter of the step, and elevations (V,) in degrees between 25 and 30.

    Example:
        >>> azimuths, elevations = camera_ring(4, np.random.default_rng(0))
        >>> bool(np.all((elevations >= 25) & (elevations <= 30)))
        True
    """
    if views < 1:
        raise ValueError(f"views = {views}: at least one is needed")
    step = 360.0 / views
    start = rng.random() * 360.0
    azimuths = start + step * (np.arange(views) + (rng.random(views) - 0.5) / 2)
    return azimuths % 360.0, 25.0 + 5.0 * rng.random(views)


def render_views(
    mesh: Mesh, azimuths: np.ndarray, elevations: np.ndarray, size: int = 137
) -> np.ndarray:
    """Render a mesh from cameras around it, with perspective, y up, on transparency.

    The whole mesh is in the frame and fills it: the window is fitted to the projected corners,
    with an empty margin around. Edges are smoothed by further rays; alpha is coverage.

    Args:
        mesh: Any mesh, in any unit; grey if it has no colours. Both sides of faces are seen.
        azimuths: (V,) degrees about the y axis; 0 looks from +z, 90 from +x.
        elevations: (V,) degrees above the ground plane.
        size: Height and width in pixels.

    Returns:
        (V, size, size, 4) uint8 sRGB with straight alpha.

    Raises:
        DataError: if the mesh has no faces, no area, or corners that are not finite.

    Example:
        >>> triangle = Mesh(vertices=np.array([[0., 0, 0], [1, 0, 0], [0, 1, 0]]),
        ...                 faces=np.array([[0, 1, 2]]))
        >>> render_views(triangle, np.array([0.0]), np.array([25.0]), size=32).shape
        (1, 32, 32, 4)
    """
    scene = build_scene(mesh)
    cameras = zip(np.radians(azimuths), np.radians(elevations), strict=True)
    return np.stack([render_view(scene, *camera, size) for camera in cameras])


def build_scene(mesh: Mesh) -> RayScene:
    """Put a mesh into the ray tracer."""
    from embreex import rtcore_scene
    from embreex.mesh_construction import TriangleMesh

    mesh = unit_mesh(mesh)
    tracer = rtcore_scene.EmbreeScene()
    TriangleMesh(tracer, mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))
    corners = mesh.vertices[np.unique(mesh.faces)]
    rng = np.random.Generator(np.random.Philox(0))
    marks = surface_points(mesh, MARKS, rng)[0].astype(np.float64)
    return RayScene(tracer=tracer, surface=prepare_surface(mesh), corners=corners, marks=marks)


@dataclass(frozen=True)
class Camera:
    """frame (3, 3) rows right, up, towards the camera; window centre (2,) and half width."""

    frame: np.ndarray
    centre: np.ndarray
    half: float
    box: tuple[int, int, int, int]

    @property
    def eye(self) -> np.ndarray:
        """The camera's place (3,)."""
        return self.frame[2] * DISTANCE


def fit_camera(corners: np.ndarray, azimuth: float, elevation: float, size: int) -> Camera:
    """Aim at a mesh of radius 1 so that all its corners (V, 3) are in the frame.

    The window lies in the plane at distance 1; box is (top, bottom, left, right), the half-open
    range of rows and columns that the corners can reach.
    """
    sin_a, cos_a, sin_e, cos_e = (
        np.sin(azimuth), np.cos(azimuth), np.sin(elevation), np.cos(elevation),
    )  # fmt: skip
    towards = np.array([cos_e * sin_a, sin_e, cos_e * cos_a])
    right = np.array([cos_a, 0.0, -sin_a])
    frame = np.stack([right, np.cross(towards, right), towards])
    flat = project(corners, frame)
    low, high = flat.min(axis=0), flat.max(axis=0)
    # One pixel and a half at least: no picture so small that its border is touched.
    margin = min(max(MARGIN, 1.5 / size), 0.45)
    half = max(float((high - low).max()) / 2, 1e-6) / (1 - 2 * margin)
    centre = (low + high) / 2
    pixels = ((np.stack([low, high]) - centre) / half + 1) / 2 * size
    left, right_end = int(pixels[0, 0]) - 1, int(np.ceil(pixels[1, 0])) + 1
    top, bottom = int(size - pixels[1, 1]) - 1, int(np.ceil(size - pixels[0, 1])) + 1
    box = (max(top, 0), min(bottom, size), max(left, 0), min(right_end, size))
    return Camera(frame=frame, centre=centre, half=half, box=box)


def project(points: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Places (n, 2) of points (n, 3) in the plane at distance 1 before the camera."""
    placed = points @ frame.T
    return placed[:, :2] / (DISTANCE - placed[:, 2:])


def thin_mask(
    scene: RayScene, camera: Camera, alpha: np.ndarray, shape: tuple[int, int], size: int
) -> np.ndarray:
    """(H * W,) bool: pixels of the box in which surface lies and the first ray met nothing."""
    flat = (project(scene.marks, camera.frame) - camera.centre) / camera.half
    column = ((flat[:, 0] + 1) / 2 * size).astype(np.int64) - camera.box[2]
    row = ((1 - flat[:, 1]) / 2 * size).astype(np.int64) - camera.box[0]
    inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
    marked = np.zeros(shape, bool)
    marked[row[inside], column[inside]] = True
    return marked.ravel() & (alpha == 0)


def render_view(scene: RayScene, azimuth: float, elevation: float, size: int) -> np.ndarray:
    """One picture (size, size, 4) uint8; angles in radians."""
    camera = fit_camera(scene.corners, azimuth, elevation, size)
    top, bottom, left, right = camera.box
    shape = (bottom - top, right - left)
    rows = np.repeat(np.arange(top, bottom), shape[1])
    columns = np.tile(np.arange(left, right), shape[0])
    place = FIRST[2 * (rows % 2) + columns % 2]
    total = trace(scene, camera, columns + place[:, 0], rows + place[:, 1], size)
    pixels = straight(total)
    closer = contrast_mask(pixels, shape) | thin_mask(scene, camera, pixels[3], shape, size)
    edge = np.flatnonzero(closer)
    if len(edge):
        x = (columns[edge, None] + FURTHER[:, 0]).ravel()
        y = (rows[edge, None] + FURTHER[:, 1]).ravel()
        more = trace(scene, camera, x, y, size).reshape(4, len(edge), len(FURTHER)).sum(axis=2)
        pixels[:, edge] = straight((total[:, edge] + more) / (len(FURTHER) + 1))
    picture = np.full((size, size, 4), (255, 255, 255, 0), np.uint8)
    picture[top:bottom, left:right] = pixels.T.reshape(*shape, 4)
    return picture


def trace(scene: RayScene, camera: Camera, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Premultiplied linear RGBA (4, n) float32 seen at places (n,) of the picture, in pixels."""
    step = 2 * camera.half / size
    across = (x * step + (camera.centre[0] - camera.half)).astype(np.float32)
    upwards = (y * -step + (camera.centre[1] + camera.half)).astype(np.float32)
    frame, eye = camera.frame.astype(np.float32), camera.eye.astype(np.float32)
    ways = np.empty((len(x), 3), np.float32)
    for axis in range(3):
        ways[:, axis] = across * frame[0, axis] + (upwards * frame[1, axis] - frame[2, axis])
    hits = scene.tracer.run(np.tile(eye, (len(x), 1)), ways, query="INTERSECT", output=True)
    out = np.zeros((4, len(x)), np.float32)
    seen = np.flatnonzero(hits["primID"] >= 0)
    if len(seen) == 0:
        return out
    face = hits["primID"].take(seen)
    way = np.ascontiguousarray(ways.take(seen, axis=0).T)
    towards = -unit(way)
    u, v = hits["u"].take(seen), hits["v"].take(seen)
    smooth, flat = facing_normals(scene.surface, face, u, v, towards)
    places = eye[:, None] + way * hits["tfar"].take(seen) + flat * np.float32(2e-4)
    lit = key_light_reaches(scene, places, flat, light_direction(KEY_LIGHT, camera.frame))
    albedo = scene.surface.albedo.take(face, axis=1)
    color = shade(albedo, smooth, towards, lit, frame)
    out[:3, seen] = np.clip(color, 0, 1)
    out[3, seen] = 1
    return out


def key_light_reaches(
    scene: RayScene, places: np.ndarray, flat: np.ndarray, key: np.ndarray
) -> np.ndarray:
    """Whether nothing stands between places (3, n) and the key light: (n,) bool.

    Faces turned away from the light count as reached: their smooth normals darken them already,
    and a hard shadow there would show the faces of a coarse mesh.
    """
    lit = np.ones(places.shape[1], bool)
    asked = np.flatnonzero(key @ flat > 0.05)
    if len(asked):
        starts = np.ascontiguousarray(places.take(asked, axis=1).T)
        ways = np.tile(key, (len(asked), 1))
        lit[asked] = scene.tracer.run(starts, ways, query="OCCLUDED") < 0
    return lit


def straight(premultiplied: np.ndarray) -> np.ndarray:
    """sRGB with straight alpha (4, n) uint8 out of premultiplied linear light (4, n)."""
    out = np.full(premultiplied.shape, 255, np.uint8)
    alpha = premultiplied[3]
    share = premultiplied[:3] / np.where(alpha > 0, alpha, 1)
    encoded = ENCODED[(share * (len(ENCODED) - 1) + 0.5).astype(np.int32)]
    np.copyto(out[:3], encoded, where=alpha > 0)
    out[3] = np.rint(alpha * 255)
    return out


def contrast_mask(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H * W,) bool: which pixels (4, H * W) uint8 differ from one of their eight neighbours."""
    grid = pixels.reshape(4, *shape)
    lows, highs = grid, grid
    for axis in (1, 2):
        lows, highs = spread(lows, axis, np.minimum), spread(highs, axis, np.maximum)
    return ((highs - lows).max(axis=0) > CONTRAST).ravel()


def spread(grid: np.ndarray, axis: int, choose: np.ufunc) -> np.ndarray:
    """Each pixel's choice (least or greatest) among itself and its two neighbours on an axis."""
    out = grid.copy()
    near = np.moveaxis(out, axis, 0)
    source = np.moveaxis(grid, axis, 0)
    choose(near[1:], source[:-1], out=near[1:])
    choose(near[:-1], source[1:], out=near[:-1])
    return out
