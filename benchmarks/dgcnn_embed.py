"""DGCNN for classification, evaluation: clouds to pooled features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.case import Case
from benchmarks.dgcnn_train import WIDTHS
from benchmarks.floor import dgcnn_cost


def cases(small: bool = False) -> list[Case]:
    """16 clouds of 1,024 points, k 20."""
    batch, points, k, embed = (2, 128, 5, 32) if small else (16, 1024, 20, 1024)
    return [
        Case(
            name=f"{batch} clouds, {points} points, k {k}",
            ways={way: _build(way, batch, points, k, embed) for way in ("textbook", "ours")},
            cost=dgcnn_cost(batch, points, WIDTHS, embed, k, training=False),
            goals={"ours": 16.0},
        )
    ]


def _build(
    way: str, batch: int, points: int, k: int, embed: int
) -> Callable[[bool], Callable[[], Any]]:
    def build(tiny: bool) -> Callable[[], Any]:
        from pixcloud.encoders.dgcnn import DGCNN
        from reference.textbook import TextbookDGCNN

        torch.manual_seed(0)
        x = torch.randn(batch, 64 if tiny else points, 3)
        model: torch.nn.Module = (DGCNN if way == "ours" else TextbookDGCNN)(k, embed).eval()

        @torch.inference_mode()
        def embed_clouds() -> None:
            model(x)

        return embed_clouds

    return build
