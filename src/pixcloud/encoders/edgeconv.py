"""Stage 4, EdgeConv in factored form: x (B, N, C_in) -> (B, N, C_out).

EdgeConv (Wang et al. 2019, arXiv:1801.07829) is y_i = max_j act(BN(W [x_j - x_i ; x_i])) over the
k nearest neighbours j of i. With W = [W1 W2] the edge value is u_j + v_i, u = W1 x and
v = (W2 - W1) x, so the products run over N points and not over N k edges. BN and the activation
are monotone per channel, so the maximum moves inside: it is the maximum of u_j where the BN scale
is positive and the minimum where it is negative. The batch statistics over all N k edges follow
exactly from per-point values, in-degrees and neighbour sums.

Shape legend: B clouds, N points, k neighbours, C_in and C_out channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from pixcloud.ops.batch_norm import running_statistics, update_running
from pixcloud.ops.gather_reduce import gather_reduce, in_degree
from pixcloud.ops.neighbours import knn


class EdgeConv(nn.Module):
    """EdgeConv with one linear map, BN over all edges, LeakyReLU(0.2) and a max over neighbours.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        k: neighbours, the point itself among them.

    Example:
        >>> EdgeConv(3, 64, k=4)(torch.rand(2, 32, 3)).shape
        torch.Size([2, 32, 64])
    """

    def __init__(self, in_channels: int, out_channels: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.linear = nn.Linear(2 * in_channels, out_channels, bias=False)
        self.bn = nn.BatchNorm1d(out_channels)

    def forward(self, x: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, N, C_in) to (B, N, C_out); `index` (B, N, k) replaces the neighbours in x."""
        # Under autocast this layer stays in fp32: W1 x_j - W1 x_i would lose in half precision what
        # W1 (x_j - x_i) keeps.
        with torch.autocast(x.device.type, enabled=False):
            return self._factored(x.to(self.linear.weight.dtype), index)

    def _factored(self, x: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
        if index is None:
            index = knn(x, min(self.k, x.shape[1]))
        w_edge, w_centre = self.linear.weight.chunk(2, dim=1)
        u = F.linear(x, w_edge)
        v = F.linear(x, w_centre - w_edge)
        sign = torch.where(self.bn.weight >= 0, 1.0, -1.0).to(u.dtype)
        extreme, total = gather_reduce(u, index, sign)
        if self.training:
            mean, var = self._batch_statistics(u, v, total, index)
        else:
            mean, var = running_statistics(self.bn)
        scale = self.bn.weight * torch.rsqrt(var + self.bn.eps)
        return F.leaky_relu((extreme + v) * scale + (self.bn.bias - mean * scale), 0.2)

    def _batch_statistics(
        self, u: torch.Tensor, v: torch.Tensor, total: torch.Tensor, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and biased variance (C_out,) of u_j + v_i over all edges; updates the running ones.

        Both parts are centred first: the difference of two large sums would lose the variance.
        """
        k = index.shape[2]
        edges = index.numel()
        degree = in_degree(index, u.dtype)[..., None]
        mean_u = (degree * u).sum((0, 1)) / edges
        mean_v = v.mean((0, 1))
        u, v, total = u - mean_u, v - mean_v, total - k * mean_u
        squares = (degree * u.square() + v * (2 * total + k * v)).sum((0, 1))
        mean, var = mean_u + mean_v, (squares / edges).clamp_min(0)
        update_running(self.bn, mean, var * (edges / max(edges - 1, 1)))
        return mean, var
