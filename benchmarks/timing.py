"""Timing in turns: the machine may be shared, so that only ratios within one run mean something."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def in_turns(
    ways: dict[str, Callable[[], Any]], rounds: int, *, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each way, one call of each per round.

    If `warm`, each call follows one of the same way that does not count, as a step of training
    follows its like: else one way would find memory and caches as the other one leaves them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            if warm:
                way()
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest of some numbers."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """How many times `fast` is faster: median of the rounds' ratios, with their range."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)])
