"""Stage 4, the contract of all point encoders: points (B, N, 3) -> PointFeatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pixcloud.data.views import unit_sphere
from pixcloud.types import PointFeatures


def require_sizes(**sizes: int | Sequence[int]) -> None:
    """Check settings that are sizes, or lists of sizes.

    Raises:
        ValueError: naming the setting, if it is no whole number of at least 1 or no list of them.

    >>> require_sizes(k=3, widths=[8, 8])
    """
    for name, value in sizes.items():
        listed = list(value) if isinstance(value, list | tuple) else [value]
        if not listed or any(type(size) is not int or size < 1 for size in listed):
            raise ValueError(f"{name} = {value!r}: whole numbers of at least 1 are expected")


class PointEncoder(nn.Module):
    """Base of the point encoders.

    A subclass sets `point_dim` (C, or None where it has no per-point features) and `pooled_dim`
    (D) and returns both kinds of features from `forward`, so that every protocol is served by the
    same module. `min_points` is how many points a cloud must have, and `min_points_of` why: words
    for a message, and the setting that it follows from. `spec` ({"name", "settings"}) is set by
    `build_encoder` and rebuilds it.
    """

    point_dim: int | None
    pooled_dim: int
    min_points: int = 1
    min_points_of: tuple[str, str] = ("looks at {} neighbours of each point", "k")
    spec: dict[str, Any]

    def forward(self, points: torch.Tensor) -> PointFeatures:
        """Points (B, N, 3) to per-point (B, N, C) or None, and pooled (B, D) features."""
        raise NotImplementedError

    @torch.no_grad()
    def embed(self, points: Any, *, normalize: bool = True) -> torch.Tensor:
        """Pooled features of clouds, in evaluation mode and without gradients.

        Args:
            points: (B, N, 3) or (N, 3) tensor or array.
            normalize: centre each cloud and scale it to the unit sphere first, as in training.

        Returns:
            (B, D), or (D,) for a single cloud, on the encoder's device.

        Raises:
            ValueError: if the last axis is not 3, there are no points, or a coordinate is not
                finite.

        Example:
            >>> from pixcloud.encoders import build_encoder
            >>> build_encoder("pointnet").embed(torch.rand(2, 64, 3)).shape
            torch.Size([2, 1024])
        """
        weight = next(self.parameters())
        clouds = torch.as_tensor(points).to(device=weight.device, dtype=weight.dtype)
        if clouds.dim() not in (2, 3) or clouds.shape[-1] != 3:
            raise ValueError(f"points must be (B, N, 3) or (N, 3), got {tuple(clouds.shape)}")
        if clouds.shape[-2] == 0:
            raise ValueError("a cloud without points has no features")
        if not torch.isfinite(clouds).all():
            raise ValueError("points hold NaN or infinite coordinates; remove them first")
        batch = clouds if clouds.dim() == 3 else clouds[None]
        if normalize:
            batch = unit_sphere(batch)
        # Each module's own: `train()` at the end would wake batch norms that were frozen.
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            pooled = self(batch).pooled
        finally:
            for module, mode in modes:
                module.training = mode
        return pooled if clouds.dim() == 3 else pooled[0]
