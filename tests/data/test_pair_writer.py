"""The writer of pairs: the tree of the field, whole or not at all, a function of seed and name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_meshes import box, tree_hashes

from pixcloud.atomic import remove_leftovers, replaced_file, replaced_folder
from pixcloud.data import pair_writer
from pixcloud.data.files import read_cloud, read_picture
from pixcloud.data.pair_writer import clear_scratch, is_written, remove_pair, write_pair
from pixcloud.data.shapenet import complete_pairs, read_crosspoint_tree
from pixcloud.errors import DataError
from pixcloud.types import Mesh

SMALL = {"points": 32, "views": 3, "size": 16}


def test_the_reader_of_pairs_reads_what_is_written(tmp_path: Path) -> None:
    for model in ("b", "a"):
        write_pair(tmp_path, "box", model, box(1, 2, 3), **SMALL)
    clear_scratch(tmp_path)
    pairs = complete_pairs(read_crosspoint_tree(tmp_path))
    assert [pair.name for pair in pairs] == ["box/a", "box/b"]
    assert pairs[0].pictures == ("00.png", "01.png", "02.png")
    cloud = read_cloud(pairs[0].cloud).points
    assert cloud.shape == (32, 3)
    assert np.linalg.norm(cloud, axis=1).max() == pytest.approx(1, abs=1e-6)
    assert read_picture(f"{pairs[0].folder}/02.png").shape == (3, 16, 16)
    assert {path.name for path in tmp_path.iterdir()} == {"ShapeNet", "ShapeNetRendering"}


def test_bytes_depend_on_seed_and_name_alone(tmp_path: Path) -> None:
    for root, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_pair(tmp_path / root, "box", "m", box(), seed=seed, **SMALL)
    write_pair(tmp_path / "b", "box", "m", box(9, 9, 9), **SMALL)  # replaced, and replaced again
    write_pair(tmp_path / "b", "box", "m", box(), **SMALL)
    first, second, third = (tree_hashes(tmp_path / root) for root in "abc")
    assert first == second
    assert first.keys() == third.keys()
    assert all(first[name] != third[name] for name in first)


def test_a_stop_leaves_no_cloud_without_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(tmp_path, "box", "m", box(), **SMALL)
    monkeypatch.setattr(pair_writer, "replaced_folder", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_pair(tmp_path, "box", "m", box(1, 2, 3), **SMALL)
    assert not is_written(tmp_path, "box", "m")
    monkeypatch.undo()
    monkeypatch.setattr(pair_writer, "write_bytes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_pair(tmp_path, "box", "m", box(1, 2, 3), **SMALL)
    assert not is_written(tmp_path, "box", "m")


def test_a_mesh_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    write_pair(tmp_path, "box", "m", box(), **SMALL)
    before = tree_hashes(tmp_path)
    flat = Mesh(vertices=np.ones((8, 3)), faces=box().faces)
    with pytest.raises(DataError, match="no extent"):
        write_pair(tmp_path, "box", "m", flat, **SMALL)
    assert tree_hashes(tmp_path) == before


def test_removal_and_leftovers(tmp_path: Path) -> None:
    write_pair(tmp_path, "box", "m", box(), **SMALL)
    remove_pair(tmp_path, "box", "m")
    remove_pair(tmp_path, "box", "never there")
    (tmp_path / ".partial" / ".tmp-1-m").mkdir(parents=True)
    (tmp_path / "ShapeNet" / "box" / ".tmp-1-m.ply").write_bytes(b"half")
    clear_scratch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_replaced_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with pytest.raises(KeyError), replaced_file(tmp_path / "f") as temporary:
        raise KeyError(temporary.write_text("new"))
    assert (tmp_path / "f").read_text() == "old"
    with replaced_folder(tmp_path / "d") as temporary:
        (temporary / "one").touch()
    with replaced_folder(tmp_path / "d") as temporary:
        (temporary / "two").touch()
    with pytest.raises(KeyError), replaced_folder(tmp_path / "d"):
        raise KeyError
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["two"]
    (tmp_path / "d" / ".tmp-7-x").mkdir()
    (tmp_path / "d" / ".tmp-7-x" / ".tmp-7-y").touch()
    (tmp_path / ".tmp-7-z").touch()
    assert remove_leftovers(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "f"]
