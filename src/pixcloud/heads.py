"""Stage 5, heads: features -> projections (B, P) for a loss, logits (B, K), logits (B, N, P)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pixcloud.types import PointFeatures


class ProjectionHead(nn.Sequential):
    """Linear, BN, ReLU, Linear, as in SimCLR (Chen et al. 2020, arXiv:2002.05709).

    CrossPoint's head for clouds has biases, its head for pictures has none.

    Args:
        in_dim: D of the pooled features.
        hidden_dim: width between the two maps.
        out_dim: P, the length of the projections.
        bias: whether both linear maps have one.

    Example:
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


class PartHead(nn.Module):
    """DGCNN's head for parts (Wang et al. 2019, arXiv:1801.07829): C + D + category -> logits.

    Each point is classified by the shape's pooled feature, its embedded category and the point's
    own features: 256, 256 and 128 channels with BN and LeakyReLU(0.2), dropout after the first two.
    Of the first layer the columns for what all points of a shape share are multiplied once per
    shape rather than once per point: the same function, with a sixth of its products.

    Args:
        point_dim: C of the per-point features.
        pooled_dim: D of the pooled feature.
        categories: K, kinds of shapes.
        parts: P, parts of all categories together.
        widths: channels of the three hidden layers.
        category_width: channels of the embedded category.
        dropout: share of the channels that are left out in training.

    Example:
        >>> features = PointFeatures(torch.rand(2, 64, 192), torch.rand(2, 1024))
        >>> PartHead(192, 1024, categories=16, parts=50)(features, torch.tensor([0, 15])).shape
        torch.Size([2, 64, 50])
    """

    def __init__(
        self,
        point_dim: int,
        pooled_dim: int,
        *,
        categories: int,
        parts: int,
        widths: Sequence[int] = (256, 256, 128),
        category_width: int = 64,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.categories = categories
        self.category = nn.Sequential(
            nn.Linear(categories, category_width, bias=False),
            nn.BatchNorm1d(category_width),
            nn.LeakyReLU(0.2),
        )
        self.shared_dim = pooled_dim + category_width
        self.first = nn.Linear(self.shared_dim + point_dim, widths[0], bias=False)
        self.rest = nn.Sequential(
            nn.BatchNorm1d(widths[0]),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(widths[0], widths[1], bias=False),
            nn.BatchNorm1d(widths[1]),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(widths[1], widths[2], bias=False),
            nn.BatchNorm1d(widths[2]),
            nn.LeakyReLU(0.2),
            nn.Linear(widths[2], parts, bias=False),
        )

    def forward(self, features: PointFeatures, categories: torch.Tensor) -> torch.Tensor:
        """Features of B shapes and their categories (B,) int64 to logits (B, N, P)."""
        per_point, pooled = features
        assert per_point is not None  # whoever builds the head asks for `point_dim`
        hot = nn.functional.one_hot(categories, self.categories).to(pooled.dtype)
        shared = torch.cat([pooled, self.category(hot)], dim=1)
        weights = self.first.weight.split([self.shared_dim, per_point.shape[-1]], dim=1)
        rows = nn.functional.linear(per_point, weights[1])
        rows = rows + nn.functional.linear(shared, weights[0])[:, None]
        return self.rest(rows.flatten(0, 1)).unflatten(0, per_point.shape[:2])
