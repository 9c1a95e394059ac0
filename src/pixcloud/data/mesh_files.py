"""Stage 1, meshes: one file (OFF, OBJ, PLY, STL, GLB) -> `Mesh`; `files.read_mesh` opens this door.

OFF is read here, since files of ModelNet glue the header to the counts; the rest by trimesh.
Scenes of several nodes become one mesh, in the order of the nodes' names. Colours of faces,
vertices, materials and textures become one sRGB colour per face.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.errors import AGAIN, FileFormatError
from pixcloud.types import Mesh

MESH_SUFFIXES = (".glb", ".obj", ".off", ".ply", ".stl")
# sRGB grey of faces for which the source has no colour.
NEUTRAL_COLOR = (196, 198, 204)
OFF_HEADER = re.compile(rb"(?:ST)?(C)?(N)?(4)?(n)?OFF(?: BINARY)?", re.IGNORECASE)


def load_mesh(path: Path) -> Mesh:
    """Read a mesh by its suffix; see `pixcloud.data.files.read_mesh`."""
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise FileFormatError(
            f"{path}: {suffix or 'no suffix'} is no mesh format known here; "
            f"known ones are {', '.join(MESH_SUFFIXES)}"
        )
    try:
        mesh = read_off(path) if suffix == ".off" else read_with_trimesh(path, suffix)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise FileFormatError(f"{path}: cannot be read: {reason}") from None
    if len(mesh.faces) == 0:
        raise FileFormatError(f"{path}: holds no faces; a mesh with triangles was expected")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise FileFormatError(
            f"{path}: broken: a face names vertex {mesh.faces.max()} of {len(mesh.vertices)}"
        )
    return mesh


def read_off(path: Path) -> Mesh:
    """Read an OFF file: comments, blank lines, `OFF490 518 0`, polygons, colours of faces."""
    content = path.read_bytes()
    lines = [line.split(b"#")[0].split() for line in content.splitlines()]
    lines = [line for line in lines if line]
    header = OFF_HEADER.match(b" ".join(lines[0])) if lines else None
    if header is None:
        raise FileFormatError(f"{path}: not an OFF file: it does not begin with 'OFF'")
    if header.group(0).upper().endswith(b"BINARY") or header.group(3) or header.group(4):
        raise FileFormatError(f"{path}: binary and 4-D OFF are not read; save it as plain OFF")
    counts = b" ".join(lines[0])[header.end() :].split()
    rows = lines[1:]
    if not counts and rows:
        counts, rows = rows[0], rows[1:]
    try:
        num_vertices, num_faces = int(counts[0]), int(counts[1])
        if min(num_vertices, num_faces) < 0:
            raise ValueError
    except (ValueError, IndexError):
        raise FileFormatError(
            f"{path}: broken OFF: the header should give the numbers of vertices and faces"
        ) from None
    if len(rows) < num_vertices + num_faces:
        raise FileFormatError(
            f"{path}: truncated: {len(rows)} of {num_vertices + num_faces} lines of vertices and "
            f"faces; {AGAIN}"
        )
    try:
        vertices = np.array([row[:3] for row in rows[:num_vertices]]).astype(np.float64)
        vertices = vertices.reshape(num_vertices, 3)
        polygons = rows[num_vertices : num_vertices + num_faces]
        sizes = np.array([row[0] for row in polygons]).astype(np.int64)
        if any(len(row) <= size for row, size in zip(polygons, sizes, strict=True)):
            raise ValueError("a face has fewer corners than it says")
        faces, owner = triangulate(polygons, sizes)
    except ValueError as problem:
        raise FileFormatError(f"{path}: broken OFF: {problem}") from None
    colors = off_colors(polygons, sizes)
    return Mesh(
        vertices=vertices, faces=faces, face_colors=None if colors is None else colors[owner]
    )


def triangulate(polygons: list[list[bytes]], sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fans of polygons: triangles (F, 3) in the polygons' order, and each one's polygon (F,)."""
    triangles, owners = [np.empty((0, 3), np.int64)], [np.empty(0, np.int64)]
    for size in np.unique(sizes[sizes >= 3]):
        chosen = np.flatnonzero(sizes == size)
        corners = np.array([polygons[i][1 : size + 1] for i in chosen]).astype(np.int64)
        fan = [corners[:, [0, k, k + 1]] for k in range(1, size - 1)]
        triangles.append(np.concatenate(fan))
        owners.append(np.tile(chosen, size - 2))
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.concatenate(triangles)[order], owner[order]


def off_colors(polygons: list[list[bytes]], sizes: np.ndarray) -> np.ndarray | None:
    """RGB (polygons, 3) uint8 if every face line ends with a colour, else None."""
    tails = [row[size + 1 : size + 4] for row, size in zip(polygons, sizes, strict=True)]
    if not tails or any(len(tail) < 3 for tail in tails):
        return None
    try:
        values = np.array(tails).astype(np.float64)
    except ValueError:
        return None
    if any(b"." in word for tail in tails for word in tail):  # 0 to 1
        values = values * 255
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def read_with_trimesh(path: Path, suffix: str) -> Mesh:
    """Read any other format, all nodes of its scene placed and joined."""
    check_stl_size(path, suffix)
    import trimesh

    try:
        # With no option the loader merges vertices and drops faces: the file is wanted as it is.
        scene = trimesh.load_scene(os.fspath(path), file_type=suffix[1:], process=False)
        parts = [
            placed_part(scene, node, suffix)
            for node in sorted(scene.graph.nodes_geometry)
            if isinstance(scene.geometry[scene.graph[node][1]], trimesh.Trimesh)
        ]
    except OSError:
        raise
    except Exception as problem:  # the parsers raise whatever a broken file makes them trip over
        raise FileFormatError(
            f"{path}: broken or truncated {suffix[1:].upper()} ({plain_reason(problem)}); {AGAIN}"
        ) from None
    if not parts:
        raise FileFormatError(f"{path}: holds no faces; a mesh with triangles was expected")
    first = np.cumsum([0] + [len(part.vertices) for part in parts])
    colors = None
    if any(part.face_colors is not None for part in parts):
        colors = np.concatenate([colors_or_neutral(part) for part in parts])
    return Mesh(
        vertices=np.concatenate([part.vertices for part in parts]),
        faces=np.concatenate([p.faces + start for p, start in zip(parts, first, strict=False)]),
        face_colors=colors,
        pieces=len(parts),
    )


