"""Put your own encoder in: one class, and every command takes it by the place of its code.

pixcloud pretrain --recipe demo --encoder.name examples/own_encoder.py:DeepSets --run runs/own
pixcloud probe runs/own --code examples/own_encoder.py:DeepSets

python examples/own_encoder.py      does the same from Python, for one epoch
"""

from __future__ import annotations

import torch
from torch import nn

import pixcloud
from pixcloud.encoders import PointEncoder
from pixcloud.types import PointFeatures


class DeepSets(PointEncoder):
    """A mean over points of a small network (Zaheer et al. 2017, arXiv:1703.06114)."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.point_dim, self.pooled_dim = width, 2 * width
        self.inner = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width))
        self.outer = nn.Sequential(nn.GELU(), nn.Linear(width, 2 * width))

    def forward(self, points: torch.Tensor) -> PointFeatures:
        """Points (B, N, 3) to per-point (B, N, width) and pooled (B, 2 * width)."""
        per_point = self.inner(points)
        return PointFeatures(per_point, self.outer(per_point.mean(dim=1)))


if __name__ == "__main__":
    pixcloud.register_encoder("deepsets", DeepSets)
    config = pixcloud.pretrain_config(
        "demo",
        run="runs/deepsets",
        encoder={"name": "deepsets", "settings": {"width": 128}},
        trainer={"epochs": 1},
    )
    pixcloud.pretrain(config)
    print(pixcloud.probe(pixcloud.ProbeConfig(encoder="runs/deepsets")))
