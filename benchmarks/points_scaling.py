"""DGCNN in evaluation from 1,024 to 131,072 points in one cloud: time and memory against points.

Each size runs in a fresh process. The textbook form stops where its matrix of distances and its
edge tensors would take more than 8 GiB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.case import Case
from benchmarks.dgcnn_train import WIDTHS
from benchmarks.floor import dgcnn_cost, measured_rates
from benchmarks.machine import machine
from benchmarks.memory import in_fresh_process

K = 20
SIZES = tuple(1024 * 2**n for n in range(8))
SMALL_SIZES = (128, 256)
TEXTBOOK_MIB = 8192


def cases(small: bool = False) -> list[Case]:
    """One cloud of each size."""
    return [
        Case(
            name=str(size),
            ways={way: _build(way, size) for way in ("textbook", "ours")},
            cost=dgcnn_cost(1, size, WIDTHS, 1024, K, training=False),
            goals={},
        )
        for size in (SMALL_SIZES if small else SIZES)
    ]


def run(rounds: int = 1, *, small: bool = False) -> dict[str, Any]:
    """Seconds (least of the rounds) and peak MiB above the input, by way and number of points."""
    rates = measured_rates()
    results: dict[str, Any] = {}
    for number, case in enumerate(cases(small)):
        size = int(case.name)
        result: dict[str, Any] = {"floor_seconds": case.cost.seconds(rates)}
        for way in case.ways:
            if way == "textbook" and (small or textbook_mib(size) > TEXTBOOK_MIB):
                continue
            taken = [
                in_fresh_process("points-scaling", number, way, small=small) for _ in range(rounds)
            ]
            result[way] = {
                "peak_mib": max(mib for mib, _ in taken),
                "seconds": min(seconds for _, seconds in taken),
            }
        results[case.name] = result
    return {
        "benchmark": "points-scaling",
        "machine": {**machine(), **{f"{k} rate": round(v, 1) for k, v in rates.items()}},
        "results": results,
        "memory_slope": slopes(results)[0],
        "goal": {"memory_slope": 1.1, "peak_mib": 4096},
    }


def slopes(results: dict[str, Any]) -> tuple[float, float]:
    """Growth of our peak memory over all sizes, and over the larger half of them.

    What does not grow flattens the small sizes, so the larger half speaks for itself.
    """
    ours = [(int(size), result["ours"]["peak_mib"]) for size, result in results.items()]
    return slope(ours), slope(ours[len(ours) // 2 - 1 :])


def slope(points: list[tuple[int, float]]) -> float:
    """Exponent of memory against points: the slope of a line through the logarithms.

    >>> round(slope([(1, 3.0), (10, 30.0), (100, 300.0)]), 6)
    1.0
    """
    x, y = np.log(np.array([(a, max(b, 1e-9)) for a, b in points])).T
    return float(np.polyfit(x, y, 1)[0])


def textbook_mib(points: int) -> float:
    """What the textbook form holds at once: three matrices of distances, four edge tensors."""
    return (3 * points**2 + 4 * 2 * 128 * points * K) * 4 / 2**20


def table(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of text for the terminal."""
    rows = []
    for size, result in report["results"].items():
        for way in ("textbook", "ours"):
            if way in result:
                value = result[way]
                text = f"{value['seconds']:.3g} s, peak {value['peak_mib']:.0f} MiB"
                rows.append((f"{int(size):,} points: {way}", text))
    every, larger = slopes(report["results"])
    what = "memory grows as points to the power of (all; larger half)"
    rows.append((what, f"{every:.2f}; {larger:.2f}"))
    return rows


def _build(way: str, points: int) -> Callable[[bool], Callable[[], Any]]:
    def build(tiny: bool) -> Callable[[], Any]:
        from pixcloud.encoders.dgcnn import DGCNN
        from reference.textbook import TextbookDGCNN

        torch.manual_seed(0)
        x = torch.randn(1, 64 if tiny else points, 3)
        model: torch.nn.Module = (DGCNN if way == "ours" else TextbookDGCNN)(K).eval()

        @torch.inference_mode()
        def embed() -> None:
            model(x)

        return embed

    return build
