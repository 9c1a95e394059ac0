"""The fused step: the same function as the plain one, also after loading from row-major files."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pixcloud.config import OptimConfig
from pixcloud.optimizer import build_optimizer, match_layout


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 9, 9, generator=generator)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_fused_step_is_the_plain_step(name: str) -> None:
    settings = OptimConfig(name=name, lr=1e-3, weight_decay=1e-2)  # type: ignore[arg-type]
    ours, plain = convolutions(), convolutions()
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    more = {"momentum": 0.9} if name == "sgd" else {}
    twin = kinds[name](plain.parameters(), lr=1e-3, weight_decay=1e-2, foreach=False, **more)
    train(ours, build_optimizer(settings, ours), 5, seed=1)
    train(plain, twin, 5, seed=1)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_row_major_moments_are_laid_out_as_their_weights(name: str) -> None:
    settings = OptimConfig(name=name)  # type: ignore[arg-type]
    first = convolutions()
    optimizer = build_optimizer(settings, first)
    train(first, optimizer, 2, seed=1)
    second = copy.deepcopy(first)
    saved = copy.deepcopy(optimizer.state_dict())
    for values in saved["state"].values():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                values[key] = value.contiguous()
    resumed = build_optimizer(settings, second)
    resumed.load_state_dict(saved)
    match_layout(resumed)
    train(first, optimizer, 2, seed=2)
    train(second, resumed, 2, seed=2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_frozen_weights_are_left_out() -> None:
    model = convolutions()
    model[0].requires_grad_(False)  # type: ignore[index]
    groups = build_optimizer(OptimConfig(), model).param_groups
    assert sum(len(group["params"]) for group in groups) == 2
