"""DGCNN for classification, forward and backward in training mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.case import Case
from benchmarks.floor import dgcnn_cost

WIDTHS = (64, 64, 128, 256)


def cases(small: bool = False) -> list[Case]:
    """8 clouds of 2,048 points, k 15."""
    batch, points, k, embed = (2, 128, 5, 32) if small else (8, 2048, 15, 1024)
    return [
        Case(
            name=f"{batch} clouds, {points} points, k {k}",
            ways={way: _build(way, batch, points, k, embed) for way in ("textbook", "ours")},
            cost=dgcnn_cost(batch, points, WIDTHS, embed, k, training=True),
            goals={"ours": 14.0},
            memory_goal=1 / 8,
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
        upstream = torch.randn(batch, 2 * embed)
        ours, textbook = DGCNN(k, embed), TextbookDGCNN(k, embed)
        model: torch.nn.Module = ours if way == "ours" else textbook

        def step() -> None:
            model.zero_grad()
            pooled = ours(x).pooled if way == "ours" else textbook(x)
            pooled.backward(upstream)

        return step

    return build
