"""DGCNN for segmentation, forward and backward in training mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.case import Case
from benchmarks.floor import dgcnn_seg_cost


def cases(small: bool = False) -> list[Case]:
    """4 clouds of 2,048 points, k 40."""
    batch, points, k, embed = (2, 128, 5, 32) if small else (4, 2048, 40, 1024)
    return [
        Case(
            name=f"{batch} clouds, {points} points, k {k}",
            ways={way: _build(way, batch, points, k, embed) for way in ("textbook", "ours")},
            cost=dgcnn_seg_cost(batch, points, embed, k, training=True),
            goals={"ours": 4.0},
            memory_goal=1 / 4,
        )
    ]


def _build(
    way: str, batch: int, points: int, k: int, embed: int
) -> Callable[[bool], Callable[[], Any]]:
    def build(tiny: bool) -> Callable[[], Any]:
        from pixcloud.encoders.dgcnn_seg import SegmentationDGCNN
        from reference.textbook_seg import TextbookSegDGCNN

        torch.manual_seed(0)
        x = torch.randn(batch, 64 if tiny else points, 3)
        model: torch.nn.Module = (SegmentationDGCNN if way == "ours" else TextbookSegDGCNN)(
            k, embed
        )

        def step() -> None:
            model.zero_grad()
            per_point, pooled = model(x)
            (per_point.square().mean() + pooled.square().mean()).backward()

        return step

    return build
