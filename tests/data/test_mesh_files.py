"""Readers of one mesh: OFF with its oddities, OBJ, PLY, STL, GLB; colours; broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_meshes import CUBE_CORNERS, CUBE_SQUARES, box, write_obj, write_off

from pixcloud.data.files import read_mesh
from pixcloud.data.mesh_files import NEUTRAL_COLOR, linear_light, srgb
from pixcloud.data.surface import face_cross
from pixcloud.errors import FileFormatError
from pixcloud.types import Mesh


def area(mesh: Mesh) -> float:
    return float(np.linalg.norm(face_cross(mesh.vertices, mesh.faces), axis=1).sum() / 2)


def volume(mesh: Mesh) -> float:
    """Positive only if faces are wound counter-clockwise seen from outside."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize(
    "header",
    ["OFF\n", "OFF", "OFF ", "# made by\n\nOFF # here\n# and here\n\n", "off\n", "\ufeffOFF\n"],
)
def test_off_headers(tmp_path: Path, header: str) -> None:
    path = write_off(tmp_path / "a.off", box(1, 2, 3), header)
    if header.startswith("\ufeff"):
        with pytest.raises(FileFormatError, match="does not begin with 'OFF'"):
            read_mesh(path)
        return
    mesh = read_mesh(path)
    assert np.array_equal(mesh.vertices, box(1, 2, 3).vertices)
    assert np.array_equal(mesh.faces, box().faces)
    assert mesh.face_colors is None


def test_off_polygons_comments_and_colors(tmp_path: Path) -> None:
    corners = "\n\n".join(" ".join(map(str, row)) + " # corner" for row in CUBE_CORNERS)
    numbers = [" ".join(map(str, square)) for square in CUBE_SQUARES]
    squares = "\n".join(f"4 {text} 255 {10 * i} 0" for i, text in enumerate(numbers))
    text = f"OFF8 7 0\n{corners}\n# faces\n{squares}\n5 0 1 3 2 0 0 60 0\n"
    (tmp_path / "a.off").write_text(text)
    mesh = read_mesh(tmp_path / "a.off")
    assert mesh.faces.shape == (15, 3)
    assert mesh.faces[:2].tolist() == [[0, 1, 3], [0, 3, 2]]
    assert mesh.face_colors is not None
    green = [10 * i for i in range(6) for _ in range(2)] + [60] * 3
    assert mesh.face_colors[:, 1].tolist() == green
    (tmp_path / "b.off").write_text(
        "COFF\n3 1 0\n0 0 0 9 9 9 9\n1 0 0 9 9 9 9\n0 1 0 9 9 9 9\n3 0 1 2 1.0 0.5 0\n"
    )
    colored = read_mesh(tmp_path / "b.off")
    assert colored.face_colors is not None
    assert colored.face_colors.tolist() == [[255, 128, 0]]


BROKEN_OFF = {
    "": "not an OFF file",
    "hello\n": "not an OFF file",
    "OFF\n": "numbers of vertices and faces",
    "OFF\n3\n": "numbers of vertices and faces",
    "OFF\n-3 1 0\n": "numbers of vertices and faces",
    "OFF\n3 1 0\n0 0 0\n1 0 0\n": "2 of 4 lines",
    "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 x\n3 0 1 2\n": "broken OFF",
    "OFF\n3 1 0\n0 0 0\n1 0\n0 1 0\n3 0 1 2\n": "broken OFF",
    "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n": "fewer corners",
    "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n": "names vertex 3 of 3",
    "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n2 0 1\n": "holds no faces",
    "OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n": "holds no faces",
    "4OFF\n3 1 0\n": "4-D",
}


@pytest.mark.parametrize("content", BROKEN_OFF)
def test_broken_off(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.off"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=BROKEN_OFF[content]) as caught:
        read_mesh(path)
    assert str(path) in str(caught.value)


def test_obj_polygons_and_negative_numbers(tmp_path: Path) -> None:
    corners = "\n".join("v " + " ".join(map(str, row)) for row in CUBE_CORNERS)
    squares = "\n".join("f " + " ".join(str(i - 8) for i in s) for s in CUBE_SQUARES)
    (tmp_path / "a.obj").write_text(f"# cube\n{corners}\n{squares}\n")
    mesh = read_mesh(tmp_path / "a.obj")
    assert mesh.faces.shape == (12, 3)
    assert area(mesh) == pytest.approx(6)
    assert volume(mesh) == pytest.approx(1)
    assert mesh.face_colors is None
    assert np.array_equal(read_mesh(write_obj(tmp_path / "b.obj", box())).vertices, box().vertices)


def test_obj_materials(tmp_path: Path) -> None:
    square = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 1\n"
    (tmp_path / "a.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 0.5\n")
    faces = "usemtl red\nf 1 2 3\nusemtl blue\nf 1 3 4\n"
    (tmp_path / "a.obj").write_text(f"mtllib a.mtl\n{square}{faces}")
    colors = read_mesh(tmp_path / "a.obj").face_colors
    assert colors is not None
    assert sorted(colors.tolist()) == [[0, 0, 128], [255, 0, 0]]
    # A material that is missing, and texture coordinates without one, give no colour.
    (tmp_path / "b.obj").write_text(f"mtllib none.mtl\n{square}usemtl red\nf 1/1 2/2 3/1\n")
    assert read_mesh(tmp_path / "b.obj").face_colors is None


def test_obj_texture(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0], pixels[1] = (0, 255, 0), (255, 0, 0)  # green above, red below
    Image.fromarray(pixels).save(tmp_path / "t.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 0.5 0.5 0.5\nmap_Kd t.png\n")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0.2 0.1\nvt 0.2 0.9\n"
        "usemtl m\nf 1/1 2/1 3/1\nf 1/2 3/2 4/2\n"
    )
    colors = read_mesh(tmp_path / "a.obj").face_colors
    assert colors is not None
    assert sorted(colors.tolist()) == [[0, 255, 0], [255, 0, 0]]


