"""`pixcloud embed` and `search` as a stranger meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from small_clouds import ellipsoids, one_thread  # noqa: F401 (a fixture of the module)

from conftest import write_pair_tree
from pixcloud import cli, load_encoder, save_encoder
from pixcloud.encoders import build_encoder
from pixcloud.store import VectorStore

SIZE = ["--num_points", "40"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder `enc`, eight clouds and a mesh in `shapes`, their index."""
    root = tmp_path_factory.mktemp("search")
    save_encoder(root / "enc", build_encoder("pointnet", embed_dim=16, widths=[8]))
    (root / "shapes" / "deep").mkdir(parents=True)
    for number, cloud in enumerate(ellipsoids("train", 0, per_class=2).points):
        np.save(root / "shapes" / "deep" / f"c{number}.npy", cloud)
    trimesh.creation.box().export(root / "shapes" / "box.obj")
    assert cli.main(["embed", f"{root}/enc", f"{root}/shapes", "--out", f"{root}/i", *SIZE]) == 0
    return root


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    return err


def test_each_shape_finds_itself(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "answer.json"
    words = ["search", f"{place}/i", f"{place}/shapes", "--k", "2", "--out", str(out)]
    assert cli.main(words) == 0
    answer = json.loads(out.read_text())
    assert [row["query"] for row in answer] == [row["results"][0]["name"] for row in answer]
    assert answer[0]["results"][0]["cosine"] == pytest.approx(1, abs=1e-6)
    assert "box.obj" in capsys.readouterr().out
    assert cli.main(["search", f"{place}/i", f"{place}/shapes/deep/c3.npy"]) == 0
    assert "nearest to c3.npy" in capsys.readouterr().out


def test_what_changed_is_embedded_again(place: Path, tmp_path: Path) -> None:
    shapes, out = tmp_path / "shapes", tmp_path / "i"
    shapes.mkdir()
    for name in ("a", "b", "c"):
        np.save(shapes / f"{name}.npy", np.random.default_rng(ord(name)).normal(size=(50, 3)))
    words = ["embed", f"{place}/enc", str(shapes), "--out", str(out), *SIZE]
    assert cli.main(words) == 0
    before = VectorStore(out).stamps()
    np.save(shapes / "b.npy", np.random.default_rng(9).normal(size=(60, 3)))
    (shapes / "c.npy").unlink()
    (shapes / "broken.npy").write_bytes(b"x")
    assert cli.main(words) == 0
    after = VectorStore(out).stamps()
    assert list(after) == ["a.npy", "c.npy", "b.npy"]
    assert before["a.npy"] == after["a.npy"]
    assert before["b.npy"] != after["b.npy"]
    assert cli.main([*words, "--remove_missing", "true"]) == 0
    assert list(VectorStore(out).stamps()) == ["a.npy", "b.npy"]


def test_a_file_of_features(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.npz"
    words = ["embed", f"{place}/enc", f"{place}/shapes/deep", "--out", str(out), *SIZE]
    assert cli.main(words) == 0
    with np.load(out) as stored:
        assert stored["names"].tolist() == [f"c{number}.npy" for number in range(8)]
        assert stored["features"].shape == (8, 16)
        cloud = np.load(place / "shapes" / "deep" / "c0.npy")
        alike = load_encoder(place / "enc").embed(cloud)
        cosine = stored["features"][0] @ alike.numpy() / alike.norm()
        assert cosine / np.linalg.norm(stored["features"][0]) > 0.9  # of other points of it


def test_a_picture_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_pair_tree(tmp_path / "pairs", models=4, points=48)
    run = tmp_path / "run"
    words = ["pretrain", "--recipe", "demo", "--data.source", f"pairs:{tree}", "--run", str(run)]
    words += ["--data.num_points", "32", "--data.picture_size", "24", "--data.workers", "0"]
    words += ["--encoder.settings", '{"embed_dim": 16, "widths": [8]}', "--image.name"]
    words += ["resnet-tiny", "--trainer.epochs", "1", "--trainer.batch_size", "4"]
    words += ["--trainer.probe_every", "0"]
    assert cli.main(words) == 0
    index = str(tmp_path / "index")
    shapes = str(tree / "ShapeNet")
    assert cli.main(["embed", str(run), shapes, "--out", index, "--kind", "shared"]) == 0
    picture = next((tree / "ShapeNetRendering").rglob("*.png"))
    capsys.readouterr()
    assert cli.main(["search", index, str(picture), "--k", "3"]) == 0
    shown = capsys.readouterr().out
    assert shown.count(".ply") == 3
    assert f"nearest to {picture.name}" in shown


def test_mistakes_are_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    pooled = fails(["search", f"{place}/i", f"{tmp_path}/p.png"], capsys)
    assert "holds features of kind pooled" in pooled
    assert "no index there" in fails(["search", f"{tmp_path}/none", f"{tmp_path}/p.png"], capsys)
    cloud = f"{place}/shapes/deep/c0.npy"
    assert "k is 0" in fails(["search", f"{place}/i", cloud, "--k", "0"], capsys)
    save_encoder(tmp_path / "enc", build_encoder("pointnet", embed_dim=16, widths=[8]))
    other = ["search", f"{place}/i", cloud, "--encoder", f"{tmp_path}/enc"]
    assert "was made with other weights" in fails(other, capsys)
    words = ["embed", f"{tmp_path}/enc", f"{place}/shapes", "--out", f"{place}/i", *SIZE]
    assert "encoder_sha256" in fails(words, capsys)
    assert "num_points is 0" in fails([*words, "--num_points", "0"], capsys)
    shared = ["embed", f"{place}/enc", f"{place}/shapes", "--kind", "shared", "--out"]
    assert "without its picture tower" in fails([*shared, f"{tmp_path}/s"], capsys)
    (tmp_path / "broken.npy").write_bytes(b"x")
    broken = ["embed", f"{place}/enc", f"{tmp_path}/broken.npy", "--out", f"{tmp_path}/b"]
    assert cli.main(broken) == 2
    assert "none of 1 files can be embedded" in capsys.readouterr().err
    assert "broken" in fails([*broken, "--strict", "true"], capsys)
