"""Stage 7, the optimiser: settings and weights -> Adam, AdamW or SGD, one pass over them a step."""

from __future__ import annotations

from typing import Any

import torch

from pixcloud.config import OptimConfig

# Weights without decay end with this.
UNDECAYED = "log_temperature"


def build_optimizer(settings: OptimConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD over all weights that are trained."""
    weights: list[Any] = [p for p in model.parameters() if p.requires_grad]
    named = {id(p) for n, p in model.named_parameters() if n.endswith(UNDECAYED)}
    if named:
        # A temperature is no weight that wants to be small.
        alone = [p for p in weights if id(p) in named]
        weights = [
            {"params": [p for p in weights if id(p) not in named]},
            {"params": alone, "weight_decay": 0.0},
        ]
    # Fused: one pass over weights, gradients and moments, where the plain form takes a dozen.
    common: dict[str, Any] = {
        "lr": settings.lr,
        "weight_decay": settings.weight_decay,
        "fused": True,
    }
    if settings.name == "sgd":
        return torch.optim.SGD(weights, momentum=settings.momentum, **common)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(weights, **common)


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay moments in memory as their weights lie; the fused step pairs them by address.

    Needed after loading: files hold every tensor in row-major order, while the weights of
    convolutions lie channels-last.
    """
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                values[name] = torch.empty_like(weight).copy_(value)
