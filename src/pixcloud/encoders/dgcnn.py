"""Stage 4, DGCNN: points (B, N, 3) -> per point (B, N, 512), pooled (B, 2 * embed_dim)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from pixcloud.encoders.base import PointEncoder, require_sizes
from pixcloud.encoders.edgeconv import EdgeConv
from pixcloud.ops.linear_pool import linear_bn_pool
from pixcloud.ops.side_by_side import SideBySide
from pixcloud.types import PointFeatures


class DGCNN(PointEncoder):
    """Dynamic graph CNN for classification (Wang et al. 2019, arXiv:1801.07829).

    Four EdgeConvs, each on the graph of nearest neighbours in its own input; their outputs side by
    side are the per-point features. A linear map with BN and LeakyReLU(0.2) to `embed_dim`
    channels follows, and its maximum and mean over the points are the pooled feature. The defaults
    are the published sizes; CrossPoint pre-trains with k = 15.

    Args:
        k: neighbours per point, itself among them.
        embed_dim: channels before pooling; the pooled feature has twice as many.
        widths: output channels of the EdgeConvs.

    Example:
        >>> DGCNN(k=8)(torch.rand(2, 64, 3)).pooled.shape
        torch.Size([2, 2048])
    """

    def __init__(
        self, k: int = 20, embed_dim: int = 1024, widths: Sequence[int] = (64, 64, 128, 256)
    ) -> None:
        super().__init__()
        require_sizes(k=k, embed_dim=embed_dim, widths=widths)
        channels = [3, *widths]
        self.convs = nn.ModuleList(
            EdgeConv(c_in, c_out, k) for c_in, c_out in itertools.pairwise(channels)
        )
        self.widths, self.point_dim = list(widths), sum(widths)
        self.pooled_dim, self.min_points = 2 * embed_dim, k
        self.fuse = nn.Linear(self.point_dim, embed_dim, bias=False)
        self.bn = nn.BatchNorm1d(embed_dim)

    def forward(self, points: torch.Tensor) -> PointFeatures:
        """Points (B, N, 3) to per-point (B, N, sum(widths)) and pooled (B, 2 * embed_dim)."""
        x, outputs = points, []
        batch, num_points, _ = points.shape
        memory = SideBySide(batch, num_points, self.widths, like=self.fuse.weight)
        for conv, part in zip(self.convs, memory.parts, strict=True):
            x = conv(x, out=part)
            outputs.append(x)
        per_point = memory.join(outputs)
        return PointFeatures(per_point, linear_bn_pool(per_point, self.fuse.weight, self.bn))
