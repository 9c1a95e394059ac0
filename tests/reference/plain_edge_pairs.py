"""Slow and obvious twin of `pixcloud.ops.edge_pairs`: the whole edge tensor, by autograd."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def plain_edge_pairs(
    p: torch.Tensor, q: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, sign: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z = W LeakyReLU(p_j + q_i) of every edge: extremes (B, N, D), mean and variance (D,)."""
    near = torch.stack([cloud[places] for cloud, places in zip(p, index, strict=True)])
    z = F.leaky_relu(near + q[:, :, None], 0.2) @ weight.T
    extreme = (z * sign).max(dim=2).values * sign
    return extreme, z.mean((0, 1, 2)), z.var((0, 1, 2), unbiased=False)
