"""A mesh counts as changed when its materials or textures do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixcloud.data.mesh_companions import companions, mesh_sha256

OBJ = "# box\r\nmtllib  a b.mtl \r\nmtllib c.mtl\nmtllib c.mtl\nv 0 0 0\n"


def write(folder: Path) -> Path:
    (folder / "m.obj").write_text(OBJ)
    (folder / "a b.mtl").write_text("newmtl x\n  map_Kd wood grain.png\nKd 1 1 1\n")
    (folder / "wood grain.png").write_bytes(b"picture")
    (folder / "m.off").write_text("OFF\nmtllib c.mtl\n")
    return folder / "m.obj"


def test_companions_of_an_obj(tmp_path: Path) -> None:
    path = write(tmp_path)
    found = [p.name for p in companions(path, path.read_bytes())]
    assert found == ["a b.mtl", "wood grain.png", "c.mtl"]


def test_companion_of_a_ply(tmp_path: Path) -> None:
    header = b"ply\nformat ascii 1.0\ncomment TextureFile skin.png\nend_header\n"
    assert companions(tmp_path / "m.ply", header) == [tmp_path / "skin.png"]


@pytest.mark.parametrize("file", ["m.obj", "a b.mtl", "wood grain.png", "c.mtl"])
def test_any_change_changes_the_hash(file: str, tmp_path: Path) -> None:
    path = write(tmp_path)
    before = mesh_sha256(path)
    assert mesh_sha256(path) == before
    with open(tmp_path / file, "ab") as stream:
        stream.write(b"\nv 1 1 1\n")
    assert mesh_sha256(path) != before


def test_other_formats_stand_alone(tmp_path: Path) -> None:
    write(tmp_path)
    assert companions(tmp_path / "m.off", (tmp_path / "m.off").read_bytes()) == []
