"""The embedded data: objects that are functions of their number, and a set made once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pixcloud.data.check import check_source
from pixcloud.data.modelnet import read_modelnet
from pixcloud.data.shapenetpart import part_offsets, read_part_names, read_shapenetpart
from pixcloud.data.sources import open_pairs
from pixcloud.data.synthetic import CATEGORIES, SyntheticSettings, build_object, ensure_synthetic
from pixcloud.data.synthetic.__main__ import main
from pixcloud.data.synthetic.dataset import FIRST_INDEX, MARK, build_placed
from pixcloud.errors import DataError
from pixcloud.types import Mesh

TINY = SyntheticSettings(pairs=2, views=2, size=24, train=2, val=1, test=2, points=64, categories=3)


def tree_hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_catalog() -> None:
    assert len(CATEGORIES) >= 16
    assert list(CATEGORIES) == sorted(CATEGORIES)
    for name, category in CATEGORIES.items():
        assert category.name == name
        assert 2 <= len(category.parts) <= 6, name
        assert len(set(category.parts)) == len(category.parts)
        assert len(category.parameters) >= 5, name
        assert category.variants, name
        assert all(len(choices) >= 2 for choices in category.variants.values()), name
        assert all(low < high for low, high in category.parameters.values()), name


@pytest.mark.parametrize("name", sorted(CATEGORIES))
def test_objects_are_sound(name: str) -> None:
    seen = set()
    for index in range(30):
        mesh = build_object(name, seed=1, index=index)
        assert np.isfinite(mesh.vertices).all()
        assert mesh.faces.min() >= 0
        assert mesh.faces.max() < len(mesh.vertices)
        assert mesh.face_colors is not None
        assert mesh.face_parts is not None
        assert mesh.face_colors.shape == mesh.faces.shape
        assert len(mesh.face_parts) == len(mesh.faces)
        parts = set(mesh.face_parts.tolist())
        assert parts <= set(range(len(CATEGORIES[name].parts)))
        assert len(parts) >= 2, f"{name} {index} has one part"
        assert mesh.vertices[:, 1].min() == 0
        assert 100 <= len(mesh.faces) <= 20_000
        seen.add(hashlib.sha256(mesh.vertices.tobytes()).hexdigest())
    assert len(seen) == 30, "two objects are alike"


@pytest.mark.parametrize("name", sorted(CATEGORIES))
def test_every_part_occurs(name: str) -> None:
    found: set[int] = set()
    for index in range(60):
        parts = build_object(name, seed=2, index=index).face_parts
        assert parts is not None
        found |= set(parts.tolist())
    assert found == set(range(len(CATEGORIES[name].parts)))


def pieces(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest corners (P, 3) of the boxes around the connected pieces of a mesh."""
    count = len(mesh.vertices)
    ends = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]]])
    links = coo_array((np.ones(len(ends), np.int8), ends.T), shape=(count, count))
    _, piece = connected_components(links, directed=False)
    used = np.unique(mesh.faces)
    _, piece = np.unique(piece[used], return_inverse=True)
    low = np.full((piece.max() + 1, 3), np.inf)
    high = -low
    np.minimum.at(low, piece, mesh.vertices[used])
    np.maximum.at(high, piece, mesh.vertices[used])
    return low, high


@pytest.mark.parametrize("name", sorted(CATEGORIES))
def test_nothing_floats(name: str) -> None:
    """The boxes around the pieces of an object touch, so that none stands alone in the air."""
    for index in range(20):
        mesh = build_object(name, seed=5, index=index)
        low, high = pieces(mesh)
        slack = 0.004 * np.ptp(mesh.vertices, axis=0).max()
        touch = (low[:, None] <= high[None] + slack).all(axis=2)
        groups, _ = connected_components(coo_array(touch & touch.T), directed=False)
        assert groups == 1, f"{name} {index} falls into {groups}"


