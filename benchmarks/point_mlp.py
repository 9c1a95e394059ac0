"""PointMLP-elite, to compare with: an encoder that the package does not have, and why.

    pixcloud pretrain --recipe demo --encoder.name benchmarks/point_mlp.py:PointMLP --run RUN

Written from its paper (Ma et al. 2022, arXiv:2202.07123) with torch's own layers over the package's
neighbours and farthest points. So that it is compared at its best, it works on rows (edges, C), in
which torch's layers are fastest on processors, and the first product of a stage runs over points
and not over edges, as in EdgeConv. What it learns for its cost is in `docs/own_encoder.md`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from pixcloud.encoders import PointEncoder
from pixcloud.encoders.base import require_sizes
from pixcloud.ops.neighbours import knn
from pixcloud.ops.sampling import farthest_points
from pixcloud.types import PointFeatures


def pointwise(c_in: int, c_out: int) -> nn.Sequential:
    """Rows (R, c_in) to (R, c_out): a linear map, BN over the rows, and ReLU."""
    layers = (nn.Linear(c_in, c_out, bias=False), nn.BatchNorm1d(c_out), nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """A residual block over rows (R, C), narrow inside."""

    def __init__(self, channels: int, narrowing: int = 4) -> None:
        super().__init__()
        self.inside = pointwise(channels, channels // narrowing)
        back = nn.Linear(channels // narrowing, channels, bias=False)
        self.back = nn.Sequential(back, nn.BatchNorm1d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.back(self.inside(x))).relu_()


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
        batch, points, width = x.shape
        first = points * torch.arange(batch, device=x.device)[:, None]
        kept = farthest_points(xyz, points // 2)
        rows = kept + first
        centres, flat = xyz.flatten(0, 1)[rows], x.flatten(0, 1)
        index = knn(xyz, min(self.k, points), centres) + first[..., None]  # (B, M, k), of rows
        own = F.embedding(rows, flat)
        apart = deviation(own, flat, index)[:, None, None]
        # The layer sees [(x_j - x_i) / apart * scale + shift ; x_i]: here as u_j + v_i.
        weight: torch.Tensor = self.lift.get_parameter("0.weight")
        relative, absolute = weight.split(width, dim=1)
        u = F.linear(x, relative * self.scale) / apart.view(-1, 1, 1)
        v = F.linear(own, absolute) - F.embedding(rows, u.flatten(0, 1)) + relative @ self.shift
        edges = F.embedding(index, u.flatten(0, 1)) + v[:, :, None]
        y = self.before(self.lift[1:](edges.flatten(0, 2)))
        y = self.after(y.view(-1, index.shape[2], y.shape[1]).max(dim=1).values)
        return centres, y.view(batch, rows.shape[1], -1)


def deviation(own: torch.Tensor, flat: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Of each cloud (B,), the standard deviation of all values of x_j - x_i, and a little more.

    From moments, so that no differences are kept: own (B, M, C) are the x_i, flat (B N, C) all rows
    and index (B, M, k) the rows of the neighbours.
    """
    batch, _, k = index.shape
    total = F.embedding_bag(index.flatten(0, 1), flat, mode="sum").view_as(own)
    lengths = flat.square().sum(dim=1).double()[index].sum(dim=(1, 2))
    own, total = own.double(), total.double()
    square = lengths + (k * own.square() - 2 * own * total).flatten(1).sum(dim=1)
    mean = (total - k * own).flatten(1).sum(dim=1)
    count = k * own[0].numel()
    variance = (square - mean.square() / count) / (count - 1)
    # Clouds of one point many times have none; the root of 0 has no gradient.
    return (variance.clamp_min(1e-12).sqrt() + 1e-5).to(flat.dtype).view(batch)


class PointMLP(PointEncoder):
    """PointMLP-elite: four stages of neighbourhoods and residual layers, then a maximum.

    Args:
        width: channels of the first layer; the stages have 2, 4, 8 and 8 times as many.
        k: neighbours of each point that a stage keeps.

    Example:
        >>> PointMLP(width=8)(torch.rand(2, 64, 3)).pooled.shape
        torch.Size([2, 64])
    """

    def __init__(self, width: int = 32, k: int = 24) -> None:
        super().__init__()
        require_sizes(width=width, k=k)
        self.first = pointwise(3, width)
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        blocks = (1, 1, 2, 1)
        self.stages = nn.ModuleList(
            Stage(widths[i], widths[i + 1], k, blocks[i], blocks[i]) for i in range(4)
        )
        self.point_dim, self.pooled_dim, self.min_points = None, widths[-1], 16

    def forward(self, points: torch.Tensor) -> PointFeatures:
        """Points (B, N, 3) to pooled (B, 8 width)."""
        batch, count = points.shape[:2]
        x = self.first(points.flatten(0, 1)).view(batch, count, -1)
        for stage in self.stages:
            points, x = stage(points, x)
        return PointFeatures(None, x.max(dim=1).values)
