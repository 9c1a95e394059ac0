"""A whole step of the published recipe: both clouds, pictures, losses, backward, Adam.

Ours includes the augmentation, which runs where the step runs; the textbook form gets views and
pictures ready, for its augmentation runs in reading processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.case import Case
from benchmarks.dgcnn_train import WIDTHS
from benchmarks.floor import Cost, dgcnn_cost, fusion_cost

# Multiply-adds of ResNet-50 per picture of 224 x 224 (He et al. 2016), and its weights.
RESNET50 = (4.09e9, 23.5e6)


def cases(small: bool = False) -> list[Case]:
    """4 pairs of 2,048 points and a picture of 224 x 224."""
    batch, points, side = (2, 64, 32) if small else (4, 2048, 224)
    ways = {
        "textbook": _textbook(batch, points, side),
        "ours, precision 32": _ours(batch, points, side, "32"),
        "ours, precision auto": _ours(batch, points, side, "auto"),
    }
    share = (side / 224) ** 2
    cost = dgcnn_cost(2 * batch, points, WIDTHS, 1024, 15, training=True)
    cost += Cost(6 * batch * share * RESNET50[0], 7 * 4 * (RESNET50[1] + 5e6))
    cost += fusion_cost(2 * batch, 2048, 1024, training=True)
    goals = {"ours, precision 32": 5.0, "ours, precision auto": 10.0}
    return [Case(name=f"{batch} pairs, {points} points", ways=ways, cost=cost, goals=goals)]


def _ours(
    batch: int, points: int, side: int, precision: str
) -> Callable[[bool], Callable[[], Any]]:
    def build(tiny: bool) -> Callable[[], Any]:
        from pixcloud.building import build_objective
        from pixcloud.config import pretrain_config
        from pixcloud.data.views import augment_clouds, augment_pictures, draw_pair
        from pixcloud.optimizer import build_optimizer
        from pixcloud.precision import choose_precision

        count, size = (64, 32) if tiny else (points, side)
        config = pretrain_config("crosspoint", trainer={"precision": precision})
        model = build_objective(config).train()
        optimizer = build_optimizer(config.optim, model)
        drawn = [
            draw_pair(
                config.views, seed=0, epoch=0, index=number, stored_points=count,
                num_points=count, pictures=24,
            )
            for number in range(batch)
        ]  # fmt: skip
        draws = {name: torch.from_numpy(np.stack([d[name] for d in drawn])) for name in drawn[0]}
        clouds = torch.randn(batch, 1, count, 3).expand(-1, 2, -1, -1).contiguous()
        pictures = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
        chosen = choose_precision("cpu")[0] if precision == "auto" else precision

        def step() -> None:
            optimizer.zero_grad()
            views = augment_clouds(clouds, draws)
            with torch.autocast("cpu", torch.bfloat16, enabled=chosen == "bf16"):
                losses = model(*views, augment_pictures(pictures, draws))
            losses["loss"].backward()
            optimizer.step()

        return step

    return build


def _textbook(batch: int, points: int, side: int) -> Callable[[bool], Callable[[], Any]]:
    def build(tiny: bool) -> Callable[[], Any]:
        from reference.textbook import TextbookCrossModal

        count, size = (64, 32) if tiny else (points, side)
        torch.manual_seed(0)
        model = TextbookCrossModal().train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-6)
        inputs = (
            torch.randn(batch, count, 3),
            torch.randn(batch, count, 3),
            torch.randn(batch, 3, size, size),
        )

        def step() -> None:
            optimizer.zero_grad()
            model(*inputs).backward()
            optimizer.step()

        return step

    return build
