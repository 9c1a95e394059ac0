"""PointMLP-elite written from its paper (Ma et al. 2022, arXiv:2202.07123), one cloud at a time.

The slow twin of `benchmarks/point_mlp.py`, in evaluation mode: edges are made and nothing is moved
out of the products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def plain_point_mlp(encoder: nn.Module, points: torch.Tensor) -> torch.Tensor:
    """Pooled features (B, D) of points (B, N, 3), with the weights of an encoder."""
    return torch.stack([_cloud(encoder, cloud) for cloud in points])


def _cloud(encoder: nn.Module, xyz: torch.Tensor) -> torch.Tensor:
    x = torch.relu(_norm(encoder.first[1], F.linear(xyz, encoder.first[0].weight)))
    for stage in encoder.stages:
        kept = _farthest(xyz, len(xyz) // 2)
        apart = [(x[_nearest(xyz, i, stage.k)] - x[i]) for i in kept]
        deviation = torch.stack(apart).std()
        rows = []
        for i, of_one in zip(kept, apart, strict=True):
            relative = of_one / (deviation + 1e-5) * stage.scale + stage.shift
            edges = torch.cat([relative, x[i].expand_as(relative)], dim=1)
            y = torch.relu(_norm(stage.lift[1], F.linear(edges, stage.lift[0].weight)))
            for block in stage.before:
                y = _residual(block, y)
            rows.append(y.max(dim=0).values)
        x, xyz = torch.stack(rows), xyz[kept]
        for block in stage.after:
            x = _residual(block, x)
    return x.max(dim=0).values


def _norm(bn: nn.BatchNorm1d, x: torch.Tensor) -> torch.Tensor:
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return (x - bn.running_mean) * scale + bn.bias


def _residual(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    inside = torch.relu(_norm(block.inside[1], F.linear(x, block.inside[0].weight)))
    return torch.relu(x + _norm(block.back[1], F.linear(inside, block.back[0].weight)))


def _nearest(xyz: torch.Tensor, i: int, k: int) -> list[int]:
    distances = (xyz - xyz[i]).square().sum(dim=1).tolist()
    return sorted(range(len(xyz)), key=lambda j: (distances[j], j))[:k]


def _farthest(xyz: torch.Tensor, count: int) -> list[int]:
    chosen = [0]
    while len(chosen) < count:
        gaps = (xyz[:, None] - xyz[chosen]).square().sum(dim=2).amin(dim=1)
        chosen.append(int(gaps.argmax()))
    return chosen
