"""Slow and obvious twins of `pixcloud.ops`, `pixcloud.encoders` and `pixcloud.losses`.

Written from the papers with torch's own operators; nothing is factored, fused or blocked.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def plain_knn(x: torch.Tensor, k: int, queries: torch.Tensor | None = None) -> torch.Tensor:
    """Every squared distance on its own, sorted, ties by index: (B, N, C) -> (B, M, k)."""
    rows = []
    for cloud, asked in zip(x, x if queries is None else queries, strict=True):
        distances = torch.stack([((cloud - point) ** 2).sum(-1) for point in asked])
        rows.append(distances.argsort(dim=1, stable=True)[:, :k])
    return torch.stack(rows)


def plain_fps(x: torch.Tensor, m: int, start: int = 0) -> torch.Tensor:
    """All distances to all chosen points anew for every point: (B, N, C) -> (B, m)."""
    chosen = torch.full((len(x), 1), start)
    for _ in range(1, m):
        farthest = []
        for cloud, indices in zip(x, chosen, strict=True):
            nearest = torch.stack([((cloud - cloud[i]) ** 2).sum(-1) for i in indices]).amin(0)
            # Python's max takes the first of equal ones.
            farthest.append(max(range(len(cloud)), key=nearest.tolist().__getitem__))
        chosen = torch.cat([chosen, torch.tensor(farthest)[:, None]], dim=1)
    return chosen


def plain_gather_reduce(
    u: torch.Tensor, index: torch.Tensor, sign: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gather (B, N, k, C) whole, then reduce."""
    edges = torch.stack([cloud[places] for cloud, places in zip(u, index, strict=True)])
    extreme = torch.where(sign > 0, edges.amax(2), edges.amin(2))
    return extreme, edges.sum(2)


