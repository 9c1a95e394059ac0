"""Stage 4, EdgeConv with two layers over the edges: x (B, N, C_in) -> (B, N, C_out).

DGCNN's networks for segmentation (Wang et al. 2019, arXiv:1801.07829) put two layers on each edge
before the maximum: y_i = max_j f2(f1([x_j - x_i ; x_i])), each f a linear map without bias, BN over
all edges and LeakyReLU(0.2). The first one is factored as in `pixcloud.encoders.edgeconv`; the
second one is `pixcloud.ops.edge_pairs`, which keeps nothing of the size of the edges.

Shape legend: B clouds, N points, k neighbours, C_in and C_out channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from pixcloud.ops.batch_norm import running_statistics, update_running, world_of
from pixcloud.ops.edge_pairs import edge_pair_extreme, edge_pair_statistics
from pixcloud.ops.gather_reduce import in_degree
from pixcloud.ops.neighbour_sum import neighbour_sum
from pixcloud.ops.neighbours import knn
from pixcloud.ops.recorded import full_precision


class TwoLayerEdgeConv(nn.Module):
    """EdgeConv with two linear maps, each with BN over all edges and LeakyReLU(0.2), and a max.

    Args:
        in_channels: C_in.
        hidden_channels: between the two maps.
        out_channels: C_out.
        k: neighbours, the point itself among them.

    Example:
        >>> TwoLayerEdgeConv(3, 16, 32, k=4)(torch.rand(2, 32, 3)).shape
        torch.Size([2, 32, 32])
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.linear = nn.Linear(2 * in_channels, hidden_channels, bias=False)
        self.bn = nn.BatchNorm1d(hidden_channels)
        self.second_linear = nn.Linear(hidden_channels, out_channels, bias=False)
        self.second_bn = nn.BatchNorm1d(out_channels)

    def forward(self, x: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, N, C_in) to (B, N, C_out); `index` (B, N, k) replaces the neighbours in x."""
        # As in EdgeConv: the factored first layer needs fp32.
        with full_precision(x):
            x = x.to(self.linear.weight.dtype)
            if index is None:
                index = knn(x, self.k)
            return self._second(*self._first(x, index), index)

    def _first(self, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """p and q (B, N, hidden) whose sum p_j + q_i is the normalised first layer of an edge."""
        w_edge, w_centre = self.linear.weight.chunk(2, dim=1)
        w_centre = w_centre - w_edge
        if self.training:
            return self._normalised(x, index, w_edge, w_centre)
        mean, var = running_statistics(self.bn)
        scale = self.bn.weight * torch.rsqrt(var + self.bn.eps)
        u, v = F.linear(x, w_edge), F.linear(x, w_centre)
        return u * scale, (v - mean) * scale + self.bn.bias

    def _normalised(
        self, x: torch.Tensor, index: torch.Tensor, w_edge: torch.Tensor, w_centre: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """p and q by the statistics of all edges, which also move the running ones.

        With x_j and x_i taken from their means, the squares of all edges follow from in-degrees and
        from sums over neighbours of x, which has fewer channels than u.
        """
        world = world_of(self.bn)
        edges, k = world.size * index.numel(), index.shape[2]
        degree = in_degree(index, x.dtype)[..., None]
        near = world.sum_with_gradient((degree * x).sum((0, 1))) / edges
        own = world.sum_with_gradient(x.mean((0, 1))) / world.size
        # Centred first: the difference of two large sums would lose the variance.
        from_near = x - near
        total = neighbour_sum(from_near, index)
        u, v = F.linear(from_near, w_edge), F.linear(x - own, w_centre)
        squares = degree * u.square() + v * (2 * F.linear(total, w_edge) + k * v)
        var = (world.sum_with_gradient(squares.sum((0, 1))) / edges).clamp_min(0)
        mean = F.linear(near, w_edge) + F.linear(own, w_centre)
        update_running(self.bn, mean, var, edges)
        scale = self.bn.weight * torch.rsqrt(var + self.bn.eps)
        return u * scale, v * scale + self.bn.bias

    def _second(self, p: torch.Tensor, q: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        weight, bn = self.second_linear.weight, self.second_bn
        sign = torch.where(bn.weight >= 0, 1.0, -1.0).to(p.dtype)
        if self.training:
            world = world_of(bn)
            extreme, mean, var = edge_pair_statistics(p, q, index, weight, sign, world)
            update_running(bn, mean, var, world.size * index.numel())
        else:
            mean, var = running_statistics(bn)
            extreme = edge_pair_extreme(p, q, index, weight, sign) - mean
        return F.leaky_relu(extreme * (bn.weight * torch.rsqrt(var + bn.eps)) + bn.bias, 0.2)
