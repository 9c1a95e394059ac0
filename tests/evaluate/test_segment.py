"""`pixcloud segment` and `parts` as a stranger meets them, and the loop below them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from small_clouds import one_thread  # noqa: F401 (a fixture of the module)

from pixcloud import cli, load_segmenter, open_parts, save_encoder, save_segmenter
from pixcloud.data.part_labels import labelled_points
from pixcloud.data.shapenetpart import write_shapenetpart
from pixcloud.encoders import build_encoder
from pixcloud.errors import ConfigError, DataError
from pixcloud.evaluate.part_result import RULES
from pixcloud.evaluate.results import read_rows
from pixcloud.evaluate.segment import run_segment, score_parts
from pixcloud.evaluate.segment_settings import SegmentConfig, SegmentSettings
from pixcloud.evaluate.segmentation import SegmentationTask
from pixcloud.evaluate.segmenter import PointSegmenter
from pixcloud.evaluate.training_settings import AugmentSettings, FitSettings
from pixcloud.heads import PartHead
from pixcloud.types import LabelledClouds, PointFeatures

PARTS = {"rod": ["lower", "upper"], "disc": ["inner", "outer", "rim"]}
SMALL = ["--segment.num_points", "48", "--fit.epochs", "15", "--fit.batch_size", "8"]
TINY_PCT = {"channels": 8, "centres": [16, 8], "k": 4, "embed_dim": 16, "attentions": 1}
SMALL += ["--optim.lr", "0.01", "--augment.shift", "0"]


def shapes(split: str, seed: int, per_class: int = 8, points: int = 64) -> LabelledClouds:
    """Rods with a lower and an upper half, discs with rings."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1], per_class)
    clouds = rng.uniform(-1, 1, (len(labels), points, 3))
    clouds *= np.array([[0.3, 1, 0.3], [1, 0.1, 1]])[labels][:, None]
    radius = np.linalg.norm(clouds[..., [0, 2]], axis=2)
    rings = 2 + (radius > 0.5).astype(int) + (radius > 1)
    parts = np.where(labels[:, None] == 0, clouds[..., 1] > 0, rings)
    return LabelledClouds(
        name="shapes",
        split=split,
        points=clouds.astype(np.float32),
        labels=labels.astype(np.int64),
        classes=list(PARTS),
        parts=parts.astype(np.int64),
        part_names=PARTS,
    )


