"""Stage 1, the door to single files: path -> `PointCloud`, `Mesh` or picture (3, H, W) uint8.

What comes in is one file of a user or a data set; what goes out is in the vocabulary of
`pixcloud.types`. The readers of data sets, the maker of pairs and the search stand after it.
No torch here, and trimesh is imported only for meshes and for clouds of an unusual kind.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pixcloud.data.ply import read_ply_vertices, write_cloud_ply
from pixcloud.errors import AGAIN, FileFormatError
from pixcloud.types import Mesh, PointCloud

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "CLOUD_SUFFIXES",
    "PICTURE_SUFFIXES",
    "read_cloud",
    "read_mesh",
    "read_picture",
    "write_cloud_ply",
]

TEXT_SUFFIXES = (".asc", ".csv", ".pts", ".txt", ".xyz")
CLOUD_SUFFIXES = (".h5", ".hdf5", ".las", ".npy", ".npz", ".ply", *TEXT_SUFFIXES)
PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def read_cloud(
    path: str | os.PathLike[str], on_nonfinite: Literal["error", "drop"] = "error"
) -> PointCloud:
    """Read one point cloud, of any number of points.

    Formats: PLY; NPY, NPZ and HDF5 with an array (N, 3 or more), or the first cloud of (S, N, 3);
    text with columns x y z and more, separated by white space, commas or semicolons; LAS where
    laspy is installed. Columns 4 to 6 of a nameless table are taken as normals if they have unit
    length. Points so far from their origin that float32 would spoil their shape, such as surveyed
    ones, are moved by their mean.

    Args:
        path: The file; its suffix names the format.
        on_nonfinite: What to do when coordinates are NaN or infinite: refuse the file, or drop
            those points.

    Returns:
        Points (N, 3) float32 in the unit of the file, and normals (N, 3) float32 or None.

    Raises:
        FileFormatError: if the file is missing, truncated, broken, empty, of no known format, or
            not finite while `on_nonfinite` is "error".

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/two.npy", np.array([[0, 0, 0], [1, 2, 3]]))
        ...     read_cloud(f"{folder}/two.npy").points.tolist()
        [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]
    """
    suffix = os.path.splitext(path)[1].lower()
    try:
        if suffix == ".ply":
            arrays = read_ply_vertices(path)
            points, normals = unusual_ply(Path(path)) if arrays is None else arrays
        else:
            from pixcloud.data.cloud_files import read_table  # h5py and friends only when needed

            points, normals = read_table(Path(path), suffix)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise FileFormatError(f"{path}: cannot be read: {reason}") from None
    return checked_cloud(path, points, normals, on_nonfinite)


def unusual_ply(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Vertices of a PLY file that only a whole parser understands."""
    import trimesh

    try:
        loaded: Any = trimesh.load(os.fspath(path), file_type="ply", process=False)
        return np.asarray(loaded.vertices, np.float64), None
    except OSError:
        raise
    except Exception as problem:  # a parser raises whatever a broken file makes it trip over
        raise FileFormatError(
            f"{path}: broken or truncated PLY ({type(problem).__name__}: {problem}); {AGAIN}"
        ) from None


def checked_cloud(
    path: str | os.PathLike[str],
    points: np.ndarray,
    normals: np.ndarray | None,
    on_nonfinite: Literal["error", "drop"],
) -> PointCloud:
    """Bring points (N, 3) of any number type to float32, and refuse or drop what is not finite."""
    if points.dtype == np.float32 and points.dtype.isnative:
        single = np.ascontiguousarray(points)
        if single.base is not None:  # a view of the file's read-only bytes
            single = single.copy()
    else:
        with np.errstate(over="ignore"):  # what is too large for float32 is infinite, see below
            single = near_origin(np.asarray(points, np.float64)).astype(np.float32)
    if normals is not None:
        normals = np.array(normals, np.float32)
    # One sum is enough for the usual case: NaN and infinity never leave it again.
    with np.errstate(invalid="ignore"):
        total = single.sum(dtype=np.float64)
    if not np.isfinite(total):
        finite = np.isfinite(single).all(axis=1)
        if not finite.all():
            if on_nonfinite == "error":
                raise FileFormatError(
                    f"{path}: {int((~finite).sum())} of {len(single)} points are NaN or infinite, "
                    f"the first is point {int(np.argmin(finite))}; remove them from the file"
                )
            single = single[finite]
            normals = None if normals is None else normals[finite]
    if len(single) == 0:
        raise FileFormatError(f"{path}: holds no points; {AGAIN}")
    return PointCloud(points=single, normals=normals)


def near_origin(points: np.ndarray) -> np.ndarray:
    """Move float64 points (N, 3) by their mean, if float32 could not tell them apart otherwise."""
    finite = points[np.isfinite(points).all(axis=1)]
    if len(finite) == 0:
        return points
    low, high = finite.min(axis=0), finite.max(axis=0)
    with np.errstate(over="ignore"):
        extent = (high - low).max()
        rounding = np.finfo(np.float32).eps * max(abs(low).max(), abs(high).max())
        if extent > 0 and rounding > 1e-5 * extent:
            return points - finite.mean(axis=0)
    return points


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read one triangle mesh: OFF, OBJ, PLY, STL or GLB.

    Polygons become fans of triangles; the nodes of a scene are placed and joined; colours of
    faces, vertices, materials and textures become one colour per face. Axes stay as they are.

    Args:
        path: The file; its suffix names the format.

    Returns:
        The mesh, at least one face, every index within the vertices. Coordinates may still be
        NaN, and faces may have no area: `pixcloud.data.surface.surface_points` judges that.

    Raises:
        FileFormatError: if the file is missing, truncated, broken, without faces, or of no known
            format.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     off = "OFF4 1 0\\n0 0 0\\n1 0 0\\n1 1 0\\n0 1 0\\n4 0 1 2 3\\n"
        ...     _ = Path(folder, "square.off").write_text(off)
        ...     read_mesh(f"{folder}/square.off").faces.tolist()
        [[0, 1, 2], [0, 2, 3]]
    """
    from pixcloud.data.mesh_files import load_mesh

    return load_mesh(Path(path))


def read_picture(path: str | os.PathLike[str], size: int | None = None) -> np.ndarray:
    """Read one picture as RGB; transparency is composited on white.

    Args:
        path: PNG, JPEG or any other format that Pillow reads, of any mode; 16-bit grey is scaled.
        size: Side in pixels to resize to (bilinear, both sides alike); None keeps the size.

    Returns:
        (3, H, W) uint8.

    Raises:
        FileFormatError: if the file is missing, truncated or no picture.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGBA", (4, 2), (255, 0, 0, 0)).save(f"{folder}/clear.png")
        ...     read_picture(f"{folder}/clear.png")[:, 0, 0].tolist()
        [255, 255, 255]
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            opened.load()
            picture: Image.Image = opened
            if opened.format in ("JPEG", "WEBP"):  # cameras store the rotation apart
                from PIL import ImageOps

                picture = ImageOps.exif_transpose(opened)
            picture = on_white(picture)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: there is no such picture; {AGAIN}") from None
    except Exception as problem:  # broken pictures raise OSError, SyntaxError, ValueError and more
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise FileFormatError(f"{path}: broken or truncated picture ({reason}); {AGAIN}") from None
    if size is not None and picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def on_white(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB on white."""
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":  # 16 or 32 bits of grey
        grey = np.asarray(picture, np.float64)
        if picture.mode != "F":
            grey = grey / 257
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture.copy()
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        page = Image.new("RGB", picture.size, (255, 255, 255))
        page.paste(picture, mask=picture)
        return page
    return picture.convert("RGB")
