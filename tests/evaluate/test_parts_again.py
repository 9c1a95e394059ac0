"""Labels keep their meaning: learned from, written by `pixcloud parts`, learned from again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from small_clouds import one_thread  # noqa: F401 (a fixture of the module)

from pixcloud import cli, load_segmenter, open_parts, save_encoder
from pixcloud.data.part_files import write_labelled_cloud
from pixcloud.data.part_labels import labelled_points
from pixcloud.encoders import build_encoder

NAMED = {"mug": {"1": "cup", "7": "handle"}}
SMALL = ["--segment.num_points", "48", "--fit.epochs", "12", "--fit.batch_size", "4"]
SMALL += ["--optim.lr", "0.01", "--augment.shift", "0"]


def rod(seed: int) -> np.ndarray:
    cloud = np.random.default_rng(seed).uniform(-1, 1, (80, 3)) * (0.3, 1, 0.3)
    return cloud.astype(np.float32)


def truth(points: np.ndarray) -> np.ndarray:
    return np.where(points[:, 1] > 0, 7, 1)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Labelled mugs, whose upper half is label 7 and lower half label 1; scans; an encoder."""
    for number in range(8):
        path = tmp_path / "mine" / "mug" / f"m{number}.ply"
        write_labelled_cloud(path, rod(number), truth(rod(number)))
    (tmp_path / "scans").mkdir()
    for number in range(6):
        np.save(tmp_path / "scans" / f"s{number}.npy", rod(100 + number))
    box = trimesh.creation.box(extents=(0.6, 2, 0.6)).subdivide().subdivide()
    box.export(tmp_path / "scans" / "box.obj")
    torch.manual_seed(0)  # of the encoder's weights: some learn too little in so few epochs
    save_encoder(tmp_path / "enc", build_encoder("pointnet", embed_dim=32, widths=[16, 16]))
    return tmp_path


def learn(root: Path, folder: str) -> None:
    words = ["segment", f"{root}/enc", "--data.source", f"folder:{root}/{folder}", *SMALL]
    assert cli.main([*words, "--save", f"{root}/seg-{folder}"]) == 0


def label(root: Path, segmenter: str, out: str) -> None:
    words = ["parts", f"{root}/{segmenter}", f"{root}/scans", "--category", "mug"]
    assert cli.main([*words, "--out", f"{root}/{out}"]) == 0


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("place", ["beside the shapes", "in the root"])
def test_labels_and_names_survive_the_round(
    mine: Path, named: bool, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if named:
        (mine / "mine" / "parts.json").write_text(json.dumps(NAMED))
    learn(mine, "mine")
    label(mine, "seg-mine", "labelled")
    table = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if "│" in line]
    names = ["cup", "handle"] if named else ["part 1", "part 7"]
    found = [[cell.strip() for cell in row] for row in table]
    assert [["1", names[0]], ["7", names[1]]] == found[-2:]
    for file in ("s0.npy.ply", "box.obj.ply"):
        points, labels = labelled_points(mine / "labelled" / file, "a", 400)
        assert set(labels.tolist()) == {1, 7}
        assert (labels == truth(points)).mean() > 0.8

    (mine / "again").mkdir()
    shutil.copytree(mine / "labelled", mine / "again" / "mug")
    if place == "in the root":
        (mine / "again" / "mug" / "parts.json").rename(mine / "again" / "parts.json")
    learn(mine, "again")
    first, second = (load_segmenter(mine / f"seg-{name}") for name in ("mine", "again"))
    assert second.part_labels == first.part_labels == {"mug": [1, 7]}
    assert second.part_names == first.part_names == {"mug": names}
    label(mine, "seg-again", "labelled")  # into the same folder: the labels mean the same
    assert set(labelled_points(mine / "labelled" / "s0.npy.ply", "a", 400)[1].tolist()) == {1, 7}


def test_files_written_by_cloudcompare_are_read(mine: Path) -> None:
    """It puts `scalar_` before the name of a property that has been corrected in it."""
    path = mine / "mine" / "mug" / "m0.ply"
    content = path.read_bytes().replace(b"property int label", b"property int scalar_Label")
    path.write_bytes(content)
    points, labels = labelled_points(path, "a", 40)
    assert np.array_equal(labels, truth(points))


def test_names_that_contradict_are_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / "mine" / "parts.json").write_text(json.dumps(NAMED))
    learn(mine, "mine")
    (mine / "labelled").mkdir()
    (mine / "labelled" / "parts.json").write_text('{"mug": {"1": "foot"}, "cap": ["peak"]}')
    capsys.readouterr()
    words = ["parts", f"{mine}/seg-mine", f"{mine}/scans", "--out", f"{mine}/labelled"]
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert "label 1 of mug is called 'foot' there, and 'cup' here; give another folder" in err
    assert [path.name for path in (mine / "labelled").iterdir()] == ["parts.json"]
    (mine / "labelled" / "parts.json").write_text('{"cap": ["peak"]}')
    assert cli.main(words) == 0
    listed = json.loads((mine / "labelled" / "parts.json").read_text())
    assert listed == {"cap": {"0": "peak"}, **NAMED}


def test_labels_of_another_category_stay(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learn(mine, "mine")
    label(mine, "seg-mine", "labelled")
    folder = mine / "labelled"
    (folder / "parts.json").write_text('{"cap": ["peak"]}')  # as if they had been caps
    before = (folder / "s0.npy.ply").read_bytes()
    capsys.readouterr()
    words = ["parts", f"{mine}/seg-mine", f"{mine}/scans", "--out", str(folder)]
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert "labelled: holds shapes labelled as cap, and 7 of them would be overwritten" in err
    assert (folder / "s0.npy.ply").read_bytes() == before
    assert (folder / "parts.json").read_text() == '{"cap": ["peak"]}'


def test_a_folder_of_two_categories_knows_them_apart(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file says what it was labelled as; the list beside them has both."""
    for category in ("mug", "Löffel"):
        shutil.copytree(mine / "mine" / "mug", mine / "two" / category)
    learn(mine, "two")
    (mine / "one").mkdir()
    np.save(mine / "one" / "z.npy", rod(200))
    out = mine / "labelled"

    def label_as(category: str, shapes: str) -> int:
        words = ["parts", f"{mine}/seg-two", f"{mine}/{shapes}", "--out", str(out)]
        return cli.main([*words, "--category", category])

    assert label_as("Löffel", "one") == label_as("mug", "scans") == label_as("mug", "scans") == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for category, shapes, number, first, other in (
        ("Löffel", "scans", 7, "box.obj.ply", "mug"),
        ("mug", "one", 1, "z.npy.ply", "Löffel"),
    ):
        capsys.readouterr()
        assert label_as(category, shapes) == 2
        err = capsys.readouterr().err
        assert f"holds shapes labelled as {other}, and {number} of them would be" in err
        assert f"by labels of {category}, {first} first; give another folder" in err
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_segmenters_of_before_number_from_0(mine: Path) -> None:
    learn(mine, "mine")
    config = mine / "seg-mine" / "config.json"
    meta = json.loads(config.read_text())
    assert meta.pop("part_labels") == {"mug": [1, 7]}
    config.write_text(json.dumps(meta))
    label(mine, "seg-mine", "labelled")
    labels = labelled_points(mine / "labelled" / "s0.npy.ply", "a", 400)[1]
    assert set(labels.tolist()) == {0, 1}


def test_labels_of_both_splits_count(mine: Path) -> None:
    train, test = (open_parts(f"folder:{mine}/mine", split) for split in ("train", "test"))
    assert train.part_labels == test.part_labels == {"mug": [1, 7]}
