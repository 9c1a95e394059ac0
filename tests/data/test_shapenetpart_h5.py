"""ShapeNetPart in h5 files: the published packing, data of other categories, broken folders."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pixcloud import open_parts, save_encoder
from pixcloud.cli import main
from pixcloud.data.modelnet import write_modelnet
from pixcloud.data.shapenetpart import (
    PUBLISHED_PARTS,
    part_offsets,
    read_part_names,
    read_shapenetpart,
    write_shapenetpart,
)
from pixcloud.data.sources import open_labelled
from pixcloud.encoders import build_encoder
from pixcloud.errors import DataError, FileFormatError
from pixcloud.evaluate.results import read_rows
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
    for content in ("[1, 2]", '{"mug": "cup"}'):
        (path.parent / "parts.json").write_text(content)
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


def test_another_packing_at_a_bare_path_has_no_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not taken for a folder of a user's shapes, which would give wrong advice."""
    write_modelnet(tmp_path, clouds())
    save_encoder(tmp_path / "enc", build_encoder("pointnet", embed_dim=8, widths=[8]))
    assert main(["segment", f"{tmp_path}/enc", "--data.source", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "'modelnet40' holds no parts; expected one of shapenetpart, folder" in error
    assert len(error.splitlines()) == 1


def write_packing(folder: Path, prefix: str, key: str, flat: bool = False) -> Path:
    """Two airplanes and two tables in each split, as they are handed out."""
    folder.mkdir(parents=True)
    labels, first = np.array([0, 15, 0, 15], np.uint8), np.array([0, 47, 0, 47])
    for split in ("train", "val", "test"):
        with h5py.File(folder / f"{prefix}{split}0.h5", "w") as file:
            file["data"] = RNG.normal(size=(4, 32, 3)).astype(np.float32)
            file["label"] = labels if flat else labels[:, None]
            parts = first[:, None] + np.arange(32) % 3
            file[key] = parts.astype(np.uint8)
        (folder / f"{prefix}{split}_0_id2file.json").write_text("[]")
        listing = folder / f"{split}_hdf5_file_list.txt"
        listing.write_text(f"./somewhere/else/{prefix}{split}0.h5\n")
    return folder


@pytest.mark.parametrize("prefix", ["ply_data_", ""])
def test_a_last_file_that_is_missing_is_told(tmp_path: Path, prefix: str) -> None:
    folder = write_packing(tmp_path / "shapenetpart_hdf5_2048", prefix, "seg")
    assert len(read_shapenetpart(tmp_path, "test").points) == 4  # its list names one file
    for listing in folder.glob("*_list.txt"):
        listing.unlink()
    assert len(read_shapenetpart(tmp_path, "val").points) == 4
    with pytest.raises(DataError, match=rf"{prefix}test1\.h5: missing; ShapeNetPart has"):
        read_shapenetpart(tmp_path, "test")
    (folder / f"{prefix}test1.h5").write_bytes((folder / f"{prefix}test0.h5").read_bytes())
    assert len(read_shapenetpart(tmp_path, "test").points) == 8


PACKINGS = [
    ("shapenet_part_seg_hdf5_data", "ply_data_", "pid"),
    ("hdf5_data", "ply_data_", "pid"),
    ("hdf5_data", "ply_data_", "seg"),
    ("shapenetpart_hdf5_2048", "", "seg"),
    ("mine", "ply_data_", "pid"),
]


@pytest.mark.parametrize(("folder", "prefix", "key"), PACKINGS)
def test_its_own_folder_is_recognised(
    folder: str, prefix: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what lies there: files of ModelNet40 have the same names."""
    root = write_packing(tmp_path / "data" / folder, prefix, key, flat=prefix == "")
    assert main(["data", "check", str(root)]) == 0
    out = capsys.readouterr().out
    for split in ("train", "val", "test"):
        assert f"{split}: 4 clouds of 32 points in 16 classes with 50 parts" in out
    for each in (open_labelled, open_parts):
        assert each(str(root), "train").name == "shapenetpart"
    save_encoder(tmp_path / "enc", build_encoder("pointnet", embed_dim=8, widths=[8]))
    words = ["--data.source", str(root), "--fit.epochs", "1", "--fit.batch_size", "2"]
    for command in ("finetune", "segment"):
        small = [f"--{command}.num_points", "16", "--out", f"{tmp_path}/{command}.jsonl"]
        assert main([command, f"{tmp_path}/enc", *words, *small]) == 0
        rows = read_rows(tmp_path / f"{command}.jsonl")
        assert {row.dataset for row in rows} == {"shapenetpart"}


def test_names_have_to_do_where_a_file_is_broken(tmp_path: Path) -> None:
    root = write_packing(tmp_path / "hdf5_data", "ply_data_", "pid")
    for path in root.glob("*.h5"):
        path.write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"ply_data_train0\.h5: cannot be read as h5"):
        open_parts(str(root), "train")
    moved = root.rename(tmp_path / "other")
    with pytest.raises(FileFormatError, match=r"ply_data_train0\.h5: cannot be read as h5"):
        open_parts(str(moved), "train")


def test_clouds_without_parts_are_those_of_modelnet(tmp_path: Path) -> None:
    """Also in a folder of ShapeNetPart's name."""
    folder = tmp_path / "hdf5_data"
    folder.mkdir()
    with h5py.File(folder / "ply_data_train0.h5", "w") as file:
        file["data"], file["label"] = np.zeros((2, 4, 3)), np.arange(2)
    assert open_labelled(str(folder), "train").parts is None
    assert open_labelled(str(folder), "train").classes == ["0", "1"]