def encoder(name: str = "pointnet") -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "pointnet":
        return build_encoder("pointnet", embed_dim=32, widths=[16, 16])
    return build_encoder(name, k=4, embed_dim=16)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source `data`, an encoder `enc`, a segmenter `seg`, results of both fractions."""
    root = tmp_path_factory.mktemp("segment")
    for split, seed in (("train", 0), ("val", 1), ("test", 2)):
        write_shapenetpart(root / "data", shapes(split, seed), PARTS)
    save_encoder(root / "enc", encoder())
    words = ["segment", f"{root}/enc", "--data.source", f"shapenetpart:{root}/data", *SMALL]
    assert cli.main([*words, "--save", f"{root}/seg"]) == 0
    return root


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    return err


def test_rows_are_those_of_the_saved_segmenter(place: Path) -> None:
    rows = read_rows(place / "enc" / "results.jsonl")
    assert [row.metric for row in rows] == ["instance_mIoU", "class_mIoU", "point_accuracy"] * 2
    assert [row.settings["rule"] for row in rows] == [RULES[0]] * 3 + [RULES[1]] * 3
    model, test = load_segmenter(place / "seg"), open_parts(f"{place}/data", "test")
    for batch_size in (1, 3, 16, 100):
        scores = score_parts(model, test, batch_size)
        for row in rows[::3]:
            assert row.value == scores[row.settings["rule"]].instance_miou
    assert rows[0].value > 0.6  # chance is about a quarter
    assert rows[0].value >= rows[3].value
    assert rows[0].settings["train_n"] + rows[0].settings["validation_n"] == 32
    assert set(rows[0].settings["categories"]) == set(PARTS)


def test_few_labels_beside_scratch(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["segment", f"{place}/enc", "--data.source", f"{place}/data", *SMALL]
    words += ["--fit.epochs", "2", "--segment.fractions", "[0.25,0.5]", "--baseline", "scratch"]
    words += ["--segment.freeze", "true", "--segment.with_val", "false"]
    words += ["--augment.subset", "true", "--out", f"{place}/few.jsonl"]
    assert cli.main(words) == 0
    output = capsys.readouterr()
    assert "25 % of shapes (any part)" in output.err
    own = output.out.split("Part segmentation, ")[1:]
    assert len(own) == 2
    for table, rule in zip(own, RULES, strict=True):
        assert table.startswith(rule)
        assert f"mIoU by category, {rule}" in table
        assert sum(other in table for other in RULES) == 1
    rows = read_rows(place / "few.jsonl")
    assert len(rows) == 2 * 2 * 6
    assert [row.settings["train_n"] + row.settings["validation_n"] for row in rows[::12]] == [4, 8]
    frozen = [row.protocol.split(",")[1].strip() for row in rows[:12:6]]
    assert frozen == ["frozen encoder", "all weights"]
    assert set(rows[0].settings["against"]) == {"encoder", "gain", "ci95", "p"}
    assert "against" not in rows[6].settings


@pytest.mark.parametrize("name", ["dgcnn", "dgcnn_seg", "pct", "patch_transformer"])
def test_every_encoder_with_point_features(name: str) -> None:
    train, test = shapes("train", 0, per_class=2), shapes("test", 2, per_class=1)
    if name == "pct":
        small = build_encoder("pct", **TINY_PCT, point_features=True)
    elif name == "patch_transformer":
        sizes = {"width": 12, "depth": 1, "heads": 3, "groups": 8, "group_size": 6}
        small = build_encoder(name, **sizes, patch_widths=[8, 12, 16])
    else:
        small = encoder(name)
    config = SegmentConfig(
        encoder="",
        segment=SegmentSettings(num_points=48),
        fit=FitSettings(epochs=1, batch_size=2),
    )
    rows = run_segment(small, name, train, test, config, say=lambda line: None).rows
    assert all(0 <= row.value <= 1 for row in rows)


def test_labels_follow_their_points() -> None:
    """With a random subset of the points drawn, each still has its own label."""
    clouds = shapes("train", 0)

    class Cheat(torch.nn.Module):
        """Knows the parts of rods by their height; scored on rods alone."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, points: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(*points.shape[:2], 5)
            # The original height: rods were centred by their mean, which is near 0.
            logits[..., 1] = 100 * points[..., 1]
            return self.weight * logits

    rods = np.flatnonzero(clouds.labels == 0)
    assert clouds.parts is not None
    clouds.points[rods, :, 1] = np.where(clouds.parts[rods] == 1, 1.0, -1.0)
    task = SegmentationTask(
        clouds=clouds,
        places=rods,
        num_points=32,
        augment=AugmentSettings(subset=True, shift=0.0),
        label_smoothing=0.0,
        seed=0,
    )
    # Off by the three other logits of 0 where the lower part has -100: log 4 for half the points.
    assert float(task.loss(Cheat(), np.arange(4), 0).detach()) < 1.0


