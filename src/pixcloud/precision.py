"""Stage 7, the precision of training: measured on this machine, then fixed for the run.

Whether bf16 pays depends on the processor: with AMX or on a GPU its products run several times as
fast as those of fp32, and without such units it is emulated, a hundred times slower. So `auto` asks
the machine; what it answers goes into the run's config, and a resumed run keeps it.
"""

from __future__ import annotations

import time
from typing import Literal

import torch

# Ratios seen are above 3 or below 0.1, so that noise does not decide.
WORTH_IT = 1.5


def product_rate(dtype: torch.dtype, device: str) -> float:
    """GFLOP/s of a 512 x 512 x 512 product, best of some within a tenth of a second.

    Example:
        >>> product_rate(torch.float32, "cpu") > 0
        True
    """
    a = torch.ones(512, 512, dtype=dtype, device=device)
    best, until = float("inf"), time.perf_counter() + 0.1
    while time.perf_counter() < until or best == float("inf"):
        start = time.perf_counter()
        torch.mm(a, a)
        if device != "cpu":
            torch.get_device_module(device).synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * 512**3 / best / 1e9


def choose_precision(device: str) -> tuple[Literal["32", "bf16"], str]:
    """ "32" or "bf16", whichever is faster on `device`, and the measurement in words."""
    fp32, bf16 = (product_rate(kind, device) for kind in (torch.float32, torch.bfloat16))
    chosen: Literal["32", "bf16"] = "bf16" if bf16 > WORTH_IT * fp32 else "32"
    return chosen, f"products in fp32 {fp32:.0f}, in bf16 {bf16:.0f} GFLOP/s"
