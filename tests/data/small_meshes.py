"""Small meshes and their files for the tests of stage 1, written with other code than ours."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from pixcloud.types import Mesh

CUBE_CORNERS = [[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]
# Counter-clockwise seen from outside.
CUBE_SQUARES = [
    [0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3],
]  # fmt: skip


def box(x: float = 1, y: float = 1, z: float = 1) -> Mesh:
    """A box with a corner at 0 and twelve triangles."""
    faces = [[s[0], s[k], s[k + 1]] for s in CUBE_SQUARES for k in (1, 2)]
    corners = np.array(CUBE_CORNERS, float) * (x, y, z)
    return Mesh(vertices=corners, faces=np.array(faces))


def write_off(path: Path, mesh: Mesh, header: str = "OFF\n") -> Path:
    """An OFF file of triangles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{header}{len(mesh.vertices)} {len(mesh.faces)} 0"]
    lines += [" ".join(map(repr, row)) for row in mesh.vertices.tolist()]
    lines += ["3 " + " ".join(map(str, row)) for row in mesh.faces.tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_obj(path: Path, mesh: Mesh) -> Path:
    """An OBJ file of triangles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["v " + " ".join(map(repr, row)) for row in mesh.vertices.tolist()]
    lines += ["f " + " ".join(str(i + 1) for i in row) for row in mesh.faces.tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def tree_hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but the lock, by relative path."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "lock"
    }
