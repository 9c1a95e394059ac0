"""ONNX: files give what the models give, for any number of clouds and points, or are not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

import pixcloud
from pixcloud import cli
from pixcloud.encoders import ENCODERS, PointEncoder, build_encoder
from pixcloud.encoders.edgeconv import EdgeConv
from pixcloud.encoders.pct import NeighbourhoodLayer
from pixcloud.encoders.two_layer_edgeconv import TwoLayerEdgeConv
from pixcloud.errors import ConfigError, WeightsError
from pixcloud.evaluate.classifier import PointClassifier, save_classifier
from pixcloud.evaluate.segmenter import PointSegmenter
from pixcloud.export import save_encoder
from pixcloud.ops import recorded
from pixcloud.ops.linear_pool import linear_bn_pool
from pixcloud.ops.sampling import step_by_step
from pixcloud.share import onnx_file
from pixcloud.share.models import Model
from pixcloud.share.onnx_check import clouds, compare
from pixcloud.share.onnx_file import PointGraph
from pixcloud.types import PointFeatures

SMALL: dict[str, dict[str, Any]] = {
    "pointnet": {"embed_dim": 8, "widths": [4, 4], "transforms": True},
    "dgcnn": {"k": 4, "embed_dim": 8, "widths": [4, 6]},
    "dgcnn_seg": {"k": 4, "embed_dim": 8, "widths": [4] * 5},
    "pct": {"k": 4, "embed_dim": 8, "channels": 4, "centres": [12, 6], "point_features": True},
    "patch_transformer": {
        "width": 12,
        "depth": 1,
        "heads": 3,
        "groups": 8,
        "group_size": 6,
        "patch_widths": [8, 12, 16],
    },
}


def unlike_new(module: torch.nn.Module) -> torch.nn.Module:
    """With running statistics that are not 0 and 1, and with BN scales of both signs."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm1d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            torch.nn.init.normal_(layer.running_mean, std=0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(layer.weight, -1, 1)
    return module.eval()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_recorded_forms_are_the_operators(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where no neighbour can change places with another one."""
    encoder = unlike_new(build_encoder(name, **SMALL[name])).double()
    points = torch.from_numpy(clouds(3, 40)).double()
    with torch.no_grad():
        expected = encoder(points)
        monkeypatch.setattr(recorded, "recording", lambda: True)
        found = encoder(points)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-13)


def test_the_recorded_operator_is_farthest_points() -> None:
    points = torch.from_numpy(clouds(3, 40))
    assert torch.equal(recorded.farthest(points, 9, 2), step_by_step(points, 9, 2))


class AllLayers(PointEncoder):
    """Each operator that an encoder of ours is made of, in one graph: recording takes seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbourhood = NeighbourhoodLayer(3, 4, 8, 4, "farthest")
        self.single, self.pair = EdgeConv(3, 4, 4), TwoLayerEdgeConv(4, 4, 4, 4)
        self.fuse, self.bn = torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)
        self.point_dim, self.pooled_dim, self.min_points = 4, 12, 8

    def forward(self, points: torch.Tensor) -> PointFeatures:
        per_point = self.pair(self.single(points))
        pooled = linear_bn_pool(per_point, self.fuse.weight, self.bn)
        kept = self.neighbourhood(points, points)[1].amax(dim=1)
        return PointFeatures(per_point, torch.cat([pooled, kept], dim=1))


def test_a_file_gives_what_the_model_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ENCODERS, "all-layers", AllLayers)
    model = PointClassifier(build_encoder("all-layers"), ["cup", "Tasse"], head="linear")
    save_classifier(tmp_path / "cups", unlike_new(model))
    file = tmp_path / "out" / "cups.onnx"
    assert cli.main(["export", str(tmp_path / "cups"), str(file), "--to", "onnx"]) == 0
    said = capsys.readouterr().out
    assert "any number, at least 8" in said
    assert "logits: largest difference" in said
    assert "pooled: largest difference" in said
    assert [path.name for path in file.parent.iterdir()] == ["cups.onnx"]
    session = onnxruntime.InferenceSession(file)
    assert session.get_inputs()[0].shape == ["batch", "points", 3]
    for batch, num_points in ((1, 8), (3, 50)):
        points = 100 * clouds(batch, num_points) + 7  # which the graph brings to the unit sphere
        logits, pooled = session.run(["logits", "pooled"], {"points": points})
        assert np.allclose(pooled, model.encoder.embed(points).numpy(), rtol=0, atol=1e-4)
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = model.predict(points).probabilities
        assert np.allclose(exponents / exponents.sum(1, keepdims=True), expected, atol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["pixcloud.encoder"])["name"] == "all-layers"
    assert json.loads(facts["pixcloud.classes"]) == ["cup", "Tasse"]
    meta = json.loads((tmp_path / "cups" / "config.json").read_text())
    assert facts["pixcloud.weights_sha256"] == meta["weights_sha256"]