@pytest.mark.parametrize("suffix", ["ply", "stl", "glb", "obj", "off"])
def test_formats_of_another_library(tmp_path: Path, suffix: str) -> None:
    import trimesh

    path = tmp_path / f"a.{suffix}"
    trimesh.Trimesh(**{k: getattr(box(1, 2, 3), k) for k in ("vertices", "faces")}).export(path)
    mesh = read_mesh(path)
    assert mesh.faces.shape == (12, 3)
    assert mesh.faces.dtype == np.int64
    assert area(mesh) == pytest.approx(22)
    assert volume(mesh) == pytest.approx(6)
    content = path.read_bytes()
    # Text without a count of its lines cannot tell that some are missing.
    for length in (0, 10) if suffix == "obj" else (0, 10, len(content) // 2, len(content) - 20):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match=rf"a\.{suffix}: .*") as caught:
            read_mesh(path)
        assert "\n" not in str(caught.value)


def test_face_colors_of_ply(tmp_path: Path) -> None:
    import trimesh

    colors = np.random.default_rng(0).integers(0, 256, (12, 4), dtype=np.uint8)
    made = trimesh.Trimesh(vertices=box().vertices, faces=box().faces, process=False)
    made.visual.face_colors = colors
    made.export(tmp_path / "a.ply")
    found = read_mesh(tmp_path / "a.ply").face_colors
    assert found is not None
    assert np.array_equal(found, colors[:, :3])


def test_glb_scene_with_nodes_transforms_and_materials(tmp_path: Path) -> None:
    import trimesh

    made = trimesh.Trimesh(vertices=box().vertices, faces=box().faces, process=False)
    red = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 128, 0, 255])
    painted = made.copy()
    painted.visual = trimesh.visual.TextureVisuals(material=red)
    move = trimesh.transformations.translation_matrix([5, 0, 0])
    mirror = np.diag([-2.0, 1, 1, 1])
    scene = trimesh.Scene()
    scene.add_geometry(made, node_name="a", geom_name="box")
    scene.add_geometry(painted, node_name="b", geom_name="painted", transform=move)
    scene.graph.update(frame_to="c", matrix=mirror, geometry="box")
    scene.export(tmp_path / "a.glb")
    mesh = read_mesh(tmp_path / "a.glb")
    assert mesh.faces.shape == (36, 3)
    assert mesh.vertices.min(axis=0).tolist() == [-2, 0, 0]
    assert mesh.vertices.max(axis=0).tolist() == [6, 1, 1]
    assert volume(mesh) == pytest.approx(1 + 1 + 2)  # the mirrored one still faces outwards
    assert mesh.face_colors is not None
    expected = [255, round(255 * float(srgb(np.array(128 / 255)))), 0]
    assert (mesh.face_colors == expected).all(axis=1).sum() == 12
    assert (mesh.face_colors == NEUTRAL_COLOR).all(axis=1).sum() == 24


def test_what_is_no_mesh(tmp_path: Path) -> None:
    (tmp_path / "a.step").write_text("x")
    with pytest.raises(FileFormatError, match="no mesh format"):
        read_mesh(tmp_path / "a.step")
    for suffix in ("off", "obj", "ply", "stl", "glb"):
        with pytest.raises(FileFormatError, match=rf"missing\.{suffix}"):
            read_mesh(tmp_path / f"missing.{suffix}")
    (tmp_path / "b.obj").write_text("v 0 0 0\nv 1 0 0\n")
    with pytest.raises(FileFormatError, match=r"b\.obj"):
        read_mesh(tmp_path / "b.obj")
    (tmp_path / "c.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n")
    with pytest.raises(FileFormatError, match=r"c\.obj"):
        read_mesh(tmp_path / "c.obj")


def test_srgb_and_its_inverse() -> None:
    values = np.linspace(0, 1, 101)
    assert np.allclose(linear_light(srgb(values)), values)


def test_real_meshes(shared: Path) -> None:
    folder = shared / "data" / "capod"
    paths = sorted(folder.glob("*/*.obj"))[::30]
    if not paths:
        pytest.skip(f"no meshes found at {folder}")
    for path in paths:
        faces = sum(line.startswith("f ") for line in path.read_text().splitlines())
        assert len(read_mesh(path).faces) >= faces
