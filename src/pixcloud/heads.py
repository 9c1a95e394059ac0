"""Stage 5, heads: pooled features (B, D) -> projections (B, P) for a loss, or logits (B, K)."""

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


class ClassificationHead(nn.Sequential):
    """The classifier of DGCNN (Wang et al. 2019, arXiv:1801.07829): D -> 512 -> 256 -> K.

    The hidden layers have BN, LeakyReLU(0.2) and dropout; the first one has no bias.

    Args:
        in_dim: D of the pooled features.
        classes: K.
        dropout: share of the hidden channels that are left out in training.

    Example:
        >>> import torch
        >>> ClassificationHead(1024, 40)(torch.rand(4, 1024)).shape
        torch.Size([4, 40])
    """

    def __init__(self, in_dim: int, classes: int, dropout: float = 0.5) -> None:
        super().__init__(
            nn.Linear(in_dim, 512, bias=False),
            nn.BatchNorm1d(512),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(512, 256),
            nn.BatchNorm1d(256),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(256, classes),
        )
