"""Stage 4, `pixcloud.ops.edge_pairs` in torch's operators, for devices without kernels of ours.

Edge tensors are made for one block of points at a time, in both directions.

Shape legend: B clouds, N points, k neighbours, C channels in, D channels out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

# Entries of one block's largest tensor: 4 Mi, which is 16 MiB in fp32.
BLOCK_ENTRIES = 1 << 22
SLOPE = 0.2


def _blocks(index: torch.Tensor, channels: int) -> list[tuple[int, slice]]:
    """Clouds and runs of points whose edge tensors stay below the size of a block."""
    _, num_points, k = index.shape
    step = max(1, BLOCK_ENTRIES // (k * channels))
    starts = range(0, num_points, step)
    return [(b, slice(s, s + step)) for b in range(index.shape[0]) for s in starts]


def _first(
    p: torch.Tensor, q: torch.Tensor, index: torch.Tensor, block: tuple[int, slice]
) -> torch.Tensor:
    """y_ij = p_j + q_i of a block, (points, k, C)."""
    b, points = block
    near = index[b, points]
    return p[b].index_select(0, near.flatten()).view(*near.shape, -1) + q[b, points, None]


def mean_input(p: torch.Tensor, q: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Mean of a over all edges, (C,)."""
    total = p.new_zeros(p.shape[2])
    for block in _blocks(index, p.shape[2]):
        total += F.leaky_relu(_first(p, q, index, block), SLOPE).sum((0, 1))
    return total / index.numel()


def forward(
    p: torch.Tensor,
    q: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    sign: torch.Tensor,
    centre: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Extremes of W (a - centre), which neighbour has them, and sums of squares over all edges."""
    out_channels = weight.shape[0]
    extreme = p.new_empty(*p.shape[:2], out_channels)
    rank = torch.empty(extreme.shape, dtype=torch.int32, device=p.device)
    squares = p.new_zeros(out_channels)
    # The minimum is the maximum for the negated row of W.
    signed = (weight * sign[:, None]).T
    for block in _blocks(index, max(p.shape[2], out_channels)):
        a = F.leaky_relu(_first(p, q, index, block), SLOPE) - centre
        z = a @ signed
        extreme[block], where = z.max(dim=1)
        rank[block] = where.int()
        squares += z.square_().sum((0, 1))
    return extreme * sign, rank, squares


def backward(
    p: torch.Tensor,
    q: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    centre: torch.Tensor,
    rank: torch.Tensor,
    grad_extreme: torch.Tensor,
    slope: torch.Tensor | None,
    const: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of p and q, that of W through the extremes, and the sum of ~a ~a^T."""
    grad_p, grad_q, chosen = torch.zeros_like(p), torch.empty_like(q), torch.zeros_like(weight)
    channels = p.shape[2]
    gram = p.new_zeros(channels, channels)
    for block in _blocks(index, max(channels, weight.shape[0])):
        b = block[0]
        y = _first(p, q, index, block)
        a = F.leaky_relu(y, SLOPE) - centre
        at_edges = a.new_zeros(*a.shape[:2], weight.shape[0])
        at_edges.scatter_(1, rank[block].long()[:, None], grad_extreme[block][:, None])
        grad = at_edges @ weight
        chosen += at_edges.flatten(0, 1).T @ a.flatten(0, 1)
        if slope is not None and const is not None:
            grad += a @ (weight.T @ (slope[:, None] * weight)) + const @ weight
            gram += a.flatten(0, 1).T @ a.flatten(0, 1)
        grad = torch.where(y > 0, grad, grad * SLOPE)
        grad_q[block] = grad.sum(1)
        grad_p[b].index_add_(0, index[block].flatten(), grad.flatten(0, 1))
    return grad_p, grad_q, chosen, gram
