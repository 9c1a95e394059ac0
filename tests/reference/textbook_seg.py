"""Slow and obvious twin of DGCNN for segmentation, written from the paper.

Edge tensors are whole, (B, 2 C, N, k), 1 x 1 convolutions run over every edge, BN2d normalises over
all of them, and the maximum comes last. Names of layers are those of `SegmentationDGCNN`, so that
`copy_weights` can carry weights over.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def textbook_knn(x: torch.Tensor, k: int) -> torch.Tensor:
    """x (B, C, N) -> (B, N, k): the whole matrix of distances, then the k smallest."""
    squares = (x**2).sum(1, keepdim=True)
    distances = squares.transpose(1, 2) - 2 * x.transpose(1, 2) @ x + squares
    return distances.topk(k, dim=-1, largest=False).indices


def textbook_edges(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x (B, C, N), index (B, N, k) -> [x_j - x_i ; x_i] (B, 2 C, N, k)."""
    batch, channels, num_points = x.shape
    rows = x.transpose(1, 2).reshape(batch * num_points, channels)
    first = torch.arange(batch, device=x.device).view(-1, 1, 1) * num_points
    near = rows[(index + first).flatten()].view(*index.shape, channels)
    centre = x.transpose(1, 2)[:, :, None].expand_as(near)
    return torch.cat([near - centre, centre], dim=3).permute(0, 3, 1, 2).contiguous()


class TextbookTwoLayers(nn.Module):
    """Two convolutions over the edges, each with BN and LeakyReLU, then the maximum."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(2 * in_channels, hidden_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden_channels)
        self.second_linear = nn.Conv2d(hidden_channels, out_channels, 1, bias=False)
        self.second_bn = nn.BatchNorm2d(out_channels)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        edges = self.act(self.bn(self.linear(textbook_edges(x, index))))
        edges = self.act(self.second_bn(self.second_linear(edges)))
        return edges.max(dim=3).values


class TextbookOneLayer(nn.Module):
    """One convolution over the edges with BN and LeakyReLU, then the maximum."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(2 * in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.linear(textbook_edges(x, index)))).max(dim=3).values


class TextbookTransform(nn.Module):
    """The transform net: (B, 3, N) -> (B, 3, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = TextbookTwoLayers(3, 64, 128)
        self.linear = nn.Conv1d(128, 1024, 1, bias=False)
        self.bn = nn.BatchNorm1d(1024)
        self.cloud = nn.Sequential(
            nn.Linear(1024, 512, bias=False),
            nn.BatchNorm1d(512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 256, bias=False),
            nn.BatchNorm1d(256),
            nn.LeakyReLU(0.2),
        )
        self.matrix = nn.Linear(256, 9)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        x = self.act(self.bn(self.linear(self.conv(x, index))))
        return self.matrix(self.cloud(x.max(dim=2).values)).view(-1, 3, 3)


class TextbookSegDGCNN(nn.Module):
    """DGCNN for segmentation up to its features.

    Args:
        k: neighbours per point.
        embed_dim: channels of the pooled feature.
        widths: output channels of the five layers over edges.
    """

    def __init__(self, k: int, embed_dim: int = 1024, widths: Sequence[int] = (64,) * 5) -> None:
        super().__init__()
        self.k = k
        self.transform = TextbookTransform()
        self.convs = nn.ModuleList(
            [
                TextbookTwoLayers(3, widths[0], widths[1]),
                TextbookTwoLayers(widths[1], widths[2], widths[3]),
                TextbookOneLayer(widths[3], widths[4]),
            ]
        )
        per_point = widths[1] + widths[3] + widths[4]
        self.fuse = nn.Conv1d(per_point, embed_dim, 1, bias=False)
        self.bn = nn.BatchNorm1d(embed_dim)
        self.act = nn.LeakyReLU(0.2)

    def forward(
        self, points: torch.Tensor, graphs: Sequence[torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (B, N, 3) to per-point (B, N, C) and pooled (B, embed_dim) features.

        `graphs`, four of (B, N, k), replace the neighbours that would be found here.
        """
        x = points.transpose(1, 2)

        def graph(number: int, x: torch.Tensor) -> torch.Tensor:
            k = min(self.k, x.shape[2])
            return textbook_knn(x.detach(), k) if graphs is None else graphs[number]

        matrix = self.transform(x, graph(0, x))
        x = (points @ matrix).transpose(1, 2)
        outputs = []
        for number, conv in enumerate(self.convs, 1):
            x = conv(x, graph(number, x))
            outputs.append(x)
        per_point = torch.cat(outputs, dim=1)
        fused = self.act(self.bn(self.fuse(per_point)))
        return per_point.transpose(1, 2), fused.max(dim=2).values


def copy_weights(source: nn.Module, twin: nn.Module) -> None:
    """Give a twin the weights of the module whose names it has; kernels get their shape."""
    own, given = twin.state_dict(), source.state_dict()
    assert list(own) == list(given)
    twin.load_state_dict({name: given[name].view(value.shape) for name, value in own.items()})
