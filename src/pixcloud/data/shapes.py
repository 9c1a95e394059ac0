"""Stage 1, shapes of a user: a folder -> clouds and meshes by name, each as points (N, 3).

Before it: the readers of single files. After it: `folder`, and whatever applies a model to files.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pixcloud.data.files import CLOUD_SUFFIXES, read_cloud, read_mesh
from pixcloud.data.mesh_files import MESH_SUFFIXES
from pixcloud.data.pair_writer import named_generator
from pixcloud.data.ply import header_elements
from pixcloud.data.surface import surface_points, unit_mesh
from pixcloud.errors import AGAIN, DataError, FileFormatError

SHAPE_SUFFIXES = tuple(sorted({*CLOUD_SUFFIXES, *MESH_SUFFIXES}))


def list_shapes(root: Path) -> list[Path]:
    """Clouds and meshes below a folder, sorted, or the one file; hidden files are passed over.

    Raises:
        DataError: if there is none.
    """
    known = ", *".join(SHAPE_SUFFIXES)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise DataError(f"{root}: no such file or folder; give one with *{known}")
    found = []
    for parent, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        usable = [n for n in files if n.lower().endswith(SHAPE_SUFFIXES) and not n.startswith(".")]
        found += [Path(parent, name) for name in usable]
    if not found:
        raise DataError(f"{root}: no clouds or meshes there; expected *{known}")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def shape_points(
    path: Path, name: str, count: int, up: str, seed: int, purpose: str = "classify"
) -> np.ndarray:
    """Points (count, 3) float32 of a cloud or a mesh, a function of (its content, name, seed).

    Raises:
        DataError: if the file is broken, or the mesh has no surface.
    """
    rng = named_generator(seed, purpose, name)
    if is_mesh(path):
        try:
            points = surface_points(unit_mesh(read_mesh(path)), count, rng)[0]
        except DataError as error:
            if str(path) in str(error):
                raise
            raise DataError(f"{path}: {error}") from error
    else:
        cloud = read_cloud(path).points
        points = cloud[some_points(len(cloud), count, rng)]
    return turned(points) if up == "z" else np.asarray(points, np.float32)


def turned(points: np.ndarray) -> np.ndarray:
    """Points (N, 3) with z up as points with y up: (x, y, z) -> (x, z, -y)."""
    x, y, z = np.asarray(points, np.float32).T
    return np.stack([x, z, -y], axis=1)


def some_points(stored: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places (count,) of random points of a cloud: each once, and only then some of them again."""
    if stored >= count:
        return rng.choice(stored, count, replace=False)
    return np.concatenate([rng.permutation(stored), rng.choice(stored, count - stored)])


def is_mesh(path: Path) -> bool:
    """Whether a file holds a mesh, by its suffix; of PLY, whether its header declares faces.

    Raises:
        FileFormatError: if the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix != ".ply":
        return suffix in MESH_SUFFIXES
    return bool(ply_counts(path).get("face"))


def ply_counts(path: Path) -> dict[str, int]:
    """The elements that a PLY file's header declares, such as vertex and face, with their numbers.

    Raises:
        FileFormatError: if the file cannot be read, or has no such header.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(1 << 16).split(b"end_header")[0]
        return {name: count for name, count, _ in header_elements(header)[0]}
    except OSError as problem:
        raise FileFormatError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except ValueError as problem:
        raise FileFormatError(f"{path}: broken PLY header: {problem}; {AGAIN}") from None
