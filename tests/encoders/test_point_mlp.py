"""PointMLP, which only benchmarks have: its slow twin, its gradients, and degenerate clouds."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from reference.plain_point_mlp import plain_point_mlp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.point_mlp import PointMLP


def small() -> PointMLP:
    torch.manual_seed(0)
    encoder = PointMLP(width=4, k=5).double()
    for stage in encoder.stages:  # an affine map that does something
        torch.nn.init.uniform_(stage.scale, -2, 2)
        torch.nn.init.uniform_(stage.shift, -1, 1)
    for _ in range(3):  # running statistics that are not the initial ones
        encoder(torch.randn(4, 32, 3, dtype=torch.double))
    return encoder.eval()


def test_as_written_out() -> None:
    encoder, points = small(), torch.randn(3, 40, 3, dtype=torch.double)
    pooled = encoder(points).pooled
    torch.testing.assert_close(pooled, plain_point_mlp(encoder, points), rtol=1e-9, atol=1e-11)


def test_gradients() -> None:
    encoder, points = small(), torch.randn(1, 16, 3, dtype=torch.double)
    weights = [encoder.stages[1].scale, encoder.stages[0].lift[0].weight, encoder.first[0].weight]

    def pooled(*moved: torch.Tensor) -> torch.Tensor:
        names = ("stages.1.scale", "stages.0.lift.0.weight", "first.0.weight")
        with_moved = dict(zip(names, moved, strict=True))
        return torch.func.functional_call(encoder, with_moved, (points,)).pooled

    assert torch.autograd.gradcheck(pooled, weights, eps=1e-7, atol=1e-5)


def test_one_point_many_times_is_finite() -> None:
    encoder = small().train()
    encoder(torch.ones(2, 32, 3, dtype=torch.double)).pooled.sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)
