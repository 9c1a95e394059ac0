"""ScanObjectNN in h5 files: both trees, every variant, CrossPoint's copy, and what is missing."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pixcloud.cli import main
from pixcloud.data.scanobjectnn import CLASSES, SUFFIXES, VARIANTS, read_scanobjectnn
from pixcloud.data.sources import holds, open_labelled
from pixcloud.errors import ConfigError, DataError, FileFormatError

TREES = ("main_split", "main_split_nobg")
COPIES = [("train", "test"), ("training_objectdataset", "test_objectdataset")]


def write(path: Path, value: float, labels: tuple[int, ...] = (0, 14)) -> None:
    """A file as it is handed out; all coordinates are `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"] = np.full((len(labels), 8, 3), value, np.float32)
        file["label"] = np.array(labels, np.int32)
        file["mask"] = np.zeros((len(labels), 8), np.int32)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, dict[str, float]]:
    """Every file of both trees, and the coordinate of each (tree, file name)."""
    values: dict[str, float] = {}
    for tree in TREES:
        for suffix in sorted(set(SUFFIXES.values())):
            for prefix in ("training", "test"):
                name = f"{tree}/{prefix}_objectdataset{suffix}.h5"
                values[name] = float(len(values))
                write(tmp_path / "data/h5_files" / name, values[name])
    return tmp_path / "data", values


@pytest.mark.parametrize("above", ["", "h5_files"])
def test_every_variant(whole: tuple[Path, dict[str, float]], above: str) -> None:
    root, values = whole
    for variant in VARIANTS:
        bare = variant == "obj_only" or variant.endswith("_nobg")
        suffix = SUFFIXES[variant.removesuffix("_nobg")]
        for split, prefix in (("train", "training"), ("test", "test")):
            found = open_labelled(f"scanobjectnn-{variant}:{root / above}", split)
            name = f"{TREES[bare]}/{prefix}_objectdataset{suffix}.h5"
            assert found.points[0, 0, 0] == values[name], (variant, split)
            assert found.labels.tolist() == [0, 14]
            assert found.labels.dtype == np.int64
            assert found.classes == CLASSES
            assert found.name == f"scanobjectnn-{variant}"


def test_the_folder_decides(whole: tuple[Path, dict[str, float]]) -> None:
    root, values = whole
    for source, name in (
        (f"{root}", "scanobjectnn-obj_bg"),
        (f"scanobjectnn:{root}/h5_files/main_split", "scanobjectnn-obj_bg"),
        (f"scanobjectnn:{root}/h5_files/main_split_nobg", "scanobjectnn-obj_only"),
        (f"{root}/h5_files/main_split_nobg", "scanobjectnn-obj_only"),
    ):
        assert open_labelled(source, "test").name == name, source
    with pytest.raises(ConfigError, match="without background, and 'pb_t25' is not one of them"):
        read_scanobjectnn(root / "h5_files/main_split_nobg", "test", "pb_t25")
    with pytest.raises(ConfigError, match="with background, and 'obj_only' is not one of them"):
        read_scanobjectnn(root / "h5_files/main_split", "test", "obj_only")
    assert len(values) == 20


@pytest.mark.parametrize("above", ["", "ScanObjectNN", "ScanObjectNN/main_split"])
def test_the_copy_of_crosspoint(tmp_path: Path, above: str) -> None:
    for number, split in enumerate(("train", "test")):
        write(tmp_path / f"ScanObjectNN/main_split/{split}.h5", number)
    for number, split in enumerate(("train", "test")):
        found = open_labelled(f"scanobjectnn:{tmp_path / above}", split)
        assert found.points[0, 0, 0] == number
        assert found.name == "scanobjectnn-obj_bg"
    with pytest.raises(DataError, match="no train split of pb_t50_rs"):
        open_labelled(f"scanobjectnn-pb_t50_rs:{tmp_path / above}", "train")


@pytest.mark.parametrize("above", ["", "ScanObjectNN", "ScanObjectNN/main_split"])
@pytest.mark.parametrize("names", COPIES)
def test_a_bare_path_is_recognised(
    above: str, names: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(names):
        write(tmp_path / f"ScanObjectNN/main_split/{name}.h5", number)
    root = tmp_path / above
    assert holds(str(root)) == (False, True)
    for number, split in enumerate(("train", "test")):
        found = open_labelled(str(root), split)
        assert found.points[0, 0, 0] == number
        assert found.name == "scanobjectnn-obj_bg"
    assert main(["data", "check", str(root)]) == 0
    assert "test: 2 clouds of 8 points in 15 classes" in capsys.readouterr().out


def test_what_is_missing_or_broken(
    tmp_path: Path, whole: tuple[Path, dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as told:
        open_labelled(f"scanobjectnn:{tmp_path / 'empty'}", "train")
    for words in ("empty/h5_files/main_split", "training_objectdataset.h5", "hkust-vgd.github.io"):
        assert words in str(told.value)
    with pytest.raises(
        ConfigError, match="no variant 'pb_t50': the nearest known one is 'pb_t50_r'"
    ):
        read_scanobjectnn(tmp_path, "train", "pb_t50")
    with pytest.raises(ConfigError, match="unknown data set 'scanobjectnn-pb50_rs'"):
        open_labelled(f"scanobjectnn-pb50_rs:{tmp_path}", "train")
    with pytest.raises(DataError, match="'train' and 'test', not 'val'"):
        read_scanobjectnn(tmp_path, "val")
    root, _ = whole
    path = root / "h5_files/main_split/test_objectdataset.h5"
    write(path, 0, labels=(0, 15))
    with pytest.raises(FileFormatError, match="labels from 0 to 15, and 15 classes are known"):
        open_labelled(f"scanobjectnn:{root}", "test")
    write(path, 0, labels=())
    with pytest.raises(DataError, match="holds no clouds"):
        open_labelled(f"scanobjectnn:{root}", "test")
    write(path, 0)
    assert main(["data", "check", f"scanobjectnn-pb_t50_rs:{root}"]) == 0
    assert "train: 2 clouds of 8 points in 15 classes" in capsys.readouterr().out
