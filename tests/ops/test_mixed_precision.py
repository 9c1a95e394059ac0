"""Under bf16 autocast: neighbours, batch statistics and losses keep the digits of fp32."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pixcloud.encoders import build_encoder
from pixcloud.encoders.edgeconv import EdgeConv
from pixcloud.encoders.image import ImageEncoder
from pixcloud.objective import CrossModalObjective
from pixcloud.ops.linear_max import linear_bn_max
from pixcloud.ops.neighbours import knn


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def test_neighbours_are_those_of_fp32() -> None:
    x = torch.randn(2, 200, 3, generator=torch.Generator().manual_seed(0))
    with autocast():
        mixed = knn(x, 8)
    assert torch.equal(mixed, knn(x, 8))
    assert knn(x.bfloat16(), 8).shape == (2, 200, 8)


def test_edge_conv_is_that_of_fp32() -> None:
    """Dropped points: one of them is the neighbour of more points than bf16 can count."""
    torch.manual_seed(0)
    x = torch.randn(2, 1024, 3)
    x[:, 100:] = x[:, :1]
    layer = EdgeConv(3, 8, 15)
    mixed = copy.deepcopy(layer)
    expected = layer(x)
    with autocast():
        found = mixed(x)
    assert torch.equal(found, expected)
    for a, b in zip(layer.buffers(), mixed.buffers(), strict=True):
        assert torch.equal(a, b)


def test_statistics_of_the_last_layer() -> None:
    """Channels far from zero: their covariance in bf16 would be noise."""
    torch.manual_seed(1)
    x = torch.randn(2, 256, 32) + 5
    weight = torch.randn(16, 32)
    plain, mixed = nn.BatchNorm1d(16), nn.BatchNorm1d(16)
    linear_bn_max(x, weight, plain)
    with autocast():
        out = linear_bn_max(x, weight, mixed)
    assert out.shape == (2, 16)
    for a, b in zip(plain.buffers(), mixed.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["dgcnn", "pointnet"])
def test_objective(name: str) -> None:
    torch.manual_seed(2)
    settings = {"dgcnn": {"k": 4, "embed_dim": 16, "widths": [8, 8]}, "pointnet": {"embed_dim": 16}}
    objective = CrossModalObjective(
        build_encoder(name, **settings[name]),
        ImageEncoder("resnet-tiny"),
        point_hidden=8,
        image_hidden=8,
        projection_dim=8,
    )
    z1, z2, h = torch.randn(3, 6, 8)
    expected = objective.losses(torch.stack([z1, z2, h], dim=1))
    with autocast():
        found = objective.losses(torch.stack([z1, z2, h], dim=1))
        losses = objective(torch.randn(4, 30, 3), torch.randn(4, 30, 3), torch.rand(4, 3, 32, 32))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    losses["loss"].backward()
    for key, parameter in objective.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
