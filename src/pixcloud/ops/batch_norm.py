"""Stage 4, running statistics of BN layers whose batch statistics are computed elsewhere."""

from __future__ import annotations

import torch
from torch import nn


def running_statistics(bn: nn.BatchNorm1d) -> tuple[torch.Tensor, torch.Tensor]:
    """Running mean and variance (C,), which evaluation uses."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    return bn.running_mean, bn.running_var


@torch.no_grad()
def update_running(bn: nn.BatchNorm1d, mean: torch.Tensor, unbiased_var: torch.Tensor) -> None:
    """Move the running statistics of `bn` towards those of a batch, as its own forward would."""
    running_mean, running_var = running_statistics(bn)
    assert bn.momentum is not None
    assert bn.num_batches_tracked is not None
    bn.num_batches_tracked += 1
    running_mean.lerp_(mean.to(running_mean.dtype), bn.momentum)
    running_var.lerp_(unbiased_var.to(running_var.dtype), bn.momentum)
