"""A user's own labelled shapes in class folders, with labels of points and faces and without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pixcloud import cli, open_labelled, open_parts, save_encoder
from pixcloud.data.files import read_cloud, write_cloud_ply
from pixcloud.data.folder import list_folder, read_folder, read_part_folder
from pixcloud.data.part_files import part_colors, write_labelled_cloud, write_labelled_mesh
from pixcloud.data.part_labels import labelled_points
from pixcloud.data.sources import holds, split_there
from pixcloud.encoders import build_encoder
from pixcloud.errors import DataError, FileFormatError
from pixcloud.types import Mesh

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(40, 3)).astype(np.float32)
LABELS = np.where(POINTS[:, 1] > 0, 7, 3)
BOX = trimesh.creation.box(extents=(1, 2, 1)).subdivide()
BOX_LABELS = (BOX.triangles_center[:, 1] > 0).astype(int)


def write(path: Path, points: np.ndarray = POINTS, labels: np.ndarray = LABELS) -> Path:
    """A labelled cloud in the way that its suffix has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.column_stack([points, labels])
    if path.suffix == ".npz":
        np.savez(path, points=points, labels=labels)
    elif path.suffix == ".npy":
        np.save(path, table)
    elif path.suffix == ".ply":
        write_labelled_cloud(path, points, labels)
    elif path.suffix == ".txt":
        normals = points / np.linalg.norm(points, axis=1, keepdims=True)
        np.savetxt(path, np.column_stack([points, normals, labels]), fmt="%.6f")
    elif path.suffix == ".csv":
        np.savetxt(path, table, delimiter=",", header="x,y,z,label", comments="", fmt="%.6f")
    else:
        path.write_text("\n".join(" ".join(map(str, row)) for row in points.tolist()))
        path.with_suffix(".seg").write_text("\n".join(map(str, labels.tolist())) + "\n")
    return path


@pytest.mark.parametrize("suffix", ["npz", "npy", "ply", "txt", "csv", "pts"])
def test_labels_of_points(suffix: str, tmp_path: Path) -> None:
    points, labels = labelled_points(write(tmp_path / f"a.{suffix}"), "a", 300)
    assert points.shape == (300, 3)
    assert np.array_equal(labels, np.where(points[:, 1] > 0, 7, 3))