@pytest.mark.parametrize("kind", ["encoder", "encoder without per-point features", "segmenter"])
def test_what_each_kind_takes_and_gives(kind: str) -> None:
    name = "pct" if "without" in kind else "dgcnn"
    settings = SMALL[name] | ({"point_features": False} if name == "pct" else {})
    encoder = unlike_new(build_encoder(name, **settings))
    assert isinstance(encoder, PointEncoder)
    module: Any = encoder
    if kind == "segmenter":
        module = unlike_new(PointSegmenter(encoder, {"cup": ["handle", "bowl"], "cap": ["peak"]}))
    model = Model(kind=kind.split()[0], folder=Path(), meta={}, module=module, files=[])
    graph = PointGraph(model, normalize=True)
    given = graph.example(3, 40)
    with torch.no_grad():
        found = dict(zip(graph.outputs, graph(*given.values()), strict=True))
    if kind == "segmenter":
        assert given["category"].tolist() == [0, 1, 0]
        (expected,) = (x for _, x in module.logits(given["points"].numpy(), given["category"]))
        assert np.allclose(found["logits"].numpy(), expected, atol=1e-6)
        return
    assert torch.equal(found["pooled"], encoder.embed(given["points"]))
    assert list(found) == ["pooled", *(["per_point"] if name == "dgcnn" else [])]


class Choosing(PointEncoder):
    """Looks at values, which no graph can."""

    point_dim, pooled_dim = None, 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, points: torch.Tensor) -> PointFeatures:
        up = 1 if points.sum() > 0 else -1
        return PointFeatures(None, points.amax(dim=1) * self.scale * up)


def test_what_cannot_be_recorded_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ENCODERS, "choosing", Choosing)
    save_encoder(tmp_path / "encoder", build_encoder("choosing"))
    words = ["export", str(tmp_path / "encoder"), str(tmp_path / "a.onnx"), "--to", "onnx"]
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "Choosing: cannot be recorded for ONNX" in told
    assert "no choice may depend on values" in told
    assert not (tmp_path / "a.onnx").exists()


def negated(path: Path) -> None:
    """A file that gives the negated mean of the points."""
    free = [helper.make_tensor_value_info("points", TensorProto.FLOAT, ["b", "n", 3])]
    given = [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["b", 3])]
    mean = helper.make_node("ReduceMean", ["points"], ["mean"], axes=[1], keepdims=0)
    nodes = [mean, helper.make_node("Neg", ["mean"], ["pooled"])]
    graph = helper.make_graph(nodes, "wrong", free, given)
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (negated, "does not give what the model gives, so it is not kept; pooled: largest"),
        (lambda path: path.write_bytes(b"no model"), "cannot be run, so it is not kept"),
    ],
)
def test_a_wrong_file_does_not_stay(
    write: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENCODERS, "choosing", Choosing)
    save_encoder(tmp_path / "encoder", build_encoder("choosing"))
    model = SimpleNamespace(metadata_props={})
    program = SimpleNamespace(model=model, save=lambda path, **_: write(Path(path)))
    monkeypatch.setattr(onnx_file, "_recorded", lambda *_, **__: program)
    (tmp_path / "a.onnx").write_text("an older one")
    with pytest.raises(WeightsError, match=words):
        pixcloud.export_model(str(tmp_path / "encoder"), str(tmp_path / "a.onnx"), to="onnx")
    assert (tmp_path / "a.onnx").read_text() == "an older one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "encoder"]


def test_a_few_values_may_be_near_but_not_far(tmp_path: Path) -> None:
    negated(tmp_path / "a.onnx")
    points = {"points": torch.from_numpy(clouds(500, 4))}

    def module(away: float) -> Any:
        def forward(points: torch.Tensor) -> tuple[torch.Tensor]:
            pooled = -points.mean(dim=1)
            pooled[0, 0] += away * pooled.abs().max()
            return (pooled,)

        return forward

    found = compare(tmp_path / "a.onnx", module(1e-3), ["pooled"], [points])[0]
    assert found.largest == pytest.approx(1e-3, rel=1e-2)
    assert 0.999 < found.close < 1
    with pytest.raises(WeightsError, match="at least 99 % and at most 2e-02 are expected"):
        compare(tmp_path / "a.onnx", module(0.1), ["pooled"], [points])


def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_encoder(tmp_path / "encoder", build_encoder("dgcnn", k=9, embed_dim=4, widths=[4]))
    source, file = str(tmp_path / "encoder"), str(tmp_path / "a.onnx")

    def told(*words: str) -> str:
        assert cli.main(["export", *words]) == 2
        return capsys.readouterr().err

    assert "a file that ends in .onnx is expected" in told(source, source, "--to", "onnx")
    assert "num_points = -1: 0 (any" in told(source, file, "--to", "onnx", "--num_points", "-1")
    few = told(source, file, "--to", "onnx", "--num_points", "8")
    assert "num_points = 8: this encoder looks at 9 neighbours" in few
    assert "no such folder" in told(str(tmp_path / "none"), file, "--to", "onnx")
    assert "expected one of 'safetensors', 'onnx'" in told(source, file, "--to", "tflite")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    missing = told(str(tmp_path / "none"), file, "--to", "onnx")
    assert "needs onnxscript, which is not installed: pip install 'pixcloud[onnx]'" in missing
    with pytest.raises(ConfigError):
        onnx_file.require_onnx()


def test_safetensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build_encoder("pointnet", embed_dim=4, widths=[4])
    save_encoder(tmp_path / "run" / "encoder", encoder, origin={"seed": 3})
    (tmp_path / "run" / "encoder" / "notes.txt").write_text("mine")
    assert cli.main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert "encoder as config.json, encoder.safetensors" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.json",
        "encoder.safetensors",
    ]
    for name in ("config.json", "encoder.safetensors"):
        ours = (tmp_path / "out" / name).read_bytes()
        assert ours == (tmp_path / "run" / "encoder" / name).read_bytes()
    assert cli.main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "exists already; give a new folder" in capsys.readouterr().err
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert cli.main(["export", str(tmp_path / "run"), "."]) == 0
    assert len(list((tmp_path / "here").iterdir())) == 2
