"""Stage 7, losses on their way to the log: parts of this process -> means over all processes.

Parts are kept as they come and reduced once per logging interval, so that a step waits for no
other process on their account.
"""

from __future__ import annotations

import math

import torch

from pixcloud.checkpoint import Progress
from pixcloud.distributed import World
from pixcloud.step import LOSSES


class LossSums:
    """Sums of the losses since the last line of the log and of the epoch, kept in `Progress`.

    Args:
        world: the processes, each of which has its parts of the losses.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._pending: list[torch.Tensor] = []

    def add(self, parts: torch.Tensor) -> None:
        """Parts (batches, 3) of the losses of a step."""
        self._pending += list(parts)

    def reduce(self, progress: Progress) -> None:
        """Add what is pending to the sums; all processes call it at the same step."""
        if not self._pending:
            return
        # Added up batch by batch, so that means do not depend on when this was called.
        for losses in self.world.sum(torch.stack(self._pending)).tolist():
            for sums in (progress.interval, progress.epoch):
                for place, value in enumerate([*losses, 1.0]):
                    sums[place] += value
        self._pending = []


def mean_losses(sums: list[float]) -> dict[str, float]:
    """Means by name, from sums and how many they are of; NaN where all steps were skipped."""
    count = sums[-1] or math.nan
    return {name: sums[place] / count for place, name in enumerate(LOSSES)}
