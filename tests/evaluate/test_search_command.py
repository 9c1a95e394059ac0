"""`pixcloud embed` and `search` as a stranger meets them."""

from __future__ import annotations

import json
import shutil
import sqlite3
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


def two_folders(root: Path) -> tuple[Path, Path]:
    """Folders a and b, both with chair/0.npy and chair/1.npy."""
    for place in ("a", "b"):
        (root / place / "chair").mkdir(parents=True)
        for number in range(2):
            cloud = np.random.default_rng([ord(place), number]).normal(size=(50, 3))
            np.save(root / place / "chair" / f"{number}.npy", cloud)
    return root / "a", root / "b"


def test_another_folder_replaces_nothing_unless_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (a, b), out = two_folders(tmp_path), tmp_path / "i"

    def embed(folder: Path, *more: str) -> list[str]:
        words = ["embed", f"{place}/enc", str(folder), "--out", str(out), *SIZE, *more]
        capsys.readouterr()
        assert cli.main(words) == 0
        return capsys.readouterr().out.split("│")[1:-1]

    assert [cell.strip() for cell in embed(a)] == ["2", "0", "0", "0", "0"]
    names, before = VectorStore(out).vectors()
    error = fails(["embed", f"{place}/enc", str(b), "--out", str(out), *SIZE], capsys)
    for words in ("chair/0.npy", "chair/1.npy", f"from {a}", f"from {b}", "--prefix", "--replace"):
        assert words in error
    assert np.array_equal(VectorStore(out).vectors()[1], before)
    # Under names of its own beside it; again nothing is done, and what is gone goes from it alone.
    assert [cell.strip() for cell in embed(b, "--prefix", "b")] == ["2", "0", "0", "0", "0"]
    assert list(VectorStore(out).stamps()) == [*names, "b/chair/0.npy", "b/chair/1.npy"]
    assert [cell.strip() for cell in embed(b, "--prefix", "b/")] == ["0", "0", "2", "0", "0"]
    (b / "chair" / "1.npy").unlink()
    gone = embed(b, "--prefix", "b", "--remove_missing", "true")
    assert [cell.strip() for cell in gone] == ["0", "0", "1", "1", "0"]
    # In their place, if that is said; the same folder replaces what changed without a word.
    assert [cell.strip() for cell in embed(b, "--replace", "true")] == ["0", "1", "0", "0", "0"]
    sources = VectorStore(out).sources()
    assert (sources["chair/0.npy"], sources["chair/1.npy"]) == (str(b), str(a))
    np.save(b / "chair" / "0.npy", np.random.default_rng(9).normal(size=(60, 3)))
    assert [cell.strip() for cell in embed(b)] == ["0", "1", "0", "0", "0"]


