"""Stage 1 to 2, writing pairs: `Mesh` -> a cloud and V pictures in the tree of `shapenet`.

    ROOT/ShapeNet/<category>/<model>.ply                            float32 x y z, radius 1
    ROOT/ShapeNetRendering/<category>/<model>/rendering/00.png ...  RGBA

`make` (meshes of a user) and the synthetic data stand before it, `shapenet` reads what it writes.
The cloud is written last and is the mark of a whole pair: a kill never leaves a cloud whose
pictures are incomplete.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np

from pixcloud.atomic import remove_leftovers, replaced_folder, write_bytes
from pixcloud.data.ply import cloud_ply_bytes
from pixcloud.data.render import camera_ring, render_views
from pixcloud.data.surface import surface_points, unit_mesh, unit_sphere
from pixcloud.types import Mesh

SCRATCH = ".partial"
# zlib's least effort but one: twice as fast as the default, and a tenth larger.
PNG_EFFORT = 3


def named_generator(seed: int, purpose: str, *names: str) -> np.random.Generator:
    """The random numbers for one purpose and one named thing.

    They depend on nothing else: not on the order of the work, and not on what else there is.

    Args:
        seed: Not negative.
        purpose: Such as "surface" or "cameras".
        names: Such as category and model.
    """
    text = "\0".join((purpose, *names)).encode("utf-8", "surrogatepass")
    words = np.frombuffer(hashlib.sha256(text).digest()[:16], "<u4").tolist()
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *words))))


def pair_paths(root: Path, category: str, model: str) -> tuple[Path, Path]:
    """The cloud's file, and the folder of the model whose `rendering/` holds the pictures."""
    return (
        root / "ShapeNet" / category / f"{model}.ply",
        root / "ShapeNetRendering" / category / model,
    )


def sample_cloud(
    mesh: Mesh, points: int, seed: int, category: str, model: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cloud of a model as it is stored: centred, at radius 1.

    Returns:
        Points (points, 3) float32, normals (points, 3) float32, face numbers (points,) int64.

    Raises:
        DataError: if the mesh has no faces, no area, or corners that are not finite.
    """
    rng = named_generator(seed, "surface", category, model)
    cloud, normals, faces = surface_points(unit_mesh(mesh), points, rng)
    return unit_sphere(cloud), normals, faces


def write_pair(
    root: Path,
    category: str,
    model: str,
    mesh: Mesh,
    *,
    points: int = 2048,
    views: int = 24,
    size: int = 137,
    seed: int = 0,
) -> None:
    """Write one pair; whatever stood under its name is replaced.

    Args:
        root: Of the tree; folders are created.
        category: Folder of the class.
        model: Name of the shape, unique within its category.
        mesh: y up, in any unit, with or without colours.
        points: Number of surface points of the cloud.
        views: Number of pictures V, from a ring of cameras (`render.camera_ring`).
        size: Side of the pictures in pixels.
        seed: With category and model, it determines every byte.

    Raises:
        DataError: if the mesh has no faces, no area, or corners that are not finite.

    Example:
        >>> import tempfile
        >>> mesh = Mesh(vertices=np.eye(3), faces=np.array([[0, 1, 2]]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_pair(Path(folder), "flat", "one", mesh, points=8, views=2, size=16)
        ...     sorted(p.name for p in Path(folder).rglob("*.p*") if p.is_file())
        ['00.png', '01.png', 'one.ply']
    """
    cloud, _, _ = sample_cloud(mesh, points, seed, category, model)
    azimuths, elevations = camera_ring(views, named_generator(seed, "cameras", category, model))
    pictures = [png_bytes(picture) for picture in render_views(mesh, azimuths, elevations, size)]
    cloud_path, folder = pair_paths(root, category, model)
    cloud_path.unlink(missing_ok=True)
    digits = max(2, len(str(views - 1)))
    # Outside the tree that readers list, until it is whole.
    with replaced_folder(folder, root / SCRATCH) as temporary:
        rendering = temporary / "rendering"
        rendering.mkdir()
        for number, content in enumerate(pictures):
            (rendering / f"{number:0{digits}d}.png").write_bytes(content)
    write_bytes(cloud_path, cloud_ply_bytes(cloud))


def clear_scratch(root: Path) -> None:
    """Remove what a killed writer left, and folders without content; no writer may be at work."""
    shutil.rmtree(root / SCRATCH, ignore_errors=True)
    for tree in ("ShapeNet", "ShapeNetRendering"):
        remove_leftovers(root / tree)
        for folder in (*sorted((root / tree).glob("*")), root / tree):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def is_written(root: Path, category: str, model: str) -> bool:
    """Whether the pair is there as a whole."""
    cloud, folder = pair_paths(root, category, model)
    return cloud.is_file() and (folder / "rendering").is_dir()


def remove_pair(root: Path, category: str, model: str) -> None:
    """Take a pair away, the cloud first; empty folders stay, for others may be writing there."""
    cloud, folder = pair_paths(root, category, model)
    cloud.unlink(missing_ok=True)
    if folder.is_dir():
        shutil.rmtree(folder)


def png_bytes(picture: np.ndarray) -> bytes:
    """Encode (H, W, 4) uint8 as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=PNG_EFFORT)
    return buffer.getvalue()
