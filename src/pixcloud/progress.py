"""Stage 7, what a person sees while training runs: both losses, pairs/s and the time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingProgress:
    """A progress bar on a terminal; nothing elsewhere, where lines per epoch say the same.

    Args:
        total: optimiser steps of the run.
        done: those done already.
        enabled: false shows nothing.
    """

    def __init__(self, total: int, done: int, enabled: bool) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("intra {task.fields[intra]:.3f} cross {task.fields[cross]:.3f}"),
            TextColumn("{task.fields[rate]:.1f} pairs/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not (enabled and console.is_terminal),
        )
        nan = float("nan")
        self._task = self._bar.add_task(
            "", total=total, completed=done, epoch=0, intra=nan, cross=nan, rate=nan
        )

    def update(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """Show the state after `step`; `values` has intra, cross and rate."""
        self._bar.update(self._task, completed=step, epoch=epoch + 1, **values)  # type: ignore[arg-type]

    def advance(self, step: int) -> None:
        """Move the bar alone."""
        self._bar.update(self._task, completed=step)

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()


class Clock:
    """Seconds since the last lap, and steps per second since the last question."""

    def __init__(self, step: int) -> None:
        self._start = self._asked = time.perf_counter()
        self._step = step

    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def lap(self) -> float:
        elapsed = self.elapsed()
        self._start += elapsed
        return elapsed

    def rate(self, step: int) -> float:
        now = time.perf_counter()
        rate = (step - self._step) / max(now - self._asked, 1e-9)
        self._asked, self._step = now, step
        return rate
