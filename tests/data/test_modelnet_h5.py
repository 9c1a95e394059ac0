"""ModelNet40 in h5 files: both packings with their oddities, the writer, and broken folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_meshes import tree_hashes

from pixcloud import save_encoder
from pixcloud.cli import main
from pixcloud.data import labelled_h5
from pixcloud.data.modelnet import CLASSES as MODELNET
from pixcloud.data.modelnet import FOLDER, read_modelnet, write_modelnet
from pixcloud.encoders import build_encoder
from pixcloud.errors import DataError, FileFormatError
from pixcloud.types import LabelledClouds

RNG = np.random.default_rng(0)
CLASSES = ["airplane", "flower_pot", "xbox"]


def clouds(count: int = 5, split: str = "train", points: int = 8) -> LabelledClouds:
    return LabelledClouds(
        name="any",
        split=split,
        points=RNG.normal(size=(count, points, 3)).astype(np.float32),
        labels=np.arange(count) % 3,
        classes=CLASSES,
    )


def write_published(root: Path, prefix: str = "ply_data_", flat: bool = False) -> list[np.ndarray]:
    """The layout as it is handed out, in twelve files."""
    root.mkdir(parents=True)
    parts = [RNG.normal(size=(2, 8, 3)).astype(np.float32) for _ in range(12)]
    for number, points in enumerate(parts):
        with h5py.File(root / f"{prefix}train{number}.h5", "w") as file:
            file["data"] = points
            file["label"] = np.array([2, 0], np.uint8).reshape((2,) if flat else (2, 1))
            file["normal"] = points
    (root / "shape_names.txt").write_text("\n".join(CLASSES) + "\n\n")
    return parts


@pytest.mark.parametrize("inside", [True, False])
def test_the_published_packing(tmp_path: Path, inside: bool) -> None:
    folder = tmp_path / "modelnet40_ply_hdf5_2048"
    parts = write_published(folder)
    names = [f"data/modelnet40_ply_hdf5_2048/ply_data_train{n}.h5" for n in range(12)]
    (folder / "train_files.txt").write_text("\n".join(names) + "\n")
    (folder / "ply_data_train_0_id2file.json").write_text("[]")
    found = read_modelnet(folder if inside else tmp_path, "train")
    assert np.array_equal(found.points, np.concatenate(parts))  # 10 and 11 come after 9
    assert found.labels.tolist() == [2, 0] * 12
    assert found.labels.dtype == np.int64
    assert found.classes == CLASSES
    (folder / "ply_data_train3.h5").unlink()
    with pytest.raises(DataError, match=r"ply_data_train3\.h5"):
        read_modelnet(tmp_path, "train")
    (folder / "train_files.txt").unlink()
    with pytest.raises(DataError, match=r"ply_data_train3\.h5: missing"):
        read_modelnet(tmp_path, "train")


def test_the_other_packing(tmp_path: Path) -> None:
    folder = tmp_path / "modelnet40_hdf5_2048"
    parts = write_published(folder, prefix="", flat=True)
    assert np.array_equal(read_modelnet(tmp_path, "train").points, np.concatenate(parts))
    (folder / "shape_names.txt").unlink()
    assert read_modelnet(folder, "train").classes == ["0", "1", "2"]


@pytest.mark.parametrize("prefix", ["ply_data_", ""])
def test_a_last_file_that_is_missing_is_told(tmp_path: Path, prefix: str) -> None:
    """Numbers tell of a gap alone; of ModelNet40 it is known how many files there are."""
    folder = tmp_path / "modelnet40_hdf5_2048"
    folder.mkdir()
    counts = {"train": 5, "test": 2}
    for split, count in counts.items():
        for number in range(count):
            with h5py.File(folder / f"{prefix}{split}{number}.h5", "w") as file:
                file["data"] = RNG.normal(size=(40, 8, 3)).astype(np.float32)
                file["label"] = np.arange(40)[:, None]
    for split, count in counts.items():
        assert len(read_modelnet(tmp_path, split).points) == 40 * count
        (folder / f"{prefix}{split}{count - 1}.h5").unlink()
        last = rf"{prefix}{split}{count - 1}\.h5: missing; ModelNet40 has {prefix}{split}0\.h5 to"
        with pytest.raises(DataError, match=last):
            read_modelnet(tmp_path, split)
    # A list says what there is, and names of its own say that it is something else.
    (folder / "train_files.txt").write_text("".join(f"{prefix}train{n}.h5\n" for n in range(4)))
    assert len(read_modelnet(tmp_path, "train").points) == 160
    (folder / "shape_names.txt").write_text("".join(f"mine {n}\n" for n in range(40)))
    assert len(read_modelnet(tmp_path, "test").points) == 40


def write_numbered(folder: Path, **labels: list[float]) -> Path:
    """The other packing without a list of classes, the labels of each split given."""
    folder.mkdir()
    for split, numbers in labels.items():
        with h5py.File(folder / f"{split}0.h5", "w") as file:
            file["data"] = RNG.normal(size=(len(numbers), 8, 3)).astype(np.float32)
            file["label"] = np.array(numbers)[:, None]
    return folder


def test_classes_without_names_are_those_of_both_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_numbered(tmp_path / "modelnet40_hdf5_2048", train=[0, 3, 1], test=[1, 0])
    for split in ("train", "test"):
        assert read_modelnet(folder, split).classes == ["0", "1", "2", "3"]
    assert main(["data", "check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "train: 3 clouds of 8 points in 4 classes; test: 2 clouds of 8 points in 4" in out
    save_encoder(tmp_path / "enc", build_encoder("pointnet", embed_dim=8, widths=[8]))
    words = ["finetune", f"{tmp_path}/enc", "--data.source", str(folder), "--fit.epochs", "1"]
    assert main([*words, "--finetune.num_points", "8"]) == 0
    (folder / "test0.h5").unlink()
    assert len(read_modelnet(folder, "train").classes) == 4
    nowhere = write_numbered(tmp_path / "nan", train=[0, np.nan], test=[1])
    with pytest.raises(FileFormatError, match=r"train0\.h5: 'label' holds nan, expected whole"):
        read_modelnet(nowhere, "test")


def test_check_tells_a_missing_split_from_a_missing_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_modelnet(tmp_path, clouds())
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "no test split" in capsys.readouterr().out
    (test,) = write_modelnet(tmp_path, clouds(split="test"))
    test.unlink()
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "names ply_data_test0.h5, which is missing" in capsys.readouterr().err
    listing = test.parent / "train_files.txt"
    listing.write_text("a/ply_data_train0.h5\nb/ply_data_train0.h5\n")
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "names ply_data_train0.h5 twice" in capsys.readouterr().err


OTHERS = [f"class{number}" for number in range(40)]


@pytest.mark.parametrize(
    ("place", "classes", "listed", "name"),
    [
        (f"data/{FOLDER}", MODELNET, True, "modelnet40"),
        ("data/mn", MODELNET, True, "modelnet40"),
        ("data/mn", MODELNET[::-1], True, "modelnet40"),
        (f"data/{FOLDER}", OTHERS, True, "data"),
        (f"mine/{FOLDER}", OTHERS[:3], True, "mine"),
        ("data/mine", OTHERS, True, "mine"),
        ("data/ModelNet40", OTHERS, True, "other-ModelNet40"),
        ("data/modelnet40_copy", MODELNET[:39], True, "other-modelnet40_copy"),
        (f"data/{FOLDER}", OTHERS, False, "modelnet40"),
        ("data/ModelNet40_copy", OTHERS, False, "modelnet40"),
        (f"data/{FOLDER}", OTHERS[:39], False, "data"),
        ("data/mine", OTHERS, False, "mine"),
    ],
)
def test_what_the_data_are_called(
    tmp_path: Path, place: str, classes: list[str], listed: bool, name: str
) -> None:
    folder = tmp_path / place
    given = clouds(len(classes))
    given.classes, given.labels = classes, np.arange(len(classes))
    write_modelnet(tmp_path / "written", given)
    folder.parent.mkdir(parents=True)
    (tmp_path / "written" / FOLDER).rename(folder)
    if not listed:
        (folder / "shape_names.txt").unlink()
    assert read_modelnet(folder, "train").name == name
    if folder.name == FOLDER:
        assert read_modelnet(folder.parent, "train").name == name


def test_what_the_data_of_this_folder_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_modelnet(tmp_path / "mine", clouds())
    monkeypatch.chdir(tmp_path / "mine" / FOLDER)
    assert read_modelnet(Path(), "train").name == "mine"


def test_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_h5, "CLOUDS_PER_FILE", 4)
    train, test = clouds(9), clouds(3, "test")
    files = write_modelnet(tmp_path, train, normals=train.points)
    write_modelnet(tmp_path, test)
    assert [path.name for path in files] == [f"ply_data_train{n}.h5" for n in range(3)]
    for given in (train, test):
        found = read_modelnet(tmp_path, given.split)
        assert np.array_equal(found.points, given.points)
        assert np.array_equal(found.labels, given.labels)
    shorter = clouds(2)
    write_modelnet(tmp_path, shorter)  # files of the longer split must not stay
    assert np.array_equal(read_modelnet(tmp_path, "train").points, shorter.points)


def test_equal_data_are_equal_bytes(tmp_path: Path) -> None:
    train = clouds()
    for root in ("a", "b"):
        write_modelnet(tmp_path / root, train)
    assert tree_hashes(tmp_path / "a") == tree_hashes(tmp_path / "b")


@pytest.mark.parametrize("stop_at", range(6))
def test_a_stop_while_writing_is_never_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(labelled_h5, "CLOUDS_PER_FILE", 2)
    old, new = clouds(8), clouds(6)
    write_modelnet(tmp_path, old)
    written: list[str] = []
    true_replace = labelled_h5.write_datasets

    def stopping(path: Path, datasets: dict[str, np.ndarray]) -> None:
        if len(written) == stop_at:
            raise KeyboardInterrupt
        written.append(path.name)
        true_replace(path, datasets)

    monkeypatch.setattr(labelled_h5, "write_datasets", stopping)
    if stop_at >= 3:
        write_modelnet(tmp_path, new)
        assert np.array_equal(read_modelnet(tmp_path, "train").points, new.points)
        return
    with pytest.raises(KeyboardInterrupt):
        write_modelnet(tmp_path, new)
    with pytest.raises(DataError):
        read_modelnet(tmp_path, "train")


def spoil_h5(**changed: np.ndarray | None) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with h5py.File(folder / "ply_data_train1.h5", "a") as file:
            for key, values in changed.items():
                del file[key]
                if values is not None:
                    file[key] = values

    return spoil


BROKEN = {
    "no data": (spoil_h5(data=None), "expected a dataset 'data'"),
    "no label": (spoil_h5(label=None), "expected a dataset 'label'"),
    "wrong axes": (spoil_h5(data=np.zeros((2, 3, 8))), r"\(2, 3, 8\), expected \(S, N, 3\)"),
    "other number of points": (spoil_h5(data=np.zeros((2, 9, 3))), "clouds of 9 points"),
    "labels too few": (spoil_h5(label=np.zeros((1, 1))), r"\(1, 1\), expected \(2,\)"),
    "label out of range": (spoil_h5(label=np.full((2, 1), 3)), "3 classes are known"),
    "not finite": (spoil_h5(data=np.full((2, 8, 3), np.nan)), "NaN or infinite"),
    "truncated": (
        lambda folder: (folder / "ply_data_train1.h5").write_bytes(
            b"\x89HDF\r\n\x1a\n" + bytes(99)
        ),
        "cannot be read as h5",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files(tmp_path: Path, kind: str) -> None:
    spoil, reason = BROKEN[kind]
    folder = tmp_path / "modelnet40_ply_hdf5_2048"
    write_published(folder)
    spoil(folder)
    with pytest.raises(FileFormatError, match=reason) as caught:
        read_modelnet(tmp_path, "train")
    assert "ply_data_train1.h5" in str(caught.value)


def test_missing_folders_and_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_modelnet(tmp_path / "none", "train")
    with pytest.raises(DataError, match="no ModelNet40 there"):
        read_modelnet(tmp_path, "train")
    write_modelnet(tmp_path, clouds())
    with pytest.raises(DataError, match="no test split"):
        read_modelnet(tmp_path, "test")
    with pytest.raises(DataError, match="'train' and 'test'"):
        read_modelnet(tmp_path, "val")


def test_what_the_writer_refuses(tmp_path: Path) -> None:
    def changed(**values: object) -> LabelledClouds:
        one = clouds()
        for name, value in values.items():
            setattr(one, name, value)
        return one

    for bad, reason in (
        (changed(points=np.zeros((0, 8, 3)), labels=np.zeros(0, int)), "none of them 0"),
        (changed(points=np.zeros((5, 3, 8))), "expected"),
        (changed(points=np.full((5, 8, 3), np.inf)), "NaN or infinite"),
        (changed(labels=np.zeros(4, int)), "labels"),
        (changed(labels=np.full(5, 3)), "3 to 3 for 3 classes"),
        (changed(classes=["a", "b\nc", "d"]), "line of its own"),
    ):
        with pytest.raises(DataError, match=reason):
            write_modelnet(tmp_path, bad)
    with pytest.raises(DataError, match="normals"):
        write_modelnet(tmp_path, clouds(), normals=np.zeros((1, 8, 3)))
    assert list(tmp_path.iterdir()) == []
    write_modelnet(tmp_path, clouds())
    with pytest.raises(DataError, match="other classes"):
        write_modelnet(tmp_path, changed(classes=["a", "b", "c"], split="test"))