def test_head_is_the_concatenated_one() -> None:
    """The first layer per shape and per point is the one over everything side by side."""
    torch.manual_seed(0)
    head = (
        PartHead(6, 10, categories=3, parts=5, widths=(7, 7, 4), category_width=2).double().eval()
    )
    per_point, pooled = torch.rand(2, 9, 6).double(), torch.rand(2, 10).double()
    kinds = torch.tensor([2, 0])
    hot = torch.nn.functional.one_hot(kinds, 3).double()
    shared = torch.cat([pooled, head.category(hot)], dim=1)[:, None].expand(-1, 9, -1)
    rows = torch.cat([shared, per_point], dim=2).reshape(18, -1)
    expected = head.rest(head.first(rows)).reshape(2, 9, 5)
    found = head(PointFeatures(per_point, pooled), kinds)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_parts_of_clouds_and_meshes(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    cloud = shapes("test", 5, per_class=1, points=150)
    np.save(folder / "deep" / "rod.npy", cloud.points[0])
    box = trimesh.creation.box(extents=(0.6, 2, 0.6)).subdivide().subdivide()
    box.export(folder / "box.obj")
    (folder / "broken.ply").write_text("ply")
    words = ["parts", f"{place}/seg", str(folder), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--category", "rod"]) == 0
    assert "2 shapes of rod" in capsys.readouterr().out
    points, labels = labelled_points(tmp_path / "out" / "deep" / "rod.npy.ply", "a", 150)
    assert set(labels) <= {0, 1}
    right = (points[:, 1] > 0) == (labels == 1)
    assert right.mean() > 0.85
    points, labels = labelled_points(tmp_path / "out" / "box.obj.ply", "a", 400)
    assert ((points[:, 1] > 0) == (labels == 1)).mean() > 0.8
    assert "category is missing: one of rod, disc" in fails(words, capsys)
    assert "the nearest known one is 'rod'" in fails([*words, "--category", "rodd"], capsys)
    inside = [*words[:3], "--out", f"{folder}/out", "--category", "rod"]
    assert "lies within" in fails(inside, capsys)
    assert "broken" in fails([*words, "--category", "rod", "--strict", "true"], capsys)
    a_file = [*words[:3], "--out", f"{folder}/box.obj", "--category", "rod"]
    assert "is a file; give a folder" in fails(a_file, capsys)
    only = [words[0], words[1], f"{folder}/broken.ply", *words[3:], "--category", "rod"]
    assert "none of 1 files can be labelled" in fails(only, capsys)


def test_mistakes_are_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["segment", f"{place}/enc", "--data.source", f"shapenetpart:{place}/data", *SMALL]
    several = [*words, "--save", f"{tmp_path}/s", "--segment.fractions", "[0.5,1.0]"]
    assert "save keeps one segmenter" in fails(several, capsys)
    assert "no segmenter; give a new folder" in fails([*words, "--save", str(place)], capsys)
    assert "segment.fractions is 0" in fails([*words, "--segment.fractions", "[0]"], capsys)
    assert "num_points" in fails([*words, "--segment.num_points", "100"], capsys)
    modelnet = [*words[:3], f"modelnet40:{place}/data"]
    assert "'modelnet40' holds no parts" in fails(modelnet, capsys)
    save_encoder(tmp_path / "enc", build_encoder("pct", **TINY_PCT))
    mute = [words[0], f"{tmp_path}/enc", *words[2:]]
    assert "no features for each point" in fails(mute, capsys)
    train, test = shapes("train", 0), shapes("test", 2)
    train.labels, train.parts = train.labels * 0, train.parts * 0  # type: ignore[operator]
    config = SegmentConfig(encoder="", segment=SegmentSettings(num_points=48))
    with pytest.raises(DataError, match=r"holds categories that train lacks.*disc"):
        run_segment(encoder(), "e", train, test, config)
    test.part_names = {"rod": ["a", "b"], "disc": ["c", "d", "e"]}
    with pytest.raises(DataError, match="do not have the same parts"):
        run_segment(encoder(), "e", shapes("train", 0), test, config)
    test.parts = None
    with pytest.raises(DataError, match="its clouds have no parts"):
        run_segment(encoder(), "e", shapes("train", 0), test, config)
    for key, value in [
        ("dropout", 1.0),
        ("validation_share", -0.1),
        ("seed", -1),
        ("batch_size", 0),
    ]:
        with pytest.raises(ConfigError, match=rf"segment\.{key}"):
            SegmentSettings(**{key: value})  # type: ignore[arg-type]


def test_segmenters_on_disk(tmp_path: Path) -> None:
    model = PointSegmenter(encoder(), PARTS, num_points=48)
    save_segmenter(tmp_path / "seg", model)
    again = load_segmenter(tmp_path / "seg")
    points = shapes("test", 2).points
    assert np.array_equal(again.predict(points, ["rod"] * 16), model.predict(points, [0] * 16))
    with pytest.raises(DataError, match="unknown category 'mug': expected one of rod, disc"):
        model.predict(points[:1], ["mug"])
    with pytest.raises(DataError, match="2 clouds and 1 categories"):
        model.predict(points[:2], ["rod"])
    config = tmp_path / "seg" / "config.json"
    meta = json.loads(config.read_text())
    assert meta["part_labels"] == {"rod": [0, 1], "disc": [0, 1, 2]}
    config.write_text(json.dumps({**meta, "part_labels": {"rod": [3, 3], "disc": [0, 1, 2]}}))
    with pytest.raises(
        Exception, match=r"config\.json: describes no segmenter \(part_labels of rod"
    ):
        load_segmenter(tmp_path / "seg")
    del meta["part_labels"]  # as segmenters were saved before
    config.write_text(json.dumps(meta))
    assert load_segmenter(tmp_path / "seg").part_labels == model.part_labels
    config.write_text(json.dumps({**meta, "part_names": {"rod": ["one"]}}))
    with pytest.raises(Exception, match=r"segmenter\.safetensors") as caught:
        load_segmenter(tmp_path / "seg")
    assert "\n" not in str(caught.value)
    config.write_text(json.dumps({**meta, "format": "x"}))
    with pytest.raises(Exception, match="describes no segmenter"):
        load_segmenter(tmp_path / "seg")
