"""Stage 4, DGCNN for segmentation: points (B, N, 3) -> per point (B, N, C), pooled (B, embed_dim).

C is what a head for parts reads beside the pooled feature: the outputs of the three EdgeConvs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pixcloud.encoders.base import PointEncoder, require_sizes
from pixcloud.encoders.edgeconv import EdgeConv
from pixcloud.encoders.two_layer_edgeconv import TwoLayerEdgeConv
from pixcloud.ops.linear_max import linear_bn_max
from pixcloud.ops.recorded import full_precision
from pixcloud.types import PointFeatures


class SegmentationDGCNN(PointEncoder):
    """DGCNN for part segmentation (Wang et al. 2019, arXiv:1801.07829), up to its head.

    A transform net on the first graph turns the cloud; three EdgeConvs follow, each on the graph of
    nearest neighbours in its own input, the first two with two layers over the edges. Their outputs
    side by side are the per-point features (192 channels as published); a linear map with BN and
    LeakyReLU(0.2) to `embed_dim` channels and the maximum over the points give the pooled one.

    The published head for parts reads, for each point and in this order: the pooled feature, the
    embedded category of the shape, and the per-point features.

    Args:
        k: neighbours per point, itself among them. Published: 40 for 2,048 points; CrossPoint
            pre-trains with 15.
        embed_dim: channels of the pooled feature.
        widths: output channels of the five layers over edges: two, two and one.

    Raises:
        ValueError: in training, for a batch of one cloud: the transform net normalises over clouds.

    Example:
        >>> features = SegmentationDGCNN(k=8)(torch.rand(2, 64, 3))
        >>> features.per_point.shape, features.pooled.shape
        (torch.Size([2, 64, 192]), torch.Size([2, 1024]))
    """

    def __init__(
        self, k: int = 40, embed_dim: int = 1024, widths: Sequence[int] = (64, 64, 64, 64, 64)
    ) -> None:
        super().__init__()
        require_sizes(k=k, embed_dim=embed_dim, widths=widths)
        if len(widths) != 5:
            raise ValueError(f"widths = {widths!r}: five are expected, of two, two and one layer")
        self.transform = EdgeTransformNet(k)
        self.convs = nn.ModuleList(
            [
                TwoLayerEdgeConv(3, widths[0], widths[1], k),
                TwoLayerEdgeConv(widths[1], widths[2], widths[3], k),
                EdgeConv(widths[3], widths[4], k),
            ]
        )
        self.point_dim = widths[1] + widths[3] + widths[4]
        self.pooled_dim, self.min_points = embed_dim, k
        self.fuse = nn.Linear(self.point_dim, embed_dim, bias=False)
        self.bn = nn.BatchNorm1d(embed_dim)

    def forward(self, points: torch.Tensor) -> PointFeatures:
        """Points (B, N, 3) to per-point (B, N, sum of three widths) and pooled (B, embed_dim)."""
        matrix = self.transform(points)
        # In half precision the turned points would lose their neighbours.
        with full_precision(points):
            x, outputs = points @ matrix.to(points.dtype), []
        for conv in self.convs:
            x = conv(x)
            outputs.append(x)
        per_point = torch.cat(outputs, dim=-1)
        pooled = linear_bn_max(per_point, self.fuse.weight, self.bn)
        return PointFeatures(per_point, nn.functional.leaky_relu(pooled, 0.2))


class EdgeTransformNet(nn.Module):
    """DGCNN's transform net: points (B, N, 3) to a matrix (B, 3, 3), the identity at first.

    Its sizes are the published ones: 64 and 128 channels over the edges, the maximum over the
    neighbours, 1024 and the maximum over the points, then 512, 256 and the nine entries.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.conv = TwoLayerEdgeConv(3, 64, 128, k)
        self.linear = nn.Linear(128, 1024, bias=False)
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
        nn.init.zeros_(self.matrix.weight)
        with torch.no_grad():
            self.matrix.bias.copy_(torch.eye(3).flatten())

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Points (B, N, 3) to matrices (B, 3, 3) that points, as rows, are multiplied with."""
        pooled = linear_bn_max(self.conv(points), self.linear.weight, self.bn)
        return self.matrix(self.cloud(nn.functional.leaky_relu(pooled, 0.2))).unflatten(-1, (3, 3))
