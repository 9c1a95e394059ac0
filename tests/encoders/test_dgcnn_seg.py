"""DGCNN for segmentation: the original's numbers, the textbook form's, and the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pixcloud
from pixcloud import cli
from pixcloud.encoders import PointEncoder, build_encoder
from pixcloud.errors import ConfigError
from pixcloud.import_weights import BN_PARTS, import_crosspoint
from reference.textbook_seg import TextbookSegDGCNN, copy_weights

WIDTHS = [8, 12, 8, 16, 8]


def pair(kind: torch.dtype, k: int = 5) -> tuple[PointEncoder, TextbookSegDGCNN]:
    """Ours and its twin, with BN scales of both signs, one of them zero, and a transform."""
    torch.manual_seed(0)
    ours = build_encoder("dgcnn_seg", k=k, embed_dim=32, widths=WIDTHS)
    with torch.no_grad():
        for layer in ours.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.weight.normal_()
                layer.bias.normal_()
                layer.running_mean.normal_()  # type: ignore[union-attr]
                layer.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                layer.weight[1] = 0
        ours.transform.matrix.weight.normal_(0, 0.01)  # type: ignore[union-attr,operator]
    twin = TextbookSegDGCNN(k, 32, WIDTHS)
    copy_weights(ours, twin)
    return ours.to(kind), twin.to(kind)


def steps(
    ours: PointEncoder, twin: TextbookSegDGCNN, x: torch.Tensor, graphs: list[torch.Tensor] | None
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Name, ours and the twin's: features, gradients of all weights, statistics."""
    results = []
    for model in (ours, twin):
        per_point, pooled = ours(x) if model is ours else twin(x, graphs)
        weight = torch.linspace(-1, 1, per_point.numel(), dtype=x.dtype).view(per_point.shape)
        loss = (per_point * weight).mean() + pooled.square().mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        results.append([per_point, pooled, *gradients, *model.buffers()])
    names = ["per point", "pooled", *(f"d {n}" for n, _ in ours.named_parameters())]
    names += [name for name, _ in ours.named_buffers()]
    for values in results:
        for name, value in zip(names, values, strict=True):
            if name.startswith("d ") and name.endswith("bn.weight"):
                value[1] = 0  # at a scale of zero all tie, and the subgradient is open
    return [(n, a.detach(), b.detach()) for n, a, b in zip(names, *results, strict=True)]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative to the largest entry."""
    a, b = a.double().flatten(), b.double().flatten()
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["random", "k is N", "dropped"])
def test_equals_the_textbook_form(kind: str, training: bool) -> None:
    ours, twin = pair(torch.float64, k=40 if kind == "k is N" else 5)
    x = torch.randn(3, 40, 3, dtype=torch.float64)
    if kind == "dropped":
        x[:, 30:] = x[:, :1]  # as augmentation does: one place many times
    ours.train(training)
    twin.train(training)
    for name, a, b in steps(ours, twin, x, None):
        # Which of equal points is a neighbour is open, but not what comes of it.
        assert difference(a, b) < 1e-9, name


def test_equals_the_textbook_form_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """One training step with the same neighbours."""
    from pixcloud.encoders import edgeconv, two_layer_edgeconv

    graphs: list[torch.Tensor] = []

    def recorded(x: torch.Tensor, k: int) -> torch.Tensor:
        graphs.append(knn(x, k))
        return graphs[-1]

    knn = edgeconv.knn
    monkeypatch.setattr(edgeconv, "knn", recorded)
    monkeypatch.setattr(two_layer_edgeconv, "knn", recorded)
    ours, twin = pair(torch.float32, k=10)
    for name, a, b in steps(ours, twin, torch.randn(6, 100, 3), graphs):
        bound = 1e-4 if name.startswith("d ") else 1e-6 if "running" in name else 1e-5
        assert difference(a, b) < bound, name
    assert len(graphs) == 4


def test_one_point_and_one_cloud_in_evaluation() -> None:
    ours, twin = pair(torch.float64)
    ours.eval()
    twin.eval()
    with torch.no_grad():
        for x in (torch.randn(1, 30, 3), torch.ones(1, 7, 3)):
            for a, b in zip(ours(x.double()), twin(x.double()), strict=True):
                assert difference(a, b) < 1e-9
    alone, its_twin = pair(torch.float64, k=1)
    with torch.no_grad():
        x = torch.randn(2, 1, 3).double()
        for a, b in zip(alone.eval()(x), its_twin.eval()(x), strict=True):
            assert difference(a, b) < 1e-9
    with pytest.raises(ValueError, match="k = 5 neighbours of a cloud of 1 points"):
        ours(torch.randn(2, 1, 3).double())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ours.train()(torch.randn(1, 30, 3).double())


def test_in_half_precision_neighbours_and_statistics_stay() -> None:
    ours, _ = pair(torch.float32)
    x = torch.randn(4, 60, 3)
    with torch.no_grad():
        whole = ours.eval()(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = ours(x)
    for a, b in zip(half, whole, strict=True):
        assert F.cosine_similarity(a.float().flatten(), b.flatten(), dim=0) > 0.99


def test_sizes_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"widths = \[8, 8\]: five are expected"):
        build_encoder("dgcnn_seg", widths=[8, 8])
    published = build_encoder("dgcnn_seg")
    assert (published.point_dim, published.pooled_dim) == (192, 1024)


def test_features_are_what_the_published_head_reads(shared: Path, tmp_path: Path) -> None:
    """Pooled, category, per point, in this order, through the original's head: its logits."""
    folder = shared / "fixtures"
    state = torch.load(folder / "dgcnn_partseg_with_head_fp16.pth", weights_only=True)
    state = {key: value.double() for key, value in state.items()}
    of_head = {key: value for key, value in state.items() if key.startswith(HEAD_LAYERS)}
    encoder_alone = {key: value for key, value in state.items() if key not in of_head}
    for key in list(encoder_alone):
        if key.endswith("running_var"):  # the fixture leaves out the counts of batches
            encoder_alone[key.replace("running_var", BN_PARTS[-1])] = torch.tensor(1)
    torch.save(encoder_alone, tmp_path / "w.pth")
    said = import_crosspoint(str(tmp_path / "w.pth"), str(tmp_path / "out"), k=15)
    assert "DGCNN for segmentation with widths [64, 64, 64, 64, 64], embedding 1024" in said

    with np.load(folder / "dgcnn_partseg_with_head_expected.npz") as file:
        expected = {key: torch.as_tensor(value) for key, value in file.items()}
    encoder = pixcloud.load_encoder(tmp_path / "out").double()
    with torch.no_grad():
        per_point, pooled = encoder(expected["points"])
        category = F.one_hot(expected["category"], 16).double()
        category = head_layer(of_head, "conv7", category)
        cloud = torch.cat([pooled, category], dim=1)[:, None].expand(-1, per_point.shape[1], -1)
        x = torch.cat([cloud, per_point], dim=2)
        for layer in ("conv8", "conv9", "conv10"):
            x = head_layer(of_head, layer, x)
        logits = x @ of_head["conv11.weight"].flatten(1).T
    assert difference(logits, expected["logits"]) < 1e-9


