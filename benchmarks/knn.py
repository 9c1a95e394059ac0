"""Nearest neighbours: ours against the whole matrix of distances and `topk`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.case import Case
from benchmarks.floor import knn_cost


def cases(small: bool = False) -> list[Case]:
    """8 clouds of 2,048 points in 3, 64 and 128 channels, k 20."""
    batch, points, k = (2, 128, 5) if small else (8, 2048, 20)
    return [
        Case(
            name=f"{batch} clouds, {points} points, {channels} channels, k {k}",
            ways={way: _build(way, batch, points, channels, k) for way in ("textbook", "ours")},
            cost=knn_cost(batch, points, channels, k),
            goals={"ours": 6.0},
        )
        for channels in ((64,) if small else (3, 64, 128))
    ]


def _build(
    way: str, batch: int, points: int, channels: int, k: int
) -> Callable[[bool], Callable[[], Any]]:
    def build(tiny: bool) -> Callable[[], Any]:
        from pixcloud.ops.neighbours import knn
        from reference.textbook_seg import textbook_knn

        generator = torch.Generator().manual_seed(0)
        x = torch.randn(batch, 64 if tiny else points, channels, generator=generator)
        if way == "ours":
            return lambda: knn(x, k)
        turned = x.transpose(1, 2).contiguous()  # as the textbook form holds its features
        return lambda: textbook_knn(turned, k)

    return build
