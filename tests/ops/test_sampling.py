"""Farthest point sampling against the plain twin, on random and on nasty input."""

from __future__ import annotations

import pytest
import torch

from pixcloud.errors import NotFiniteError
from pixcloud.ops.sampling import farthest_points, step_by_step
from reference.plain_ops import plain_fps


def clouds(kind: str, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 130, channels, generator=generator, dtype=torch.float64)
    if kind == "duplicates":  # fewer different points than are asked for
        x[:, 9:] = x[:, :1]
    elif kind == "grid":  # ties everywhere
        x = x.round()
    elif kind == "huge":
        x = x + 1e6
    elif kind == "one point":
        x = x[:, :1]
    elif kind == "same":
        x = torch.ones_like(x)
    return x


@pytest.mark.parametrize("kind", ["random", "duplicates", "grid", "huge", "one point", "same"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_equals_the_plain_twin(kind: str, channels: int) -> None:
    x = clouds(kind, channels)
    for m in {1, min(20, x.shape[1]), x.shape[1] // 2 or 1}:
        for start in {0, x.shape[1] - 1}:
            plain = plain_fps(x, m, start)
            assert torch.equal(farthest_points(x, m, start), plain)
            assert torch.equal(step_by_step(x, m, start), plain)


def test_all_points_are_chosen_once() -> None:
    x = clouds("random", 3)
    assert torch.equal(farthest_points(x, 130).sort(dim=1).values, torch.arange(130).expand(3, -1))


def test_same_bits_for_any_number_of_threads() -> None:
    x = clouds("random", 3).float()
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results += [farthest_points(x, 60), farthest_points(x, 60)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("factor", [2.0**100, 2.0**-100])
def test_huge_and_tiny_values(factor: float) -> None:
    x = clouds("random", 3).float()
    assert torch.equal(farthest_points(x * factor, 50), farthest_points(x, 50))


def test_strides_dtypes_and_gradients() -> None:
    x = clouds("random", 6)
    assert torch.equal(farthest_points(x[:, ::2, :3], 9), plain_fps(x[:, ::2, :3], 9))
    half = x.bfloat16()
    assert torch.equal(farthest_points(half, 9), plain_fps(half.double(), 9))
    assert farthest_points(x[:0], 9).shape == (0, 9)
    assert not farthest_points(x.requires_grad_(), 9).requires_grad


def test_refuses() -> None:
    x = torch.rand(4, 8, 3)
    with pytest.raises(ValueError, match="m = 9 of a cloud of 8 points"):
        farthest_points(x, 9)
    with pytest.raises(ValueError, match="m = 0 of a cloud"):
        farthest_points(x, 0)
    with pytest.raises(ValueError, match="start = 8 in a cloud of 8 points"):
        farthest_points(x, 2, start=8)
    with pytest.raises(ValueError, match="axes"):
        farthest_points(x[0], 2)
    x[2, 5, 0] = torch.nan
    with pytest.raises(NotFiniteError, match="sample 2 of the batch"):
        farthest_points(x, 2)
