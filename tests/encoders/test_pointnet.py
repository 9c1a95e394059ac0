"""PointNet, whose last layer takes its maximum first, against the textbook form, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pixcloud.encoders import PointEncoder, build_encoder
from reference.plain_ops import PlainPointNet


def translated(state: dict[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """Our state dict under the names and shapes of the plain twin."""
    out = {}
    for key, value in state.items():
        name = key.replace("last.", f"layers.{depth}.", 1) if key.startswith("last.") else key
        parts = name.split(".")
        if parts[0] == "layers":
            kind = "convs" if parts[2] == "linear" else "bns"
            name = ".".join([kind, parts[1], parts[-1]])
        elif parts[1] in ("points", "last"):
            place = parts[2] if parts[1] == "points" else "2"
            kind = "convs" if "linear" in parts else "bns"
            name = ".".join([parts[0], kind, place, parts[-1]])
        elif parts[1] == "cloud":
            kind = "linears" if parts[2] in "03" else "linear_bns"
            name = ".".join([parts[0], kind, str(int(parts[2]) // 3), parts[-1]])
        is_conv = "convs" in name
        out[name] = value[..., None] if is_conv else value
    return out


def pair(transforms: bool) -> tuple[PointEncoder, nn.Module]:
    torch.manual_seed(2)
    ours = build_encoder("pointnet", embed_dim=16, widths=[8, 12], transforms=transforms).double()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "bn" in name:
                parameter.normal_()  # negative scales too
        ours.last.bn.weight.copy_(torch.linspace(-1, 1, 16))  # type: ignore[union-attr]
        if transforms:
            for net in (ours.input_transform, ours.feature_transform):
                net.matrix.weight.normal_(std=0.05)  # type: ignore[union-attr]
    plain = PlainPointNet(16, [8, 12], transforms).double()
    plain.load_state_dict(translated(ours.state_dict(), 2))
    return ours, plain


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("transforms", [True, False])
@pytest.mark.parametrize("kind", ["random", "dropped", "one point"])
def test_pointnet(training: bool, transforms: bool, kind: str) -> None:
    ours, plain = pair(transforms)
    x = torch.randn(4, 20, 3, dtype=torch.float64)
    if kind == "dropped":
        x[:, 3:] = x[:, :1]
    elif kind == "one point":
        x = x[:, :1]
    results: list[dict[str, Any]] = []
    for model in (ours.train(training), plain.train(training)):
        per_point, pooled = model(x)
        weights = torch.linspace(-1, 1, pooled.numel(), dtype=torch.float64).view(pooled.shape)
        loss = (pooled * weights).sum() + per_point.square().sum()
        names = [name for name, _ in model.named_parameters()]
        grads = torch.autograd.grad(loss, list(model.parameters()))
        found = dict(zip(names, grads, strict=True)) | dict(model.named_buffers())
        results.append((translated(found, 2) if model is ours else found) | {"pooled": pooled})
        results[-1]["per_point"] = per_point
    assert set(results[0]) == set(results[1])
    for key, value in results[0].items():
        expected = results[1][key]
        bound = 1e-9 * max(1.0, float(expected.detach().double().abs().max()))
        assert (value - expected).abs().max() <= bound, key


def test_zero_scale_gives_the_bias() -> None:
    """At a BN scale of zero every point ties; the value is defined, its subgradient is not."""
    ours, plain = pair(False)
    torch.nn.init.zeros_(ours.last.bn.weight)  # type: ignore[union-attr, arg-type]
    torch.nn.init.zeros_(plain.bns[2].weight)
    x = torch.randn(2, 12, 3, dtype=torch.float64)
    found = ours(x).pooled
    assert torch.allclose(found, plain(x)[1], rtol=1e-12)
    assert torch.allclose(found, ours.last.bn.bias.relu().expand_as(found))  # type: ignore[union-attr]
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in ours.parameters() if p.grad is not None)


def test_transforms_begin_as_the_identity() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("pointnet", embed_dim=8, widths=[4], transforms=True).eval()
    net = encoder.input_transform
    assert torch.equal(net(torch.randn(2, 9, 3)), torch.eye(3).expand(2, 3, 3))  # type: ignore[operator]
