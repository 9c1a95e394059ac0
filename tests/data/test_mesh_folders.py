"""Folders of meshes: classes, splits, stray files, and names that are odd or collide."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixcloud.data.mesh_folders import list_meshes, safe_name, unique_names
from pixcloud.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def listed(root: Path) -> list[tuple[str, str, str]]:
    return [(s.category, s.model, s.split) for s in list_meshes(root).shapes]


def test_both_layouts_at_once(tmp_path: Path) -> None:
    touch(
        tmp_path, "chair/b.OBJ", "chair/a.off", "desk/train/x.ply", "desk/test/y.stl", "desk/z.glb"
    )
    assert listed(tmp_path) == [
        ("chair", "a", ""),
        ("chair", "b", ""),
        ("desk", "x", "train"),
        ("desk", "y", "test"),
        ("desk", "z", ""),
    ]
    shape = list_meshes(tmp_path).shapes[2]
    assert shape.path == tmp_path / "desk" / "train" / "x.ply"
    assert shape.relative == "desk/train/x.ply"


def test_stray_files_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a/m.off", "README", "m.off", "a/m.png", "a/.hidden.off", "a/deep/n.off")
    touch(tmp_path, "b/train/notes.txt", ".git/x.off")
    assert listed(tmp_path) == [("a", "m", "")]
    assert list_meshes(tmp_path).ignored == 6


def test_names_that_collide(tmp_path: Path) -> None:
    touch(tmp_path, "a/m1.obj", "a/m1.off", "a/m2.off", "b/train/m.off", "b/test/m.off", "b/m.off")
    touch(tmp_path, "c/M.off", "c/m.off", "c/m_off.obj")
    names = [(s.category, s.model, s.relative) for s in list_meshes(tmp_path).shapes]
    assert names[:3] == [
        ("a", "m1_obj", "a/m1.obj"),
        ("a", "m1_off", "a/m1.off"),
        ("a", "m2", "a/m2.off"),
    ]
    for category in "abc":
        models = [model.casefold() for c, model, _ in names if c == category]
        assert len(set(models)) == len(models)
    assert {r: m for c, m, r in names if c == "b"} == {
        "b/train/m.off": "train_m_off",
        "b/test/m.off": "test_m_off",
        "b/m.off": "m_off",
    }


def test_odd_names(tmp_path: Path) -> None:
    touch(tmp_path, "two words/ü 椅子 (1).off", "two words/a\nb.off", "two words/a:b.off")
    touch(tmp_path, "two words/-x.off", "two words/..y.off", "two words/end. .off")
    models = [model for _, model, _ in listed(tmp_path)]
    assert "ü 椅子 (1)" in models
    assert len(set(models)) == 5  # and one is hidden
    for model in models:
        assert model == safe_name(model)
        assert not set(model) & set('<>:"/\\|?*\n')


@pytest.mark.parametrize(
    ("name", "safe"),
    [("plain", "plain"), ("a b", "a b"), ("..", "_"), ("", "_"), (".x", "x"), ("x. ", "x"),
     ("a/b", "a_b"), ("\udcff", "_"), ("a.b", "a.b"), (" ", "_")],
)  # fmt: skip
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe
    assert safe_name(safe) == safe


def test_numbers_where_no_spelling_is_free() -> None:
    assert unique_names([["a"], ["A"], ["a-2"]]) == ["a-3", "A-4", "a-2"]
    names = unique_names([["a"], ["A"], ["a-2"], ["b"]])
    assert len({name.casefold() for name in names}) == 4
    assert names[3] == "b"


def test_no_meshes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        list_meshes(tmp_path / "none")
    with pytest.raises(DataError, match="no meshes"):
        list_meshes(touch(tmp_path, "a/x.txt", "notes.md"))
    with pytest.raises(DataError, match=r"\(2 other files are there\)"):
        list_meshes(tmp_path)


def test_meshes_without_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "d.off", "c.OBJ", "b.ply", "a.stl", ".e.off", "notes.txt", "f.off/notes.txt")
    with pytest.raises(DataError) as caught:
        list_meshes(tmp_path)
    for words in (
        f"{tmp_path}: meshes lie directly in it (4: a.stl, b.ply, c.OBJ and 1 more)",
        "<class>/{train,test}/",
        f"move them into one folder per class, such as {tmp_path / 'chair'}",
    ):
        assert words in str(caught.value)
