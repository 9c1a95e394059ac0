"""Stage 4, PCT: points (B, N, 3) -> pooled (B, embed_dim), and per-point features where asked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pixcloud.encoders.base import PointEncoder, require_sizes
from pixcloud.encoders.pointnet import PointwiseLayer
from pixcloud.ops.linear_max import linear_bn_max
from pixcloud.ops.neighbours import knn
from pixcloud.ops.sampling import farthest_points
from pixcloud.types import PointFeatures

STARTS = ("farthest", "first")


class PCT(PointEncoder):
    """Point Cloud Transformer (Guo et al. 2021, arXiv:2012.09688).

    Two layers over the points; two stages, each of which keeps the farthest points and gathers the
    neighbours of each; offset-attention layers over what is left; all their outputs and their
    input side by side go through a linear map with BN and LeakyReLU(0.2), and its maximum is the
    pooled feature.

    Args:
        embed_dim: channels of the pooled feature.
        channels: of the first layers; each stage doubles them.
        centres: points that each stage keeps.
        k: neighbours that each of them gathers.
        attentions: offset-attention layers.
        start: where farthest points begin: "farthest" at the point farthest from the centroid, so
            that the order of the points does not matter; "first" at point 0, as in the best-known
            port.
        point_features: give per-point features too: the first layers' own, and those of the last
            centres, carried to each point from the three nearest by inverse distance, as in
            PointNet++ (Qi et al. 2017, arXiv:1706.02413).

    Example:
        >>> PCT(centres=[32, 16], k=8)(torch.rand(2, 64, 3)).pooled.shape
        torch.Size([2, 1024])
    """

    def __init__(
        self,
        embed_dim: int = 1024,
        channels: int = 64,
        centres: Sequence[int] = (512, 256),
        k: int = 32,
        attentions: int = 4,
        start: str = "farthest",
        point_features: bool = False,
    ) -> None:
        super().__init__()
        require_sizes(
            embed_dim=embed_dim, channels=channels, centres=centres, k=k, attentions=attentions
        )
        if any(more < fewer for more, fewer in itertools.pairwise(centres)) or k > min(
            [*centres[:-1], k]
        ):
            raise ValueError(
                f"centres = {list(centres)} must not grow, and k = {k} be at most each"
            )
        if start not in STARTS:
            raise ValueError(f"start = {start!r}: one of {', '.join(STARTS)} is expected")
        self.layers = nn.Sequential(PointwiseLayer(3, channels), PointwiseLayer(channels, channels))
        widths = [channels * 2**stage for stage in range(len(centres) + 1)]
        self.stages = nn.ModuleList(
            NeighbourhoodLayer(c_in, c_out, count, k, start)
            for count, (c_in, c_out) in zip(centres, itertools.pairwise(widths), strict=True)
        )
        self.before = nn.Sequential(*(PointwiseLayer(widths[-1], widths[-1]) for _ in range(2)))
        self.attentions = nn.ModuleList(OffsetAttention(widths[-1]) for _ in range(attentions))
        self.fuse = nn.Linear(widths[-1] * (attentions + 1), embed_dim, bias=False)
        self.bn = nn.BatchNorm1d(embed_dim)
        self.point_dim = channels + embed_dim if point_features else None
        self.pooled_dim, self.min_points = embed_dim, max(*centres, k)
        self.min_points_of = ("keeps {} points of each cloud", "centres")

    def forward(self, points: torch.Tensor) -> PointFeatures:
        """Points (B, N, 3) to per-point (B, N, channels + embed_dim) or None, and pooled."""
        own = x = self.layers(points)
        centres = points
        for stage in self.stages:
            centres, x = stage(centres, x)
        y, outputs = self.before(x), []
        for attention in self.attentions:
            y = attention(y)
            outputs.append(y)
        together = torch.cat([*outputs, x], dim=-1)
        if self.point_dim is None:
            pooled = linear_bn_max(together, self.fuse.weight, self.bn)
            return PointFeatures(None, F.leaky_relu(pooled, 0.2))
        fused = F.leaky_relu(_normalised(self.bn, self.fuse(together)), 0.2)
        carried = interpolated(points, centres, fused)
        return PointFeatures(torch.cat([own, carried], dim=-1), fused.amax(dim=1))


class NeighbourhoodLayer(nn.Module):
    """Keeps the farthest points and gathers their neighbours: (B, N, C) -> (B, M, C').

    Of each of the k neighbours of a kept point: its features less those of the kept point, beside
    these; two linear maps with BN and ReLU, and the maximum over the neighbours.
    """

    def __init__(self, in_channels: int, out_channels: int, count: int, k: int, start: str) -> None:
        super().__init__()
        self.count, self.k, self.start = count, k, start
        self.linear = nn.Linear(2 * in_channels, out_channels, bias=False)
        self.bn = nn.BatchNorm1d(out_channels)
        self.second_linear = nn.Linear(out_channels, out_channels, bias=False)
        self.second_bn = nn.BatchNorm1d(out_channels)

    def forward(
        self, points: torch.Tensor, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (B, N, 3) with features (B, N, C) to kept points (B, M, 3) with (B, M, C')."""
        kept = farthest_from_centroid(points, self.count) if self.start == "farthest" else None
        kept = farthest_points(points, self.count) if kept is None else kept
        centres = rows(points, kept)
        neighbours = knn(points, self.k, centres)
        # W [x_j - x_i ; x_i] = W1 x_j + (W2 - W1) x_i: products over points, not over edges.
        towards, own = self.linear.weight.chunk(2, dim=1)
        edges = rows(features @ towards.T, neighbours)
        edges = edges + (rows(features, kept) @ (own - towards).T)[:, :, None]
        edges = F.relu(_normalised(self.bn, edges))
        extreme = linear_bn_max(edges.flatten(0, 1), self.second_linear.weight, self.second_bn)
        return centres, F.relu(extreme).unflatten(0, centres.shape[:2])


class OffsetAttention(nn.Module):
    """Offset-attention of PCT: (B, N, C) -> (B, N, C); queries and keys share their weights.

    Each column of the attention is normalised twice: a softmax over the keys, then by the sum over
    the queries.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.key = nn.Linear(channels, channels // 4, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key = self.key(x)
        attention = (key @ key.mT).softmax(dim=-1)
        attention = attention / (1e-9 + attention.sum(dim=1, keepdim=True))
        offset = x - attention.mT @ self.value(x)
        return x + F.relu(_normalised(self.bn, self.out(offset)))


def rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows of each cloud: x (B, N, C), index (B, ...) -> (B, ..., C)."""
    flat = index.flatten(1)[..., None].expand(-1, -1, x.shape[-1])
    return x.gather(1, flat).unflatten(1, index.shape[1:])


def interpolated(points: torch.Tensor, centres: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Features x (B, M, C) of centres (B, M, 3) at points (B, N, 3), from the three nearest."""
    nearest = knn(centres, min(3, centres.shape[1]), points)
    distance = (rows(centres, nearest) - points[:, :, None]).square().sum(-1)
    weight = 1 / (distance + 1e-8)
    weight = weight / weight.sum(dim=-1, keepdim=True)
    return (rows(x, nearest) * weight[..., None]).sum(dim=2)


def farthest_from_centroid(points: torch.Tensor, count: int) -> torch.Tensor:
    """Farthest points (B, M), from the point farthest from the centroid on."""
    distance = (points - points.mean(dim=1, keepdim=True)).square().sum(-1)
    first = distance.argmax(dim=1, keepdim=True)
    # Put before the cloud once more, it is point 0 there, and never chosen a second time.
    chosen = farthest_points(torch.cat([rows(points, first), points], dim=1), count)
    return torch.where(chosen == 0, first, chosen - 1)


def _normalised(bn: nn.BatchNorm1d, x: torch.Tensor) -> torch.Tensor:
    """BN of the last axis over all others."""
    normalised: torch.Tensor = bn(x.flatten(0, -2))
    return normalised.unflatten(0, x.shape[:-1])
