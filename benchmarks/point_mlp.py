"""PointMLP-elite, to compare with: an encoder that the package does not have, and why.

    pixcloud pretrain --recipe demo --encoder.name benchmarks/point_mlp.py:PointMLP --run RUN

Written from its paper (Ma et al. 2022, arXiv:2202.07123) with torch's own layers over the package's
neighbours and farthest points. What it learns for its cost is in `docs/own_encoder.md`.
"""

from __future__ import annotations

import torch
from torch import nn

from pixcloud.encoders import PointEncoder
from pixcloud.ops.neighbours import knn
from pixcloud.ops.sampling import farthest_points
from pixcloud.types import PointFeatures


def pointwise(c_in: int, c_out: int) -> nn.Sequential:
    """A linear map over the last axis but with BN over all the others, and ReLU."""
    return nn.Sequential(nn.Conv1d(c_in, c_out, 1, bias=False), nn.BatchNorm1d(c_out), nn.ReLU())


class Residual(nn.Module):
    """A residual block over (B, C, L), narrow inside."""

    def __init__(self, channels: int, narrowing: float = 0.25) -> None:
        super().__init__()
        inner = int(channels * narrowing)
        self.inside = pointwise(channels, inner)
        self.back = nn.Sequential(
            nn.Conv1d(inner, channels, 1, bias=False), nn.BatchNorm1d(channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.back(self.inside(x)))


class Stage(nn.Module):
    """Half of the points, each with its neighbourhood, normalised by a geometric affine map."""

    def __init__(self, c_in: int, c_out: int, k: int, before: int, after: int) -> None:
        super().__init__()
        self.k = k
        self.scale = nn.Parameter(torch.ones(c_in))
        self.shift = nn.Parameter(torch.zeros(c_in))
        self.lift = pointwise(2 * c_in, c_out)
        self.before = nn.Sequential(*(Residual(c_out) for _ in range(before)))
        self.after = nn.Sequential(*(Residual(c_out) for _ in range(after)))

    def forward(self, xyz: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coordinates (B, N, 3) and features (B, N, C) to those of the kept points."""
        batch, points = x.shape[:2]
        rows = torch.arange(batch, device=x.device)
        kept = farthest_points(xyz, points // 2)
        centres, own = xyz[rows[:, None], kept], x[rows[:, None], kept]
        index = knn(xyz, min(self.k, points), centres)
        around = x[rows[:, None, None], index]  # (B, M, k, C)
        apart = around - own[:, :, None]
        apart = apart / (apart.flatten(1).std(dim=1)[:, None, None, None] + 1e-5)
        edges = torch.cat(
            [apart * self.scale + self.shift, own[:, :, None].expand_as(around)], dim=-1
        )
        count = edges.shape[1]
        y = self.before(self.lift(edges.flatten(0, 1).transpose(1, 2))).amax(dim=2)
        y = self.after(y.view(batch, count, -1).transpose(1, 2))
        return centres, y.transpose(1, 2)


class PointMLP(PointEncoder):
    """PointMLP-elite: four stages of neighbourhoods and residual layers, then a maximum."""

    def __init__(self, width: int = 32, k: int = 24) -> None:
        super().__init__()
        self.first = pointwise(3, width)
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        blocks = (1, 1, 2, 1)
        self.stages = nn.ModuleList(
            Stage(widths[i], widths[i + 1], k, blocks[i], blocks[i]) for i in range(4)
        )
        self.point_dim, self.pooled_dim, self.min_points = None, widths[-1], 16

    def forward(self, points: torch.Tensor) -> PointFeatures:
        """Points (B, N, 3) to pooled (B, 8 width)."""
        x = self.first(points.transpose(1, 2)).transpose(1, 2)
        for stage in self.stages:
            points, x = stage(points, x)
        return PointFeatures(None, x.amax(dim=1))
