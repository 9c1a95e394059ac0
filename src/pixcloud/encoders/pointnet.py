"""Stage 4, PointNet: points (B, N, 3) -> per point (B, N, sum(widths)), pooled (B, embed_dim)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from pixcloud.encoders.base import PointEncoder, require_sizes
from pixcloud.ops.linear_max import linear_bn_max
from pixcloud.types import PointFeatures


class PointNet(PointEncoder):
    """PointNet (Qi et al. 2017, arXiv:1612.00593): a shared MLP and a maximum over the points.

    The per-point features are the outputs of the MLP's hidden layers side by side, as in the
    paper's part segmentation; the pooled feature is the maximum of its last layer.

    Args:
        embed_dim: channels of the last layer and of the pooled feature.
        widths: channels of the hidden layers.
        transforms: predict a 3 x 3 transform of the input and one of the first hidden features,
            as in the paper's full model; without them it is the paper's "vanilla" form, which is
            what most of the self-supervised literature trains.

    Example:
        >>> PointNet()(torch.rand(2, 64, 3)).pooled.shape
        torch.Size([2, 1024])
    """

    def __init__(
        self,
        embed_dim: int = 1024,
        widths: Sequence[int] = (64, 64, 64, 128),
        transforms: bool = False,
    ) -> None:
        super().__init__()
        require_sizes(embed_dim=embed_dim, widths=widths)
        channels = [3, *widths]
        self.layers = nn.ModuleList(
            PointwiseLayer(c_in, c_out) for c_in, c_out in itertools.pairwise(channels)
        )
        self.last = PointwiseLayer(channels[-1], embed_dim)
        self.input_transform = TransformNet(3) if transforms else None
        self.feature_transform = TransformNet(widths[0]) if transforms else None
        self.point_dim = sum(widths)
        self.pooled_dim = embed_dim

    def forward(self, points: torch.Tensor) -> PointFeatures:
        """Points (B, N, 3) to per-point (B, N, sum(widths)) and pooled (B, embed_dim)."""
        x, outputs = points, []
        if self.input_transform is not None:
            x = x @ self.input_transform(x)
        for depth, layer in enumerate(self.layers):
            x = layer(x)
            if depth == 0 and self.feature_transform is not None:
                x = x @ self.feature_transform(x)
            outputs.append(x)
        return PointFeatures(torch.cat(outputs, dim=-1), self.last.maximum(x))


class PointwiseLayer(nn.Module):
    """Linear map of each point without bias, BN over all points, ReLU: (B, N, C) -> (B, N, C')."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.bn = nn.BatchNorm1d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.linear(x).flatten(0, 1)).relu_().unflatten(0, x.shape[:2])

    def maximum(self, x: torch.Tensor) -> torch.Tensor:
        """The maximum of `forward(x)` over the points, (B, N, C) -> (B, C'), without its cost."""
        return linear_bn_max(x, self.linear.weight, self.bn).relu()


class TransformNet(nn.Module):
    """Predicts a C x C matrix per cloud from its points: (B, N, C) -> (B, C, C), near identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.points = nn.Sequential(PointwiseLayer(channels, 64), PointwiseLayer(64, 128))
        self.last = PointwiseLayer(128, 1024)
        self.cloud = nn.Sequential(
            nn.Linear(1024, 512, bias=False),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Linear(512, 256, bias=False),
            nn.BatchNorm1d(256),
            nn.ReLU(),
        )
        self.matrix = nn.Linear(256, channels * channels)
        nn.init.zeros_(self.matrix.weight)
        with torch.no_grad():
            self.matrix.bias.copy_(torch.eye(channels).flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.cloud(self.last.maximum(self.points(x)))
        return self.matrix(pooled).unflatten(-1, (x.shape[-1], x.shape[-1]))
