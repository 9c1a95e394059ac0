"""Stage 7, the precision of training: measured on this machine, then fixed for the run.

Whether bf16 pays depends on the processor: with AMX or on a GPU its products run several times as
fast as those of fp32, and without such units it is emulated, a hundred times slower. So `auto` asks
the machine; what it answers goes into the run's config, and a resumed run keeps it.
"""

from __future__ import annotations

import time
from typing import Literal

import torch

# Ratios seen are above 2 or below 0.1, so that noise does not decide.
WORTH_IT = 1.5
SECONDS = 0.2


def product_rates(device: str, *kinds: torch.dtype) -> list[float]:
    """GFLOP/s of 512 x 512 x 512 products of some kinds, each the best of a few in turns.

    In turns, so that whoever else uses the machine slows all of them.

    Example:
        >>> product_rates("cpu", torch.float32)[0] > 0
        True
    """
    matrices = [torch.ones(512, 512, dtype=kind, device=device) for kind in kinds]
    best = [float("inf")] * len(kinds)
    until, rounds = time.perf_counter() + SECONDS, 0
    while time.perf_counter() < until or rounds < 5:
        rounds += 1
        for n, a in enumerate(matrices):
            start = time.perf_counter()
            torch.mm(a, a)
            if device != "cpu":
                torch.get_device_module(device).synchronize()
            best[n] = min(best[n], time.perf_counter() - start)
    return [2 * 512**3 / seconds / 1e9 for seconds in best]


def choose_precision(device: str) -> tuple[Literal["32", "bf16"], str]:
    """ "32" or "bf16", whichever is faster on `device`, and the measurement in words."""
    fp32, bf16 = product_rates(device, torch.float32, torch.bfloat16)
    chosen: Literal["32", "bf16"] = "bf16" if bf16 > WORTH_IT * fp32 else "32"
    return chosen, f"products in fp32 {fp32:.0f}, in bf16 {bf16:.0f} GFLOP/s"
