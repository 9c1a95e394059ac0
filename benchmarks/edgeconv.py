"""One EdgeConv, forward and backward in training mode with the same neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.case import Case
from benchmarks.floor import edgeconv_cost

LAYERS = [(3, 64), (64, 64), (64, 128), (128, 256)]


def cases(small: bool = False) -> list[Case]:
    """The four layers of DGCNN at 8 clouds of 2,048 points, k 15."""
    batch, points, k = (2, 128, 5) if small else (8, 2048, 15)
    return [
        Case(
            name=f"{batch} clouds, {points} points, {c_in} to {c_out} channels, k {k}",
            ways={way: _build(way, batch, points, c_in, c_out, k) for way in ("textbook", "ours")},
            cost=edgeconv_cost(batch, points, c_in, c_out, training=True),
            goals={},
        )
        for c_in, c_out in ([(64, 64)] if small else LAYERS)
    ]


def _build(
    way: str, batch: int, points: int, c_in: int, c_out: int, k: int
) -> Callable[[bool], Callable[[], Any]]:
    def build(tiny: bool) -> Callable[[], Any]:
        from pixcloud.encoders.edgeconv import EdgeConv
        from pixcloud.ops.neighbours import knn
        from reference.textbook import TextbookEdgeConv

        count = 64 if tiny else points
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(batch, count, c_in, generator=generator)
        index = knn(x, k)
        upstream = torch.randn(batch, count, c_out, generator=generator)
        if way == "ours":
            layer: torch.nn.Module = EdgeConv(c_in, c_out, k)
        else:
            layer = TextbookEdgeConv(c_in, c_out, k)
            x, upstream = (t.transpose(1, 2).contiguous() for t in (x, upstream))
        x.requires_grad_()

        def step() -> None:
            x.grad = None
            layer.zero_grad()
            layer(x, index).backward(upstream)

        return step

    return build