def check_stl_size(path: Path, suffix: str) -> None:
    """Compare a binary STL's size with its count of triangles."""
    if suffix != ".stl":
        return
    with open(path, "rb") as file:
        head = file.read(84)
        size = file.seek(0, os.SEEK_END)
    if head.lstrip()[:5].lower() == b"solid" and b"\0" not in head:
        return
    expected = 84 + 50 * struct.unpack("<I", head[80:])[0] if len(head) == 84 else 84
    if size < expected:
        raise FileFormatError(f"{path}: truncated: {size} of {expected} bytes; {AGAIN}")


def plain_reason(problem: Exception) -> str:
    """One short line about an exception of a parser."""
    if isinstance(problem, ImportError):  # a library for guessing text encodings, of no help here
        return "its bytes are no valid text"
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text[:120]}" if text else type(problem).__name__


def placed_part(scene: Any, node: str, suffix: str) -> Mesh:
    """One node of a trimesh scene with its transform applied."""
    transform, name = scene.graph[node]
    part = scene.geometry[name]
    vertices = np.asarray(part.vertices, np.float64)
    if not np.array_equal(transform, np.eye(4)):
        vertices = vertices @ transform[:3, :3].T + transform[:3, 3]
    faces = np.asarray(part.faces, np.int64)
    if np.linalg.det(transform[:3, :3]) < 0:  # a mirror turns the winding round
        faces = faces[:, ::-1]
    return Mesh(vertices=vertices, faces=faces, face_colors=part_colors(part, suffix == ".glb"))


def colors_or_neutral(mesh: Mesh) -> np.ndarray:
    """(F, 3) uint8 colours of a mesh, the neutral one where it has none."""
    if mesh.face_colors is not None:
        return mesh.face_colors
    return np.tile(np.array(NEUTRAL_COLOR, np.uint8), (len(mesh.faces), 1))


def part_colors(part: Any, linear: bool) -> np.ndarray | None:
    """sRGB (F, 3) uint8 of a trimesh geometry, or None if its file gives no colour.

    Args:
        part: A `trimesh.Trimesh`.
        linear: Factors and vertex colours are linear light, as glTF defines them.
    """
    visual, faces = part.visual, np.asarray(part.faces)
    if visual.kind == "face":
        return np.asarray(visual.face_colors)[:, :3].astype(np.uint8)
    if visual.kind == "vertex":
        of_faces = np.asarray(visual.vertex_colors, np.float64)[faces][..., :3].mean(axis=1) / 255
        return to_bytes(srgb(of_faces) if linear else of_faces)
    if visual.kind != "texture":
        return None
    material = visual.material
    if linear:
        factor = getattr(material, "baseColorFactor", None)
        image = getattr(material, "baseColorTexture", None)
    else:
        # trimesh makes up a checkered material where a file names none, or one that is missing.
        made_up = not material.kwargs and getattr(material, "_name", None) is None
        factor = None if made_up else material.diffuse
        image = None if made_up else material.image
        if image is not None:
            factor = None  # exporters of OBJ write any Kd beside a texture: viewers ignore it
    if factor is None and image is None:
        return None
    color = np.ones((len(faces), 3))
    if factor is not None:
        color = color * (np.asarray(factor, np.float64)[:3] / 255)
    if image is not None and visual.uv is not None and len(visual.uv) == len(part.vertices):
        texels = sample_texture(image, np.asarray(visual.uv, np.float64)[faces].mean(axis=1))
        color = color * (linear_light(texels) if linear else texels)
    return to_bytes(srgb(color) if linear else color)


def sample_texture(image: Any, uv: np.ndarray) -> np.ndarray:
    """Nearest texels (F, 3) in [0, 1] of a PIL picture at uv (F, 2), repeated beyond its edges."""
    pixels = np.asarray(image.convert("RGB"), np.float64) / 255
    height, width = pixels.shape[:2]
    uv = np.nan_to_num(uv) % 1.0
    column = np.minimum((uv[:, 0] * width).astype(np.int64), width - 1)
    row = np.minimum(((1 - uv[:, 1]) * height).astype(np.int64), height - 1)
    return pixels[row, column]


def srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB in [0, 1] (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def linear_light(encoded: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to linear light in [0, 1], the inverse of `srgb`."""
    low = encoded / 12.92
    return np.where(encoded <= 0.04045, low, ((encoded + 0.055) / 1.055) ** 2.4)


def to_bytes(color: np.ndarray) -> np.ndarray:
    """[0, 1] to uint8."""
    return np.rint(np.clip(color, 0, 1) * 255).astype(np.uint8)
