"""Textbook forms that the benchmarks compare with: written as the papers have them.

Torch's own operators, edge tensors whole, nothing factored. Names of layers are those of
`pixcloud.encoders`, so that `reference.textbook_seg.copy_weights` can carry weights over.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from reference.plain_ops import plain_nt_xent
from reference.textbook_seg import textbook_edges, textbook_knn


class TextbookEdgeConv(nn.Module):
    """EdgeConv (Wang et al. 2019): convolution over edges, BN, LeakyReLU, max; x (B, C, N)."""

    def __init__(self, in_channels: int, out_channels: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.linear = nn.Conv2d(2 * in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
        if index is None:
            index = textbook_knn(x.detach(), self.k)
        return self.act(self.bn(self.linear(textbook_edges(x, index)))).max(dim=3).values


class TextbookDGCNN(nn.Module):
    """DGCNN for classification up to its pooled feature: points (B, N, 3) -> (B, 2 embed_dim)."""

    def __init__(
        self, k: int = 20, embed_dim: int = 1024, widths: Sequence[int] = (64, 64, 128, 256)
    ) -> None:
        super().__init__()
        channels = [3, *widths]
        self.convs = nn.ModuleList(
            TextbookEdgeConv(c_in, c_out, k) for c_in, c_out in itertools.pairwise(channels)
        )
        self.fuse = nn.Conv1d(sum(widths), embed_dim, 1, bias=False)
        self.bn = nn.BatchNorm1d(embed_dim)
        self.act = nn.LeakyReLU(0.2)

    def forward(
        self, points: torch.Tensor, graphs: Sequence[torch.Tensor | None] | None = None
    ) -> torch.Tensor:
        """`graphs`, one (B, N, k) for each layer, replace the neighbours found here."""
        x, outputs = points.transpose(1, 2), []
        for conv, graph in zip(self.convs, graphs or [None] * len(self.convs), strict=True):
            x = conv(x, graph)
            outputs.append(x)
        x = self.act(self.bn(self.fuse(torch.cat(outputs, dim=1))))
        return torch.cat([x.max(dim=2).values, x.mean(dim=2)], dim=1)


class TextbookCrossModal(nn.Module):
    """CrossPoint (Afham et al. 2022): DGCNN, ResNet-50, their heads and both losses."""

    def __init__(self, k: int = 15, temperature: float = 0.1) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetModel

        self.points, self.pictures = TextbookDGCNN(k), ResNetModel(ResNetConfig())
        self.point_head = nn.Sequential(
            nn.Linear(2048, 1024), nn.BatchNorm1d(1024), nn.ReLU(), nn.Linear(1024, 256)
        )
        self.picture_head = nn.Sequential(
            nn.Linear(2048, 512, bias=False),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Linear(512, 256, bias=False),
        )
        self.temperature = temperature

    def forward(
        self, view1: torch.Tensor, view2: torch.Tensor, pictures: torch.Tensor
    ) -> torch.Tensor:
        """Views (B, N, 3) and normalised pictures (B, 3, H, W) to the loss."""
        z1, z2 = self.point_head(self.points(torch.cat([view1, view2]))).chunk(2)
        h = self.picture_head(self.pictures(pictures).pooler_output.flatten(1))
        intra = plain_nt_xent(z1, z2, self.temperature)
        return intra + plain_nt_xent((z1 + z2) / 2, h, self.temperature)