def test_broken_queries_of_a_folder_are_left_out(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asking = tmp_path / "asking"
    shutil.copytree(place / "shapes", asking)
    (asking / "broken.ply").write_bytes(b"ply\nnothing\n")
    words = ["search", f"{place}/i", str(asking), "--out", str(tmp_path / "answer.json")]
    assert cli.main(words) == 0
    assert "left out: " in (err := capsys.readouterr().err)
    assert "broken.ply" in err
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert "broken.ply" not in [row["query"] for row in answer]
    assert "broken.ply" in fails([*words, "--strict", "true"], capsys)
    words[2] = str(asking / "broken.ply")
    assert "broken.ply" in fails(words, capsys)


def test_a_folder_of_broken_queries_is_an_error(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.ply", "b.ply"):
        (tmp_path / name).write_bytes(b"ply\nnothing\n")
    assert cli.main(["search", f"{place}/i", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path}: none of 2 files can ask; the first: {tmp_path / 'a.ply'}" in err
    assert err.count("left out: ") == 2


def test_what_is_there_is_not_removed(place: Path, tmp_path: Path) -> None:
    (a, _), out = two_folders(tmp_path), tmp_path / "i"

    def embed(shapes: Path, *more: str) -> list[str]:
        words = ["embed", f"{place}/enc", str(shapes), "--out", str(out), *SIZE, *more]
        assert cli.main(words) == 0
        return list(VectorStore(out).stamps())

    both = [*embed(a), "p/chair/0.npy", "p/chair/1.npy"]
    embed(a, "--prefix", "p")
    assert embed(a, "--remove_missing", "true") == both
    # Of one file, its neighbours are there still.
    embed(a / "chair" / "0.npy")
    embed(a / "chair" / "1.npy")
    assert len(embed(a / "chair" / "0.npy", "--remove_missing", "true")) == 6
    (a / "chair" / "1.npy").unlink()
    assert embed(a / "chair" / "0.npy", "--remove_missing", "true") == [*both, "0.npy"]
    assert embed(a, "--remove_missing", "true") == ["chair/0.npy", "p/chair/0.npy", "0.npy"]


@pytest.mark.parametrize(("before", "now"), [("p/q", "p"), ("", "chair"), ("chair", ""), ("", "p")])
def test_other_prefixes_stay(place: Path, tmp_path: Path, before: str, now: str) -> None:
    """Also where one begins as the other, or is called as a folder of the shapes."""
    (a, _), out = two_folders(tmp_path), tmp_path / "i"
    words = ["embed", f"{place}/enc", str(a), "--out", str(out), *SIZE]
    assert cli.main([*words, "--prefix", before]) == 0
    there = set(VectorStore(out).stamps())
    assert cli.main([*words, "--prefix", now, "--remove_missing", "true"]) == 0
    assert there < set(VectorStore(out).stamps())


@pytest.mark.parametrize("prefix", ["", "p"])
def test_a_namesake_keeps_nothing_that_is_gone(place: Path, tmp_path: Path, prefix: str) -> None:
    (a, _), out = two_folders(tmp_path), tmp_path / "i"
    np.save(a / "0.npy", np.random.default_rng(5).normal(size=(60, 3)))
    words = ["embed", f"{place}/enc", str(a), "--out", str(out), *SIZE, "--prefix", prefix]
    assert cli.main(words) == 0
    (a / "chair" / "0.npy").unlink()
    assert cli.main([*words, "--remove_missing", "true"]) == 0
    start = f"{prefix}/" if prefix else ""
    assert list(VectorStore(out).stamps()) == [f"{start}0.npy", f"{start}chair/1.npy"]


@pytest.mark.parametrize("prefix", ["", "p", "p/q"])
def test_a_class_folder_that_is_gone(place: Path, tmp_path: Path, prefix: str) -> None:
    """Also where namesakes lie beside it, and down to the very last shape."""
    (a, _), out = two_folders(tmp_path), tmp_path / "i"
    for number in range(2):
        np.save(a / f"{number}.npy", np.random.default_rng(number).normal(size=(60, 3)))
    words = ["embed", f"{place}/enc", str(a), "--out", str(out), *SIZE, "--prefix", prefix]
    assert cli.main(words) == 0
    shutil.rmtree(a / "chair")
    assert cli.main([*words, "--remove_missing", "true"]) == 0
    start = f"{prefix}/" if prefix else ""
    assert list(VectorStore(out).stamps()) == [f"{start}0.npy", f"{start}1.npy"]
    (a / "0.npy").unlink()
    (a / "1.npy").unlink()
    assert cli.main(words) == 2  # without a word of removal an empty folder is a mistake
    assert len(VectorStore(out)) == 2
    assert cli.main([*words, "--remove_missing", "true"]) == 0
    assert len(VectorStore(out)) == 0
    words[2] = str(tmp_path / "mistyped")
    assert cli.main([*words, "--remove_missing", "true"]) == 2


def test_another_prefix_stays_when_its_file_changed(place: Path, tmp_path: Path) -> None:
    (a, _), out = two_folders(tmp_path), tmp_path / "i"
    words = ["embed", f"{place}/enc", str(a), "--out", str(out), *SIZE]
    assert cli.main([*words, "--prefix", "p"]) == 0
    np.save(a / "chair" / "0.npy", np.random.default_rng(9).normal(size=(60, 3)))
    assert cli.main([*words, "--remove_missing", "true"]) == 0
    assert len(VectorStore(out)) == 4
    (a / "chair" / "0.npy").unlink()
    assert cli.main([*words, "--remove_missing", "true"]) == 0
    assert list(VectorStore(out).stamps()) == ["p/chair/1.npy", "chair/1.npy"]


def test_stamps_of_earlier_versions_stay_good(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (a, _), out = two_folders(tmp_path), tmp_path / "i"
    words = ["embed", f"{place}/enc", str(a), "--out", str(out), *SIZE, "--prefix", "p"]
    assert cli.main(words) == 0
    with sqlite3.connect(out / "vectors.sqlite") as base:  # they did not tell the prefix
        base.execute("UPDATE items SET stamp = substr(stamp, 1, length(stamp) - 2)")
    capsys.readouterr()
    assert cli.main([*words, "--remove_missing", "true"]) == 0
    cells = [cell.strip() for cell in capsys.readouterr().out.split("│")[1:-1]]
    assert cells == ["0", "0", "2", "0", "0"]
    (a / "chair" / "1.npy").unlink()
    assert cli.main([*words, "--remove_missing", "true"]) == 0
    assert list(VectorStore(out).stamps()) == ["p/chair/0.npy"]


def test_the_folder_is_the_same_by_another_path(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = two_folders(tmp_path)
    words = ["embed", f"{place}/enc", str(a), "--out", f"{tmp_path}/i", *SIZE]
    assert cli.main(words) == 0
    monkeypatch.chdir(tmp_path)
    np.save(a / "chair" / "0.npy", np.random.default_rng(9).normal(size=(60, 3)))
    words[2] = "a"
    assert cli.main(words) == 0
    assert set(VectorStore(tmp_path / "i").sources().values()) == {str(a)}


def test_a_query_of_no_known_kind(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.tiff")
    error = fails(["search", f"{place}/i", f"{tmp_path}/photo.tiff"], capsys)
    assert "photo.tiff: neither a cloud or mesh (" in error
    assert ".png" in error


def test_search_finds_the_encoder_from_another_folder(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, _ = two_folders(tmp_path)
    monkeypatch.chdir(place)
    assert cli.main(["embed", "enc", str(a), "--out", f"{tmp_path}/i", *SIZE]) == 0
    monkeypatch.chdir(tmp_path)
    words = ["search", "i", "a/chair/0.npy"]
    assert cli.main(words) == 0
    about = VectorStore(tmp_path / "i").about
    assert about.encoder == str(place / "enc")
    with VectorStore(tmp_path / "i") as store:  # as an earlier version wrote it
        store._base.execute("UPDATE about SET value = '\"enc\"' WHERE key = 'encoder'")
    error = fails(words, capsys)
    assert "was made with the encoder enc" in error
    assert "by --encoder" in error
    assert cli.main([*words, "--encoder", f"{place}/enc"]) == 0


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
