"""ShapeNetPart in h5 files: the published packing, data of other categories, broken folders."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pixcloud.data.shapenetpart import (
    PUBLISHED_PARTS,
    part_offsets,
    read_part_names,
    read_shapenetpart,
    write_shapenetpart,
)
from pixcloud.data.sources import open_labelled
from pixcloud.errors import DataError, FileFormatError
from pixcloud.types import LabelledClouds

RNG = np.random.default_rng(0)
PARTS = {"mug": ["cup", "handle"], "cap": ["peak", "panels"], "ball": ["ball"]}


def clouds(split: str = "train", **changed: object) -> LabelledClouds:
    made = LabelledClouds(
        name="any",
        split=split,
        points=RNG.normal(size=(3, 4, 3)).astype(np.float32),
        labels=np.array([0, 1, 2]),
        classes=list(PARTS),
        parts=np.array([[0, 1, 0, 1], [2, 3, 3, 2], [4, 4, 4, 4]]),
    )
    for name, value in changed.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("folder", ["shapenet_part_seg_hdf5_data", "hdf5_data", ""])
@pytest.mark.parametrize("key", ["pid", "seg"])
def test_the_published_packing(tmp_path: Path, folder: str, key: str) -> None:
    offsets = part_offsets(read_published_names(tmp_path))
    assert offsets[-1] == 50
    (tmp_path / folder).mkdir(exist_ok=True)
    every = []
    for number in range(11):
        points = RNG.normal(size=(1, 4, 3)).astype(np.float32)
        every.append(points)
        with h5py.File(tmp_path / folder / f"ply_data_train{number}.h5", "w") as file:
            file["data"], file["label"] = points, np.array([[number]], np.uint8)
            file[key] = np.full((1, 4), offsets[number], np.uint8)
    found = read_shapenetpart(tmp_path, "train")
    assert found.name == "shapenetpart"
    assert found.classes == list(PUBLISHED_PARTS)
    assert np.array_equal(found.points, np.concatenate(every))
    assert found.labels.tolist() == list(range(11))
    assert found.parts is not None
    assert found.parts.dtype == np.int64
    assert found.parts[:, 0].tolist() == offsets[:11]


def read_published_names(root: Path) -> dict[str, list[str]]:
    """The names of the published parts, by way of a folder that has no list of its own."""
    folder = root / "other"
    folder.mkdir()
    with h5py.File(folder / "ply_data_train0.h5", "w"):
        pass
    names = read_part_names(folder)
    assert {name: len(parts) for name, parts in names.items()} == PUBLISHED_PARTS
    return names


def test_written_and_read(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        given = clouds(split)
        write_shapenetpart(tmp_path, given, PARTS)
        found = read_shapenetpart(tmp_path, split)
        assert found.classes == list(PARTS)
        for name in ("points", "labels", "parts"):
            assert np.array_equal(getattr(found, name), getattr(given, name))
    assert read_part_names(tmp_path) == PARTS


BROKEN = {
    "no parts": ("pid", None, "'pid' or 'seg'"),
    "other shape": ("pid", np.zeros((3, 5)), r"\(3, 5\), expected \(3, 4\)"),
    "parts of another category": ("pid", np.full((3, 4), 2), "cloud 0 is a mug"),
    "no label": ("label", None, "'label'"),
    "label out of range": ("label", np.full((3, 1), 3), "3 classes"),
    "not finite": ("data", np.full((3, 4, 3), np.inf), "NaN or infinite"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files(tmp_path: Path, kind: str) -> None:
    key, values, reason = BROKEN[kind]
    (path,) = write_shapenetpart(tmp_path, clouds(), PARTS)
    with h5py.File(path, "a") as file:
        del file[key]
        if values is not None:
            file[key] = values
    with pytest.raises(FileFormatError, match=reason) as caught:
        read_shapenetpart(tmp_path, "train")
    assert str(path) in str(caught.value)


def test_missing_folders_and_broken_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ShapeNetPart there"):
        read_shapenetpart(tmp_path, "train")
    (path,) = write_shapenetpart(tmp_path, clouds(), PARTS)
    with pytest.raises(DataError, match="no val split"):
        read_shapenetpart(tmp_path, "val")
    with pytest.raises(DataError, match="train, val, test"):
        read_shapenetpart(tmp_path, "all")
    (path.parent / "parts.json").write_text("[1, 2]")
    with pytest.raises(FileFormatError, match=r"parts\.json"):
        read_shapenetpart(tmp_path, "train")


def test_a_list_tells_of_a_missing_last_file(tmp_path: Path) -> None:
    write_shapenetpart(tmp_path, clouds("test"), PARTS)
    folder = tmp_path / "shapenet_part_seg_hdf5_data"
    listing = folder / "test_hdf5_file_list.txt"
    listing.write_text("a/b/ply_data_test0.h5\n")
    assert len(read_shapenetpart(tmp_path, "test").points)
    listing.write_text("a/b/ply_data_test0.h5\na/b/ply_data_test1.h5\n")
    with pytest.raises(DataError, match=r"ply_data_test1\.h5: missing, and test_hdf5_file_list"):
        read_shapenetpart(tmp_path, "test")


def test_fractions_are_no_labels(tmp_path: Path) -> None:
    write_shapenetpart(tmp_path, clouds("test"), PARTS)
    path = tmp_path / "shapenet_part_seg_hdf5_data" / "ply_data_test0.h5"
    for key in ("label", "pid"):
        with h5py.File(path, "r+") as file:
            kept = np.asarray(file[key])
            del file[key]
            file[key] = kept + 0.5
        with pytest.raises(FileFormatError, match=f"'{key}' holds .*, expected whole numbers"):
            read_shapenetpart(tmp_path, "test")
        with h5py.File(path, "r+") as file:
            del file[key]
            file[key] = kept.astype(np.float32)  # whole, if of another type
    assert len(read_shapenetpart(tmp_path, "test").points)


def test_what_the_writer_refuses(tmp_path: Path) -> None:
    for bad, names, reason in (
        (clouds(parts=None), PARTS, "without part labels"),
        (clouds(parts=np.zeros((3, 5), int)), PARTS, r"\(3, 5\)"),
        (clouds(parts=np.full((3, 4), 9)), PARTS, "cloud 0 is a mug"),
        (clouds(), {"mug": ["cup"]}, "for classes"),
        (clouds(labels=np.full(3, 7)), PARTS, "7 to 7"),
    ):
        with pytest.raises(DataError, match=reason):
            write_shapenetpart(tmp_path, bad, names)
    assert list(tmp_path.iterdir()) == []
    write_shapenetpart(tmp_path, clouds(), PARTS)
    other = {**PARTS, "ball": ["whole"]}
    with pytest.raises(DataError, match="other parts"):
        write_shapenetpart(tmp_path, clouds("test"), other)


def test_by_its_name_and_by_what_lies_there(tmp_path: Path) -> None:
    write_shapenetpart(tmp_path, clouds(), PARTS)
    for source in (f"shapenetpart:{tmp_path}", str(tmp_path)):
        found = open_labelled(source, "train")
        assert found.parts is not None
        assert found.classes == list(PARTS)
