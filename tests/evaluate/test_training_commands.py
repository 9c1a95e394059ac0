"""`pixcloud finetune`, `fewshot` and `classify` as a stranger meets them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from small_clouds import CLASSES, ellipsoids, one_thread  # noqa: F401 (a fixture of the module)

from pixcloud import cli, load_classifier, save_encoder
from pixcloud.data.modelnet import write_modelnet
from pixcloud.encoders import build_encoder
from pixcloud.evaluate.classify import list_shapes, shape_points
from pixcloud.evaluate.results import read_rows

SMALL = ["--finetune.num_points", "40", "--fit.epochs", "12", "--optim.lr", "0.01"]
TRIALS = ["--fewshot.ways", "3", "--fewshot.shots", "4", "--fewshot.queries", "6"]
TRIALS += ["--fewshot.num_points", "40", "--fewshot.trials", "2", "--fit.epochs", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled source `data`, an encoder `enc`, a fine-tuned classifier `cls`."""
    root = tmp_path_factory.mktemp("commands")
    for split, seed in (("train", 0), ("test", 1)):
        write_modelnet(root / "data", ellipsoids(split, seed))
    torch.manual_seed(0)
    save_encoder(root / "enc", build_encoder("pointnet", embed_dim=32, widths=[16, 16]))
    words = ["finetune", f"{root}/enc", "--data.source", f"modelnet40:{root}/data", *SMALL]
    words += ["--finetune.head", "linear", "--save", f"{root}/cls", "--finetune.votes", "3"]
    assert cli.main(words) == 0
    return root


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    return err


def test_finetune_appends_rows_and_saves(place: Path) -> None:
    rows = read_rows(place / "enc" / "results.jsonl")
    assert [row.metric for row in rows] == ["accuracy", "class_mean_accuracy"] * 2
    test = ellipsoids("test", 1)
    model = load_classifier(place / "cls")
    for row, votes in zip(rows[::2], (1, 3), strict=True):
        labels = model.predict(test.points, votes=votes).labels
        assert row.value == (labels == test.labels).mean()
    assert rows[0].value > 0.5


def test_fewshot_both_ways(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "fewshot.jsonl"
    words = ["fewshot", f"{place}/enc", "--data.source", f"modelnet40:{place}/data", *TRIALS]
    for protocol in ("crosspoint", "point-bert"):
        assert cli.main([*words, "--protocol", protocol, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "CrossPoint: queries from" in shown
    assert "Point-BERT: queries from" in shown
    rows = read_rows(out)
    assert [row.split for row in rows] == ["train", "train", "test", "test"]
    assert len(list((place / "folds").iterdir())) == 2
    again = [*words, "--folds", f"{place}/{rows[0].settings['folds']}", "--out", str(out)]
    assert cli.main(again) == 0
    assert read_rows(out)[4].settings["accuracies"] == rows[0].settings["accuracies"]


def test_mistakes_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data.source", f"modelnet40:{place}/data"]
    few, tune = ["fewshot", f"{place}/enc", *data, *TRIALS], ["finetune", f"{place}/enc", *data]
    assert "expected one of 'crosspoint', 'point-bert'" in fails(
        [*few, "--protocol", "pointbert"], capsys
    )
    assert "fewshot.ways = 9" in fails([*few, "--fewshot.ways", "9"], capsys)
    assert "12 + 6 = 18" in fails([*few, "--fewshot.shots", "12"], capsys)
    assert "cannot be read as folds" in fails([*few, "--folds", f"{place}/none.json"], capsys)
    assert "1 % is 0.01" in fails([*tune, "--finetune.fractions", "[1, 5]"], capsys)
    assert "one of 'none', 'scratch'" in fails([*tune, "--baseline", "zero"], capsys)
    assert "but finetune.num_points is 1024: set finetune.num_points to" in fails(tune, capsys)
    assert "no encoder there" in fails(["finetune", str(place), *data], capsys)
    assert "is a folder" in fails([*tune, "--out", str(place)], capsys)
    assert "finetune.freez" in fails([*tune, "--finetune.freez", "true"], capsys)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clouds, few and many points, meshes, a broken file and one that is no shape."""
    root = tmp_path_factory.mktemp("scans")
    test = ellipsoids("test", 3, per_class=2, points=60)
    (root / "deep" / "er").mkdir(parents=True)
    np.save(root / "deep" / "er" / "many.npy", test.points[0] * 100)
    np.savetxt(root / "few.xyz", test.points[1][:30])
    trimesh.creation.box((1, 4, 1)).export(root / "box.stl")
    trimesh.creation.box((1, 1, 4)).export(root / "mesh.ply")
    trimesh.PointCloud(test.points[2]).export(root / "cloud.ply")
    (root / "broken.npy").write_bytes(b"nothing")
    (root / "notes.md").write_text("no shape")
    (root / ".hidden.npy").write_bytes(b"")
    return root


def test_classify_a_folder(
    place: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["classify", f"{place}/cls", str(scans)]
    for out in ("first.csv", "again.csv"):
        assert cli.main([*words, "--out", str(tmp_path / out), "--votes", "2"]) == 0
    shown = capsys.readouterr()
    assert "5 shapes classified" in shown.out
    assert "left out:" in shown.err
    assert "broken.npy" in shown.err
    rows = list(csv.DictReader((tmp_path / "first.csv").open()))
    names = ["box.stl", "cloud.ply", "deep/er/many.npy", "few.xyz", "mesh.ply"]
    assert [row["file"] for row in rows] == names
    for row in rows:
        assert row["class"] in CLASSES
        assert row["class"] != row["second_class"]
        assert float(row["probability"]) >= float(row["second_probability"])
    assert rows[0]["class"] == "rod"
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()


def test_shapes_become_points(scans: Path) -> None:
    few = shape_points(scans / "few.xyz", "few.xyz", 40, "y", 0)
    assert few.shape == (40, 3)
    assert len(np.unique(few, axis=0)) <= 30
    many = scans / "deep" / "er" / "many.npy"
    standing, lying = (shape_points(many, "m", 40, up, 0) for up in ("y", "z"))
    np.testing.assert_array_equal(lying, standing[:, [0, 2, 1]] * [1, 1, -1])
    assert len(np.unique(standing, axis=0)) == 40
    assert not np.array_equal(standing, shape_points(many, "m", 40, "y", 1))
    assert np.ptp(shape_points(scans / "mesh.ply", "m", 40, "z", 0), axis=0).argmax() == 1
    assert list_shapes(many) == [many]


def test_what_cannot_be_classified_is_told(
    place: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out.csv")]
    strict = ["classify", f"{place}/cls", str(scans), *out, "--strict", "true"]
    assert "broken.npy" in fails(strict, capsys)
    assert "no clouds or meshes there" in fails(
        ["classify", f"{place}/cls", str(tmp_path), *out], capsys
    )
    assert "no such file or folder" in fails(
        ["classify", f"{place}/cls", f"{tmp_path}/none", *out], capsys
    )
    broken = ["classify", f"{place}/cls", f"{scans}/broken.npy", *out]
    assert "none of 1 files can be classified" in fails(broken, capsys)
    assert "votes is 0" in fails([*broken, "--votes", "0"], capsys)
    assert "no classifier there" in fails(["classify", str(place), str(scans), *out], capsys)
    assert "is a folder" in fails(
        ["classify", f"{place}/cls", str(scans), "--out", str(tmp_path)], capsys
    )
    assert not list(tmp_path.iterdir())
