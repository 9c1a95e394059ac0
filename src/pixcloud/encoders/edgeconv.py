"""Stage 4, EdgeConv in factored form: x (B, N, C_in) -> (B, N, C_out).

EdgeConv (Wang et al. 2019, arXiv:1801.07829) is y_i = max_j act(BN(W [x_j - x_i ; x_i])) over the
k nearest neighbours j of i. `pixcloud.ops.edge_conv` computes it over N points instead
of N k edges.

Shape legend: B clouds, N points, k neighbours, C_in and C_out channels.
"""

from __future__ import annotations

import torch
from torch import nn

from pixcloud.ops.edge_conv import edge_conv
from pixcloud.ops.neighbours import knn
from pixcloud.ops.recorded import full_precision, half_products


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

    def forward(
        self,
        x: torch.Tensor,
        index: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x (B, N, C_in) to (B, N, C_out).

        Args:
            x: (B, N, C_in).
            index: (B, N, k) neighbours in place of those in x.
            out: (B, N, C_out) memory for the result; may be ignored.

        Raises:
            ValueError: if the clouds have fewer points than k, or index does not fit x.
        """
        if index is None:
            index = knn(x, self.k)
        # Under autocast this layer stays in fp32: W1 x_j - W1 x_i would lose in half precision what
        # W1 (x_j - x_i) keeps. Only the products of its gradients are not differences.
        half = half_products(x)
        with full_precision(x):
            weight = self.linear.weight
            return edge_conv(x.to(weight.dtype), index, weight, self.bn, out, half)
