"""Stage 4, sums over neighbours: x (B, N, C), indices (B, N, k) -> (B, N, C).

With in-degrees they give the exact second moments of all edges [x_j ; x_i] in products over points.
Neither direction keeps an edge tensor: kernels on processors, one neighbour at a time elsewhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def neighbour_sum(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """y[b, i] = sum over j of x[b, index[b, i, j]]; gradients flow to x.

    Args:
        x: (B, N, C), in fp32 or fp64.
        index: (B, N, k) int64 neighbours in [0, N).

    Returns:
        (B, N, C).

    Raises:
        ValueError: if x and index do not fit, or an index is not in [0, N).

    Example:
        >>> x = torch.tensor([[[1.0], [4.0], [2.0]]])
        >>> neighbour_sum(x, torch.tensor([[[0, 1], [1, 2], [2, 0]]])).flatten().tolist()
        [5.0, 6.0, 3.0]
    """
    check_neighbours(x, index)
    total: torch.Tensor = _NeighbourSum.apply(x, index)
    return total


def check_neighbours(x: torch.Tensor, index: torch.Tensor) -> None:
    """Refuse neighbours (B, N, k) that are not those of points (B, N, C).

    Raises:
        ValueError: if the shapes do not fit, or an index is not in [0, N).

    >>> check_neighbours(torch.rand(1, 2, 3), torch.tensor([[[0], [1]]]))
    """
    if x.dim() != 3 or index.dim() != 3 or x.shape[:2] != index.shape[:2] or not index.shape[2]:
        shapes = f"{tuple(x.shape)} and {tuple(index.shape)}"
        raise ValueError(f"points (B, N, C) and neighbours (B, N, k) are expected, got {shapes}")
    # Elsewhere the operators check it themselves, and looking here would wait for the device.
    if index.device.type == "cpu" and index.numel():
        low, high = (int(value) for value in index.aminmax())
        if low < 0 or high >= x.shape[1]:
            wrong = low if low < 0 else high
            raise ValueError(f"neighbour {wrong} in a cloud of {x.shape[1]} points")


class _NeighbourSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index)
        if x.device.type == "cpu":
            from pixcloud.ops.neighbour_sum_cpu import forward

            return forward(x, index)
        return gather_by_rank(x, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (given,), (index,) = grads, ctx.saved_tensors
        if given.device.type == "cpu":
            from pixcloud.ops.neighbour_sum_cpu import backward

            return backward(given, index), None
        return spread_by_rank(given, index), None


def gather_by_rank(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Sums (B, N, C) over neighbours, on any device."""
    clouds = torch.arange(x.shape[0], device=x.device)[:, None]
    total = torch.zeros_like(x)
    for rank in range(index.shape[2]):
        total += x[clouds, index[:, :, rank]]
    return total


def spread_by_rank(given: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Gradient (B, N, C) of x from that of the sums, on any device."""
    first = torch.arange(given.shape[0], device=given.device)[:, None] * given.shape[1]
    grad = torch.zeros_like(given)
    for rank in range(index.shape[2]):
        places = (index[:, :, rank] + first).flatten()
        grad.flatten(0, 1).index_add_(0, places, given.flatten(0, 1))
    return grad
