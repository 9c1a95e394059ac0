"""Stage 5, heads: pooled features (B, D) -> projections (B, P) that the loss compares."""

from __future__ import annotations

from torch import nn


class ProjectionHead(nn.Sequential):
    """Linear, BN, ReLU, Linear, as in SimCLR (Chen et al. 2020, arXiv:2002.05709).

    CrossPoint's head for clouds has biases, its head for pictures has none.

    Args:
        in_dim: D of the pooled features.
        hidden_dim: width between the two maps.
        out_dim: P, the length of the projections.
        bias: whether both linear maps have one.

    Example:
        >>> import torch
        >>> ProjectionHead(2048, 1024, 256)(torch.rand(4, 2048)).shape
        torch.Size([4, 256])
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, bias: bool = True) -> None:
        super().__init__(
            nn.Linear(in_dim, hidden_dim, bias=bias),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, out_dim, bias=bias),
        )