class PlainEdgeConv(nn.Module):
    """EdgeConv of DGCNN: edge tensor, 1 x 1 convolution, BN over edges, LeakyReLU, max."""

    def __init__(self, in_channels: int, out_channels: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.linear = nn.Linear(2 * in_channels, out_channels, bias=False)
        self.bn = nn.BatchNorm1d(out_channels)

    def forward(self, x: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
        if index is None:
            index = plain_knn(x.detach(), min(self.k, x.shape[1]))
        neighbours = torch.stack([cloud[places] for cloud, places in zip(x, index, strict=True)])
        centre = x[:, :, None].expand_as(neighbours)
        edges = self.linear(torch.cat([neighbours - centre, centre], dim=-1))
        edges = self.bn(edges.flatten(0, 2)).view(edges.shape)
        return F.leaky_relu(edges, 0.2).max(dim=2).values


class PlainDGCNN(nn.Module):
    """DGCNN for classification up to its pooled feature."""

    def __init__(self, k: int, embed_dim: int, widths: list[int]) -> None:
        super().__init__()
        channels = [3, *widths]
        self.convs = nn.ModuleList(
            PlainEdgeConv(channels[i], channels[i + 1], k) for i in range(len(widths))
        )
        self.fuse = nn.Linear(sum(widths), embed_dim, bias=False)
        self.bn = nn.BatchNorm1d(embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = []
        for conv in self.convs:
            x = conv(x)
            outputs.append(x)
        x = self.fuse(torch.cat(outputs, dim=-1)).transpose(1, 2)
        x = F.leaky_relu(self.bn(x), 0.2)
        return torch.cat([x.max(dim=2).values, x.mean(2)], dim=1)


class PlainPointNet(nn.Module):
    """PointNet with convolutions of length 1 along the points, as the paper draws it."""

    def __init__(self, embed_dim: int, widths: list[int], transforms: bool) -> None:
        super().__init__()
        channels = [3, *widths, embed_dim]
        self.convs = nn.ModuleList(
            nn.Conv1d(channels[i], channels[i + 1], 1, bias=False) for i in range(len(channels) - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(c) for c in channels[1:])
        self.input_transform = PlainTransform(3) if transforms else None
        self.feature_transform = PlainTransform(widths[0]) if transforms else None

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (B, N, 3) to per-point and pooled features."""
        x, outputs = points.transpose(1, 2), []
        if self.input_transform is not None:
            x = torch.einsum("bij,bin->bjn", self.input_transform(x), x)
        for depth, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            x = F.relu(bn(conv(x)))
            if depth == 0 and self.feature_transform is not None:
                x = torch.einsum("bij,bin->bjn", self.feature_transform(x), x)
            outputs.append(x)
        return torch.cat(outputs[:-1], dim=1).transpose(1, 2), outputs[-1].amax(2)


class PlainTransform(nn.Module):
    """The T-Net: (B, C, N) to a matrix (B, C, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = [channels, 64, 128, 1024]
        self.convs = nn.ModuleList(
            nn.Conv1d(sizes[i], sizes[i + 1], 1, bias=False) for i in (0, 1, 2)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(c) for c in sizes[1:])
        self.linears = nn.ModuleList([nn.Linear(1024, 512, False), nn.Linear(512, 256, False)])
        self.linear_bns = nn.ModuleList([nn.BatchNorm1d(512), nn.BatchNorm1d(256)])
        self.matrix = nn.Linear(256, channels * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        for conv, bn in zip(self.convs, self.bns, strict=True):
            x = F.relu(bn(conv(x)))
        x = x.amax(2)
        for linear, bn in zip(self.linears, self.linear_bns, strict=True):
            x = F.relu(bn(linear(x)))
        return self.matrix(x).view(-1, channels, channels)


def plain_linear_bn_max(x: torch.Tensor, weight: torch.Tensor, bn: nn.BatchNorm1d) -> torch.Tensor:
    """All of (B, N, D), normalised, then the maximum."""
    return bn((x @ weight.T).transpose(1, 2)).amax(dim=2)


def plain_nt_xent(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
    """The paper's sums, term by term."""
    z = [*a, *b]
    count = len(a)
    total = torch.zeros((), dtype=a.dtype)
    for i in range(2 * count):
        j = (i + count) % (2 * count)
        s = [torch.dot(z[i], other) / (z[i].norm() * other.norm()) / temperature for other in z]
        denominator = torch.stack([s[n].exp() for n in range(2 * count) if n != i]).sum()
        total = total - torch.log(s[j].exp() / denominator)
    return total / (2 * count)


def plain_contrast(
    a: torch.Tensor,
    b: torch.Tensor,
    temperature: torch.Tensor | float,
    *,
    between: bool = False,
    hardness: float = 0.0,
    memory: tuple[torch.Tensor, torch.Tensor] = (torch.empty(0), torch.empty(0)),
) -> torch.Tensor:
    """Row by row, with weights of the negatives as Robinson et al. 2021 have them."""
    count, earlier = len(a), len(memory[0])
    z = [*a, *b, *memory[0].detach(), *memory[1].detach()]
    sides = [0] * count + [1] * count + [0] * earlier + [1] * earlier
    total = torch.zeros((), dtype=a.dtype)
    for i in range(2 * count):
        cosines = [torch.dot(z[i], other) / (z[i].norm() * other.norm()) for other in z]
        j = (i + count) % (2 * count)
        others = [n for n in range(len(z)) if n not in (i, j)]
        if between:
            others = [n for n in others if sides[n] != sides[i]]
        weights = torch.stack([(hardness * cosines[n]).exp() for n in others])
        weights = weights / weights.mean()
        own = (cosines[j] / temperature).exp()
        rest = torch.stack([(cosines[n] / temperature).exp() for n in others])
        total = total - torch.log(own / (own + (weights * rest).sum()))
    return total / (2 * count)


def plain_relation(
    clouds: torch.Tensor, pictures: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Row by row: the cross-entropy between two softmaxes over all other pairs."""
    total = torch.zeros((), dtype=clouds.dtype)
    for i in range(len(clouds)):
        others = [j for j in range(len(clouds)) if j != i]
        q, p = (
            torch.stack([F.cosine_similarity(z[i], z[j], dim=0) / temperature for j in others])
            for z in (clouds, pictures.detach())
        )
        p, q = p.exp() / p.exp().sum(), q.exp() / q.exp().sum()
        total = total - (p * q.log()).sum()
    return total / len(clouds)


def plain_cut(
    points: torch.Tensor, keys: list[float], removed: int, refill: torch.Tensor
) -> torch.Tensor:
    """One cloud (N, 3) whose `removed` points with the largest keys are replaced by others."""
    order = sorted(range(len(points)), key=lambda n: keys[n])
    kept = order[: len(points) - removed]
    out = points.clone()
    for place in range(len(kept), len(points)):
        out[order[place]] = points[kept[int(refill[place] * len(kept))]]
    return out


def plain_view(points: torch.Tensor, draws: dict[str, torch.Tensor], view: int) -> torch.Tensor:
    """One view of one cloud (N, 3), point by point, in the published order."""
    centre = points.mean(0)
    moved = [p - centre for p in points]
    radius = max(float(p.norm()) for p in moved) or 1.0
    scale, angle = float(draws["scale"][view]), float(draws["angle"][view])
    turned = []
    for p in moved:
        x, y, z = (float(c) / radius * scale for c in p)
        c, s = math.cos(angle), math.sin(angle)
        turned.append([c * x + s * z, y, -s * x + c * z])
    low = [min(p[a] for p in turned) for a in range(3)]
    high = [max(p[a] for p in turned) for a in range(3)]
    shift = [float(draws["shift"][view][a]) * (high[a] - low[a]) for a in range(3)]
    out = [
        [p[a] + shift[a] + float(draws["jitter"][view][n][a]) for a in range(3)]
        for n, p in enumerate(turned)
    ]
    kept = [out[0] if draws["drop"][view][n] else p for n, p in enumerate(out)]
    return torch.tensor(kept)