def test_an_object_is_a_function_of_its_arguments() -> None:
    a, b = build_object("chair", 3, 5), build_object("chair", 3, 5)
    assert np.array_equal(a.vertices, b.vertices)
    assert np.array_equal(a.faces, b.faces)
    other = build_object("chair", 4, 5)
    assert a.vertices.shape != other.vertices.shape or not np.allclose(a.vertices, other.vertices)
    with pytest.raises(DataError, match=r"no category 'chiar'.*'chair'"):
        build_object("chiar", 0, 0)


def test_splits_are_other_objects_at_other_headings() -> None:
    settings = SyntheticSettings()
    meshes = [build_placed(settings, split, "mug", 0).vertices for split in FIRST_INDEX]
    digests = {hashlib.sha256(v.tobytes()).hexdigest() for v in meshes}
    assert len(digests) == len(FIRST_INDEX)
    largest = max(settings.pairs, settings.train, settings.test, settings.val)
    gaps = np.diff(sorted(FIRST_INDEX.values()))
    assert largest < gaps.min()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_synthetic(tmp_path_factory.mktemp("made"), settings=TINY, workers=1)


def test_layouts(made: Path) -> None:
    pairs = open_pairs(str(made))
    assert len(pairs) == 6
    assert {len(pair.pictures) for pair in pairs} == {2}
    train, test = read_modelnet(made, "train"), read_modelnet(made, "test")
    assert train.classes == test.classes == list(CATEGORIES)[:3]
    assert train.points.shape == test.points.shape == (6, 64, 3)
    assert np.linalg.norm(train.points, axis=2).max(axis=1) == pytest.approx(1, abs=1e-5)
    names = read_part_names(made)
    offsets = part_offsets(names)
    for split, count in (("train", 6), ("val", 3), ("test", 6)):
        clouds = read_shapenetpart(made, split)
        assert clouds.parts is not None
        assert clouds.parts.shape == (count, 64)
        for label, parts in zip(clouds.labels, clouds.parts, strict=True):
            assert offsets[label] <= parts.min() <= parts.max() < offsets[label + 1]
    assert np.array_equal(read_shapenetpart(made, "test").points, test.points)
    assert "6 pairs with 2 pictures" in check_source(str(made), read=-1)


def test_made_once_and_equal_for_any_number_of_workers(made: Path, tmp_path: Path) -> None:
    before = (made / MARK).stat().st_mtime_ns
    assert ensure_synthetic(made.parent, settings=TINY) == made
    assert (made / MARK).stat().st_mtime_ns == before
    again = ensure_synthetic(tmp_path, settings=TINY, workers=2)
    assert again.name == made.name
    assert tree_hashes(again) == tree_hashes(made)


def test_other_seed_other_folder(made: Path, tmp_path: Path) -> None:
    settings = SyntheticSettings(**{**vars(TINY), "seed": 1})
    other = ensure_synthetic(tmp_path, settings=settings, workers=1)
    assert other.name != made.name
    assert not np.array_equal(
        read_modelnet(other, "test").points, read_modelnet(made, "test").points
    )


def test_a_kill_leaves_nothing_half_made(tmp_path: Path, made: Path) -> None:
    context = multiprocessing.get_context("spawn")
    kwargs = {"settings": TINY, "workers": 1}
    process = context.Process(target=ensure_synthetic, args=(tmp_path,), kwargs=kwargs)
    process.start()
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".making-*/ShapeNet/*/*.ply")) and process.is_alive():
        assert time.monotonic() < until
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not list(tmp_path.glob("synthetic-*"))
    folder = ensure_synthetic(tmp_path, settings=TINY, workers=1)
    assert tree_hashes(folder) == tree_hashes(made)
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="views = 0: at least 1 is needed"):
        SyntheticSettings(views=0)
    with pytest.raises(DataError, match="there are"):
        SyntheticSettings(categories=1000)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match=r"cannot be written there.*PIXCLOUD_CACHE"):
        ensure_synthetic(blocked, settings=TINY)


def test_contact_sheet(tmp_path: Path) -> None:
    main([str(tmp_path / "sheet.png"), "--size", "16", "--columns", "10"])
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (160, 16 * -(-len(CATEGORIES) // 10))
        sheet = np.asarray(picture)
    for place in range(len(CATEGORIES)):
        row, column = divmod(place, 10)
        assert sheet[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16, 3].any()
