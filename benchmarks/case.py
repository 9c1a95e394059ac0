"""What a benchmark compares: named ways to do one thing, its goal, and the floor of its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.floor import Cost


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison.

    Args:
        name: of the setting, as tables show it.
        ways: name -> function that makes the inputs and returns what is measured; "textbook" is
            compared with every other one. Called with True it makes a tiny version, which brings
            libraries and kernels into memory before a peak is measured.
        cost: operations and bytes that the result needs whatever the way.
        goals: least ratio of the times for each way but the textbook.
        memory_goal: greatest share of the textbook's peak memory above the inputs.
        rounds: turns for each way; None takes what the command line asks.
        warm: a first turn of each way does not count.
    """

    name: str
    ways: dict[str, Callable[[bool], Callable[[], Any]]]
    cost: Cost
    goals: dict[str, float]
    memory_goal: float | None = None
    rounds: int | None = None
    warm: bool = True
