"""Readers of one cloud and of one picture: every format, and every way to be broken."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from pixcloud.data.files import read_cloud, read_picture, write_cloud_ply
from pixcloud.errors import FileFormatError

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(50, 3)).astype(np.float32)
NORMALS = (POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)).astype(np.float32)
FACE = struct.pack("<Biii", 3, 0, 1, 2)


def ply_header(
    form: str, count: int, properties: str, rest: str = "", newline: str = "\n"
) -> bytes:
    lines = ["ply", f"format {form} 1.0", "comment by a test", f"element vertex {count}"]
    lines += [f"property {p.strip()}" for p in properties.split(",")]
    lines += [line for line in rest.split("\n") if line] + ["end_header", ""]
    return newline.join(lines).encode()


def test_ply_binary_with_colors_normals_and_faces(tmp_path: Path) -> None:
    record = np.dtype(
        [("p", "<f4", 3), ("c", "u1", 3), ("n", "<f4", 3), ("q", "<f8")]
    )  # not aligned on purpose
    rows = np.zeros(50, record)
    rows["p"], rows["n"] = POINTS, NORMALS
    names = "float x,float y,float z,uchar red,uchar green,uchar blue,"
    names += "float nx,float ny,float nz,double quality"
    faces = "element face 1\nproperty list uchar int vertex_indices"
    path = tmp_path / "a.ply"
    path.write_bytes(ply_header("binary_little_endian", 50, names, faces) + rows.tobytes() + FACE)
    cloud = read_cloud(path)
    assert np.array_equal(cloud.points, POINTS)
    assert cloud.normals is not None
    assert np.array_equal(cloud.normals, NORMALS)
    assert cloud.points.dtype == np.float32
    assert cloud.points.flags.writeable


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_ply_big_endian_doubles_in_any_order(tmp_path: Path, newline: str) -> None:
    path = tmp_path / "a.ply"
    header = ply_header(
        "binary_big_endian", 50, "double z,uchar flag,double x,double y", newline=newline
    )
    record = np.dtype([("z", ">f8"), ("flag", "u1"), ("x", ">f8"), ("y", ">f8")])
    rows = np.zeros(50, record)
    rows["x"], rows["y"], rows["z"] = POINTS.T
    path.write_bytes(header + rows.tobytes())
    assert np.array_equal(read_cloud(path).points, POINTS)


def test_ply_ascii(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    body = "\n".join(" ".join(map(repr, row)) for row in np.c_[POINTS, NORMALS].tolist())
    header = ply_header("ascii", 50, "float x,float y,float z,float nx,float ny,float nz")
    path.write_bytes(header + body.encode() + b"\n")
    cloud = read_cloud(path)
    assert np.array_equal(cloud.points, POINTS)
    assert cloud.normals is not None
    assert np.array_equal(cloud.normals, NORMALS)


def test_ply_with_a_list_among_its_vertices(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    rest = "element face 1\nproperty list uchar int vertex_indices"
    header = ply_header("ascii", 3, "float x,float y,float z,list uchar int more", rest)
    path.write_bytes(header + b"0 0 0 1 5\n1 0 0 1 5\n0 1 0 1 5\n3 0 1 2\n")
    assert read_cloud(path).points.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_ply_header_longer_than_the_first_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    write_cloud_ply(path, POINTS)
    content = path.read_bytes().replace(b"element", b"comment x\n" * 9000 + b"element", 1)
    path.write_bytes(content)
    assert np.array_equal(read_cloud(path).points, POINTS)


def test_clouds_larger_than_the_first_read_and_the_writer(tmp_path: Path) -> None:
    points = RNG.normal(size=(20_000, 3))
    write_cloud_ply(tmp_path / "deep" / "a.ply", points)
    assert np.array_equal(read_cloud(tmp_path / "deep" / "a.ply").points, points.astype("f4"))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.ply"]
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        write_cloud_ply(tmp_path / "b.ply", points.T)


BROKEN_PLY = {
    "not ply": (b"plain text", "not a PLY file"),
    "no end": (b"ply\nformat ascii 1.0\nelement vertex 1\n", "not a PLY file"),
    "no format": (b"ply\nelement vertex 1\nproperty float x\nend_header\n", "no 'format'"),
    "no vertex": (b"ply\nformat ascii 1.0\nelement face 0\nend_header\n", "no element named"),
    "no z": (ply_header("ascii", 1, "float x,float y") + b"1 2\n", "no property z"),
    "odd type": (ply_header("ascii", 1, "half x") + b"1\n", "cannot understand the line"),
    "no points": (ply_header("ascii", 0, "float x,float y,float z"), "holds no points"),
    "short": (ply_header("ascii", 2, "float x,float y,float z") + b"1 2 3\n", "1 of 2 vertices"),
    "words": (ply_header("ascii", 1, "float x,float y,float z") + b"1 2 o\n", "broken vertex"),
    "no faces": (
        ply_header(
            "binary_little_endian",
            1,
            "float x,float y,float z",
            "element face 9\nproperty list uchar int vertex_indices",
        )
        + bytes(12),
        "truncated",
    ),
}


@pytest.mark.parametrize("kind", BROKEN_PLY)
def test_broken_ply(tmp_path: Path, kind: str) -> None:
    content, reason = BROKEN_PLY[kind]
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=reason) as caught:
        read_cloud(path)
    assert str(path) in str(caught.value)


def test_ply_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    write_cloud_ply(path, POINTS)
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match=r"a\.ply"):
            read_cloud(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".txt", ".xyz", ".csv", ".pts", ".asc"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    path, table = tmp_path / f"a{suffix}", np.c_[POINTS, NORMALS]
    if suffix == ".npy":
        np.save(path, table)
    elif suffix == ".npz":
        np.savez(path, data=POINTS[None], normal=NORMALS[None], label=np.zeros(1))
    elif suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["data"], file["normal"] = np.stack([POINTS, 0 * POINTS]), NORMALS
            file["label"] = np.zeros(2)
    elif suffix == ".csv":
        names = ["nx", "ny", "nz", "x", "y", "z"]
        rows = [",".join(map(repr, row)) for row in np.c_[NORMALS, POINTS].tolist()]
        path.write_text("\n".join([",".join(names), *rows]))
    else:
        rows = [" ".join(map(repr, row)) for row in table.tolist()]
        first = {".pts": ["50"], ".asc": ["# a comment", "//X Y Z Nx Ny Nz"]}.get(suffix, [])
        path.write_text("\n".join([*first, *rows, ""]))
    cloud = read_cloud(path)
    assert np.array_equal(cloud.points, POINTS)
    assert cloud.normals is not None
    assert np.allclose(cloud.normals, NORMALS)


def test_columns_that_are_no_normals(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.c_[POINTS, np.full((50, 3), 128)])
    assert read_cloud(tmp_path / "a.npy").normals is None
    (tmp_path / "a.xyz").write_text("1;2;3;255\n4;5;6;0\n")
    assert read_cloud(tmp_path / "a.xyz").points.tolist() == [[1, 2, 3], [4, 5, 6]]


BROKEN_TABLES = {
    "a.txt": ("1 2 3\n4 5\n", "broken table"),
    "b.txt": ("", "holds no points"),
    "c.txt": ("words\n" * 30, "no point on its first 20 lines"),
    "d.pts": ("3\n1 2 3\n", "1 of 3 points"),
    "e.csv": ("a,b,x\n1,2,3\n", None),
    "f.npy": ("nothing", "broken or truncated NPY"),
    "g.npz": ("nothing", "broken or truncated NPZ"),
    "h.h5": ("nothing", "broken or truncated HDF5"),
    "i.docx": ("nothing", "no cloud format"),
    "j": ("nothing", "no suffix"),
}


@pytest.mark.parametrize("name", BROKEN_TABLES)
def test_broken_tables(tmp_path: Path, name: str) -> None:
    content, reason = BROKEN_TABLES[name]
    path = tmp_path / name
    path.write_text(content)
    if reason is None:  # a header without x, y, z is passed over
        assert read_cloud(path).points.tolist() == [[1, 2, 3]]
        return
    with pytest.raises(FileFormatError, match=reason) as caught:
        read_cloud(path)
    assert str(path) in str(caught.value)


def test_broken_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array, reason in (
        (POINTS.T, "transpose"),
        (np.zeros(3), "expected a table"),
        (np.array([["a", "b", "c"]]), "expected numbers"),
        (np.zeros((0, 3)), "holds no points"),
    ):
        np.save(path, array)
        with pytest.raises(FileFormatError, match=reason):
            read_cloud(path)
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(FileFormatError, match=r"a\.npy"):  # a pickle is never executed
        read_cloud(path)
    np.savez(tmp_path / "a.npz", one=POINTS, two=POINTS)
    with pytest.raises(FileFormatError, match="it has one, two"):
        read_cloud(tmp_path / "a.npz")
    for suffix in ("ply", "npy", "npz", "h5", "txt", "las"):
        with pytest.raises(FileFormatError, match=rf"missing\.{suffix}"):
            read_cloud(tmp_path / f"missing.{suffix}")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_points_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    points = POINTS.astype(np.float64)
    points[[7, 9], [1, 2]] = bad
    np.save(tmp_path / "a.npy", np.c_[points, NORMALS])
    if abs(bad) == 1e39:  # finite in the file: it is moved and scaled to what float32 can hold
        points[9, 2] = -bad
        np.save(tmp_path / "a.npy", points)
    with pytest.raises(FileFormatError, match=r"2 of 50 points.*point 7"):
        read_cloud(tmp_path / "a.npy")
    cloud = read_cloud(tmp_path / "a.npy", on_nonfinite="drop")
    assert np.array_equal(cloud.points, np.delete(POINTS, [7, 9], axis=0))


def test_surveyed_coordinates_keep_their_shape(tmp_path: Path) -> None:
    far = POINTS.astype(np.float64) + [5.1e6, 4.4e5, 200]
    np.save(tmp_path / "a.npy", far)
    points = read_cloud(tmp_path / "a.npy").points
    assert np.allclose(points - points.mean(0), POINTS - POINTS.mean(0), atol=1e-5)
    np.save(tmp_path / "b.npy", np.full((4, 3), 7.0))
    assert np.array_equal(read_cloud(tmp_path / "b.npy").points, np.full((4, 3), 7.0))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I", "I;16"])
def test_pictures_of_every_mode(tmp_path: Path, mode: str) -> None:
    path = tmp_path / f"a.{'tif' if mode in ('CMYK', 'I') else 'png'}"
    if mode.startswith("I"):
        array = np.full((3, 5), 257 * 200, np.uint16 if mode == "I;16" else np.int32)
        Image.fromarray(array).save(path)
    elif mode == "PA":
        picture = Image.new("P", (5, 3), 1)
        picture.putpalette([200, 200, 200, 0, 0, 0])
        picture.save(path, transparency=1)
    else:
        Image.new("RGB", (5, 3), (200, 200, 200)).convert(mode).save(path)
    pixels = read_picture(path)
    assert pixels.shape == (3, 3, 5)
    assert pixels.dtype == np.uint8
    if mode == "PA":
        assert (pixels == 255).all()
    elif mode != "1":  # the web's palette has 204 and no 200
        assert (abs(pixels.astype(int) - 200) <= 4).all()


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    rgba = RNG.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    pixels = read_picture(tmp_path / "a.png")
    assert np.abs(pixels.transpose(1, 2, 0) - expected).max() <= 1
    assert read_picture(tmp_path / "a.png", size=4).shape == (3, 4, 4)


def test_cameras_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").shape == (3, 8, 4)


def test_broken_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise = RNG.integers(0, 256, (40, 40, 4), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    for length in (0, 4, 20, 60, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match=r"a\.png: broken or truncated"):
            read_picture(path)
    with pytest.raises(FileFormatError, match="no such picture"):
        read_picture(tmp_path / "b.png")


def test_reading_clouds_and_pictures_imports_nothing_heavy(tmp_path: Path) -> None:
    write_cloud_ply(tmp_path / "a.ply", POINTS)
    Image.new("RGBA", (4, 4)).save(tmp_path / "a.png")
    program = (
        "import sys; from pixcloud.data.files import read_cloud, read_picture;"
        f"read_cloud({str(tmp_path / 'a.ply')!r}); read_picture({str(tmp_path / 'a.png')!r});"
        "print([m for m in ('torch', 'trimesh', 'scipy', 'h5py', 'embreex') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