HEAD_LAYERS = tuple(f"conv{number}." for number in range(7, 12))


def head_layer(weights: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    """Linear map, BN in evaluation mode, LeakyReLU, along the last axis."""
    mean, var, scale, shift = (
        weights[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    x = (x @ weights[f"{name}.0.weight"].flatten(1).T - mean) / (var + 1e-5).sqrt()
    return F.leaky_relu(x * scale + shift, 0.2)


def test_pre_trains_and_loads(pair_tree: Path, tmp_path: Path) -> None:
    settings = '{"k": 4, "embed_dim": 16, "widths": [8, 8, 8, 8, 8]}'
    words = ["pretrain", f"--data.source=pairs:{pair_tree}", f"--run={tmp_path / 'run'}"]
    words += ["--encoder.name=dgcnn_seg", f"--encoder.settings={settings}"]
    words += ["--image.name=resnet-tiny", "--trainer.epochs=1", "--trainer.batch_size=4"]
    words += ["--trainer.device=cpu", "--data.workers=0", "--data.num_points=32"]
    assert cli.main(words) == 0
    encoder = pixcloud.load_encoder(tmp_path / "run")
    assert encoder.spec["name"] == "dgcnn_seg"
    assert encoder.embed(torch.rand(2, 20, 3)).shape == (2, 16)