@pytest.mark.parametrize("suffix", ["ply", "off", "stl"])
def test_labels_of_faces(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"box.{suffix}"
    if suffix == "ply":
        mesh = Mesh(vertices=np.asarray(BOX.vertices), faces=np.asarray(BOX.faces))
        write_labelled_mesh(path, mesh, BOX_LABELS)
    else:
        BOX.export(path)
        path.with_suffix(".seg").write_text("\n".join(map(str, BOX_LABELS)))
    points, labels = labelled_points(path, "box", 200)
    assert np.array_equal(labels, (points[:, 1] > 0).astype(int))


def test_written_labels_are_seen_and_read_again(tmp_path: Path) -> None:
    write_labelled_cloud(tmp_path / "a.ply", POINTS, LABELS)
    assert np.array_equal(read_cloud(tmp_path / "a.ply").points, POINTS)
    seen = trimesh.load(tmp_path / "a.ply").colors[:, :3]
    assert np.array_equal(seen, part_colors(8)[LABELS])
    assert len(np.unique(part_colors(50), axis=0)) == 50


MISTAKES = [
    (lambda path: np.save(path, POINTS), "a.npy", "no labels of points; expected NAME.seg"),
    (lambda path: np.savez(path, points=POINTS, labels=LABELS[1:]), "a.npz", "39 labels for 40"),
    (lambda path: np.savez(path, points=POINTS, labels=LABELS + 0.5), "a.npz", "whole numbers"),
    (lambda path: path.write_text("1 2 3 4\n1 2 3\n"), "a.txt", "broken table"),
    (lambda path: BOX.export(path), "a.ply", "no labels of faces"),
]


@pytest.mark.parametrize(("spoil", "name", "words"), MISTAKES)
def test_missing_and_wrong_labels(spoil: object, name: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    spoil(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=words) as caught:
        labelled_points(path, "a", 10)
    assert str(path) in str(caught.value)


def test_wrong_companions(tmp_path: Path) -> None:
    BOX.export(tmp_path / "box.obj")
    beside = tmp_path / "box.seg"
    beside.write_text("0\n1\n")
    with pytest.raises(DataError, match="2 labels for 48 faces; faces must be triangles"):
        labelled_points(tmp_path / "box.obj", "a", 10)
    beside.write_text("handle\n")
    with pytest.raises(FileFormatError, match=r"box\.seg: expected a whole number on each line"):
        labelled_points(tmp_path / "box.obj", "a", 10)


@pytest.fixture
def mugs(tmp_path: Path) -> Path:
    """Eight mugs without a split, four caps with one, in mixed formats."""
    root = tmp_path / "mine"
    for place in range(8):
        write(root / "mug" / f"m{place}.{('npz', 'ply')[place % 2]}", POINTS + place)
    for split in ("train", "test"):
        for place in range(2):
            write(root / "cap" / split / f"c{place}.txt", POINTS, np.zeros(40, int))
    (root / "mug" / ".hidden.npz").write_text("")
    (root / "mug" / "notes.md").write_text("")
    return root


def test_splits_are_given_or_drawn(mugs: Path) -> None:
    assert len(list_folder(mugs)) == 12
    train, test = (read_folder(mugs, split) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [2, 6]
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert train.classes == ["cap", "mug"]
    assert train.points.shape == (8, 2048, 3)
    again = read_folder(mugs, "train")
    assert np.array_equal(again.points, train.points)
    assert open_labelled(f"folder:{mugs}", "test").name == "mine"
    with pytest.raises(DataError, match="its val split holds no shapes; there are test, train"):
        read_folder(mugs, "val")
    other = mugs.parent / "other"
    for split in ("train", "val"):
        write(other / split / "mug" / f"{split}.npz")
    assert read_folder(other, "val").points.shape == (1, 2048, 3)
    assert [split_there(f"folder:{other}", each) for each in ("val", "test")] == [True, False]
    (mugs.parent / "empty" / "mug").mkdir(parents=True)
    with pytest.raises(DataError, match="no shapes in class folders; expected <class>/"):
        list_folder(mugs.parent / "empty")


def test_parts_and_their_names(mugs: Path) -> None:
    train = read_part_folder(mugs, "train")
    assert train.part_names == {"cap": ["part 0"], "mug": ["part 3", "part 7"]}
    assert train.parts is not None
    mug = np.flatnonzero(train.labels == 1)[0]
    middle = train.points[mug].mean(axis=0)
    high = train.points[mug, :, 1] > round(float(middle[1]) - float(POINTS[:, 1].mean()))
    assert np.array_equal(train.parts[mug], np.where(high, 2, 1))
    names = {"mug": {"3": "foot", "7": "bowl", "9": "handle"}, "cap": ["cap"]}
    (mugs / "parts.json").write_text(json.dumps(names))
    train = read_part_folder(mugs, "train")
    assert train.part_names == {"cap": ["cap"], "mug": ["foot", "bowl", "handle"]}
    (mugs / "parts.json").write_text('{"mug": ["foot"]}')
    with pytest.raises(DataError, match=r"labels that .*parts\.json does not name for mug: 3, 7"):
        read_part_folder(mugs, "train")
    (mugs / "parts.json").write_text("[1]")
    with pytest.raises(FileFormatError, match=r"parts\.json: expected"):
        read_part_folder(mugs, "train")
    (mugs / "parts.json").unlink()
    write_cloud_ply(mugs / "mug" / "bare.ply", POINTS)
    with pytest.raises(DataError, match=r"bare\.ply: no labels of points"):
        read_part_folder(mugs, "train")


def test_protocols_read_folders(mugs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_encoder(mugs.parent / "enc", build_encoder("pointnet", embed_dim=8, widths=[8]))
    small = ["--fit.epochs", "1"]
    for words in (
        ["finetune", "--finetune.num_points", "32", *small],
        ["segment", "--segment.num_points", "32", *small],
    ):
        source = ["--data.source", f"folder:{mugs}"]
        assert cli.main([words[0], f"{mugs.parent}/enc", *source, *words[1:]]) == 0
    assert open_parts(str(mugs), "test").part_names
    assert "Part segmentation" in capsys.readouterr().out


def test_class_folders_are_recognised(mugs: Path, tmp_path: Path) -> None:
    """A bare path of them is data for the protocols; of anything else ModelNet40 is expected."""
    assert (
        open_labelled(str(mugs), "train").classes
        == open_labelled(f"folder:{mugs}", "train").classes
    )
    assert holds(str(mugs)) == (False, True)
    other = tmp_path / "other"
    (other / "a").mkdir(parents=True)
    (other / "a" / "notes.md").touch()
    assert holds(str(other)) == (False, False)
    with pytest.raises(DataError, match="no ModelNet40 there"):
        open_labelled(str(other), "train")
