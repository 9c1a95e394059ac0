"""Stage 7, the learning rate as a pure function of the step."""

from __future__ import annotations

import math

from pixcloud.config import OptimConfig


def learning_rate(config: OptimConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Learning rate of optimiser step `step`, counted from 0 over the whole run.

    "cosine-epoch" is lr_end + (lr - lr_end) (1 + cos(pi e / E)) / 2 with e = 0..E-1 the epoch of
    the step, so that no epoch trains at rate 0; "cosine-step" is the same with steps. Linear
    warm-up comes before, and the cosine then runs over what is left.

    Example:
        >>> learning_rate(OptimConfig(lr=1.0), step=50, steps_per_epoch=1, epochs=100)
        0.5
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "cosine-epoch":
        done = max(step // steps_per_epoch - config.warmup_epochs, 0.0)
        share = done / max(epochs - config.warmup_epochs, 1.0)
    else:
        share = (step - warmup) / max(epochs * steps_per_epoch - warmup, 1)
    height = config.lr - config.lr_end
    return config.lr_end + height * (1 + math.cos(math.pi * share)) / 2
