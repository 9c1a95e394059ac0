"""Pair trees: what counts, what has no partner, in which order; and how sources are named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import write_pair_tree, write_picture, write_ply
from pixcloud.data import sources
from pixcloud.data.shapenet import complete_pairs, read_crosspoint_tree, read_shapenet55
from pixcloud.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_pair_tree(tmp_path / "tree", models=4)


def test_sorted_whatever_the_disk_says(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_crosspoint_tree(tree)
    assert [pair.name for pair in first.pairs] == [
        *("02691156/model000", "02691156/model002", "03001627/model001", "03001627/model003")
    ]
    assert first.pairs[0].pictures == ("00.png", "01.png", "02.png")
    original = os.scandir

    class Backwards:
        def __init__(self, folder: str) -> None:
            with original(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    listdir = os.listdir
    monkeypatch.setattr(os, "scandir", Backwards)
    monkeypatch.setattr(os, "listdir", lambda folder: sorted(listdir(folder), reverse=True))
    assert read_crosspoint_tree(tree) == first


def test_stray_files_and_odd_names(tree: Path) -> None:
    clouds, renders = tree / "ShapeNet", tree / "ShapeNetRendering"
    rendering = renders / "02691156/model000/rendering"
    for path in (
        clouds / "readme.txt",
        clouds / ".hidden/model.ply",
        clouds / "02691156/list.csv",
        clouds / "02691156/._model000.ply",
        renders / "notes.txt",
        rendering / "rendering_metadata.txt",
        rendering / "renderings.txt",
        rendering / "._00.png",
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0")
    write_picture(rendering / "10.PNG", RNG)
    name = "mödel with spaces"
    write_ply(clouds / f"02691156/{name}.ply", RNG.normal(size=(8, 3)))
    write_picture(renders / f"02691156/{name}/rendering/a.jpg.png", RNG)
    index = read_crosspoint_tree(tree)
    assert len(index.pairs) == 5
    assert index.pairs[0].pictures == ("00.png", "01.png", "02.png", "10.PNG")
    assert f"02691156/{name}" in [pair.name for pair in index.pairs]
    assert (index.without_pictures, index.without_cloud) == ([], [])


def test_what_has_no_partner(tree: Path) -> None:
    shutil.rmtree(tree / "ShapeNetRendering/02691156/model000")
    for path in (tree / "ShapeNetRendering/03001627/model001/rendering").iterdir():
        path.unlink()
    write_picture(tree / "ShapeNetRendering/03001627/orphan/rendering/0.png", RNG)
    index = read_crosspoint_tree(tree)
    assert index.without_pictures == ["02691156/model000", "03001627/model001"]
    assert index.without_cloud == ["03001627/orphan"]
    with pytest.raises(DataError, match=r"2 of 4 clouds have no pictures .02691156/model000, 03"):
        complete_pairs(index)
    assert [pair.name[-3:] for pair in complete_pairs(index, "skip")] == ["002", "003"]


def test_the_first_few_are_named(tmp_path: Path) -> None:
    tree = write_pair_tree(tmp_path / "tree", models=16)
    for model in sorted((tree / "ShapeNetRendering").glob("*/*"))[:9]:
        shutil.rmtree(model)
    with pytest.raises(DataError, match=r"9 of 16 clouds.*model008 and 4 more\); add them, or"):
        sources.open_pairs(str(tree))


def test_nothing_matches(tree: Path) -> None:
    for synset in (tree / "ShapeNetRendering").iterdir():
        synset.rename(synset.with_name(synset.name + "x"))
    index = read_crosspoint_tree(tree)
    with pytest.raises(DataError, match=r"no pairs; 4 clouds have no pictures .* and 4 picture fo"):
        complete_pairs(index, "skip")


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (".", "no such folder; give the folder that holds ShapeNet/"),
        ("ShapeNet", r"ShapeNet: missing; expected ShapeNet/<synset>/<model>\.ply below"),
        ("ShapeNetRendering", "ShapeNetRendering: missing; expected ShapeNetRendering/<synset>"),
    ],
)
def test_missing_folders(gone: str, words: str, tree: Path) -> None:
    shutil.rmtree(tree / gone)
    with pytest.raises(DataError, match=words):
        read_crosspoint_tree(tree)


@pytest.fixture
def tree55(tmp_path: Path) -> Path:
    """Five clouds in the train list and one of the test list; each with a picture."""
    root = tmp_path / "set55"
    (root / "shapenet_pc").mkdir(parents=True)
    (root / "ShapeNet-55").mkdir()
    for number in range(6):
        np.save(root / f"shapenet_pc/02691156-m{number}.npy", RNG.normal(size=(8, 3)))
        write_picture(root / f"shapenet_img/02691156-m{number}.png", RNG)
    train = "".join(f"02691156-m{number}.npy\n" for number in (4, 3, 0, 1, 2, 2))
    (root / "ShapeNet-55/train.txt").write_text(train)
    (root / "ShapeNet-55/test.txt").write_text("02691156-m5.npy\n")
    return root


def test_shapenet55(tree55: Path) -> None:
    index = read_shapenet55(tree55)
    assert [pair.name for pair in index.pairs] == [f"02691156-m{i}" for i in range(5)]
    assert index.pairs[3].pictures == ("02691156-m3.png",)
    assert (index.without_pictures, index.without_cloud) == ([], [])
    assert len(read_shapenet55(tree55, "test").pairs) == 1


def test_shapenet55_partners_and_strays(tree55: Path) -> None:
    images = tree55 / "shapenet_img"
    (images / "02691156-m0.txt").write_text("stray, of the same name")
    (images / "._02691156-m0.png").write_bytes(b"\0")
    write_picture(images / "02691156-m1.webp.png", RNG)
    (images / "02691156-m2.png").unlink()
    (tree55 / "shapenet_pc/02691156-m3.npy").unlink()
    write_picture(images / "02691156-orphan.png", RNG)
    (tree55 / "ShapeNet-55/train.txt").open("a").write("02691156-listed.npy\n")
    index = read_shapenet55(tree55)
    assert [pair.name[-2:] for pair in index.pairs] == ["m0", "m1", "m4"]
    assert index.pairs[0].pictures == ("02691156-m0.png",)
    assert index.without_pictures == ["02691156-m2"]
    assert index.without_cloud == [
        *("02691156-listed", "02691156-m1.webp", "02691156-m3", "02691156-orphan")
    ]


def test_shapenet55_missing(tree55: Path) -> None:
    with pytest.raises(DataError, match=r"val\.txt: missing; expected one <synset>-<model>\.npy"):
        read_shapenet55(tree55, "val")
    (tree55 / "ShapeNet-55/train.txt").write_text("a-b.npy\n")
    with pytest.raises(DataError, match="none of the 1 clouds listed"):
        read_shapenet55(tree55)
    shutil.rmtree(tree55 / "shapenet_img")
    with pytest.raises(DataError, match="shapenet_img: missing"):
        read_shapenet55(tree55)


def test_bare_paths_are_recognised(tree: Path, tree55: Path) -> None:
    for source in (str(tree), f"pairs:{tree}"):
        assert len(sources.open_pairs(source)) == 4
    for source in (str(tree55), f"shapenet55:{tree55}"):
        assert len(sources.open_pairs(source)) == 5


def test_a_path_may_have_a_colon(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = tree.rename(tree.with_name("set:2024"))
    assert len(sources.open_pairs(str(moved))) == 4
    assert len(sources.open_pairs(f"pairs:{moved}")) == 4
    monkeypatch.chdir(moved.parent)
    assert len(sources.open_pairs("set:2024")) == 4


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("", DataError, "data.source = : names no folder; check the path, or give NAME:/path"),
        ("pairs:", DataError, "data.source = pairs:: names no folder"),
        (
            "pairs:/none",
            DataError,
            "/none does not exist; check the path, or give NAME:/path with NAME one of",
        ),
        ("pair:/none", ConfigError, "unknown data set 'pair': the nearest known one is 'pairs'"),
        ("syntetic:/", ConfigError, "the nearest known one is 'synthetic'"),
    ],
)
def test_sources_that_are_none(source: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        sources.open_pairs(source)


def test_a_set_of_another_kind(tree: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'modelnet40' holds no pairs .* pixcloud data make makes some"
    ):
        sources.open_pairs(f"modelnet40:{tree}")
    with pytest.raises(DataError, match="ModelNet40"):  # looked for beside the pairs
        sources.open_labelled(f"pairs:{tree}", "train")
