"""Stage 4, the second layer over edges: p, q (B, N, C), indices (B, N, k) -> extremes (B, N, D).

A two-layer EdgeConv takes the maximum over neighbours of the second of two layers, and the second
one really runs over all N k edges: with p and q the two halves of the normalised first layer,

    a_ij = LeakyReLU(p_j + q_i, 0.2),    z_ij = W a_ij,    j in the neighbours of i.

BN and the activation that follow are monotone, so that only the extreme of z over j is needed, and
mean and variance of z. Neither direction keeps anything of size N k: blocks of points are built
from p and q, multiplied, reduced and forgotten, and built again in the backward pass.

The backward pass spares a product with W per edge. Every edge gets a gradient, through the batch
statistics, but that part is affine in z: with s the gradient of the variance times 2 / E and ~ for
"minus the mean over all E edges", it is da = K ~a + const with K = W^T diag(s) W, and the part of
dW is diag(s) W sum(~a ~a^T). What comes through the extremes touches one edge per point and
channel.

On processors with fp32 or fp64, kernels of `pixcloud.ops.edge_pairs_cpu` do the work; elsewhere,
the torch operators below.

Shape legend: B clouds, N points, k neighbours, C channels in, D channels out, E = B N k edges.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

# Entries of one block's largest tensor: 4 Mi, which is 16 MiB in fp32.
BLOCK_ENTRIES = 1 << 22
SLOPE = 0.2


def edge_pair_extreme(
    p: torch.Tensor, q: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, sign: torch.Tensor
) -> torch.Tensor:
    """Extreme over the neighbours of W LeakyReLU(p_j + q_i, 0.2); gradients flow to p, q and W.

    Args:
        p: (B, N, C), the part of a neighbour.
        q: (B, N, C), the part of a centre.
        index: (B, N, k) int64 neighbours in [0, N).
        weight: (D, C), W.
        sign: (D,) of +1 (maximum) and -1 (minimum), in the dtype of p.

    Returns:
        (B, N, D).

    Example:
        >>> p, q = torch.tensor([[[1.0], [4.0]]]), torch.zeros(1, 2, 1)
        >>> index = torch.tensor([[[0, 1], [1, 0]]])
        >>> edge_pair_extreme(p, q, index, torch.ones(1, 1), torch.ones(1)).flatten().tolist()
        [4.0, 4.0]
    """
    return _apply(p, q, index, weight, sign, False)[0]


def edge_pair_statistics(
    p: torch.Tensor, q: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, sign: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `edge_pair_extreme`, with the mean taken off and with the moments of z over all edges.

    Args:
        p: (B, N, C), the part of a neighbour.
        q: (B, N, C), the part of a centre.
        index: (B, N, k) int64 neighbours in [0, N).
        weight: (D, C), W.
        sign: (D,) of +1 (maximum) and -1 (minimum), in the dtype of p.

    Returns:
        extreme of z - mean (B, N, D); mean (D,), for running statistics only: no gradient flows
        through it; biased variance (D,).

    Example:
        >>> p, q = torch.tensor([[[1.0], [5.0]]]), torch.zeros(1, 2, 1)
        >>> index = torch.tensor([[[0, 1], [1, 0]]])
        >>> edge_pair_statistics(p, q, index, torch.ones(1, 1), torch.ones(1))[1:]
        (tensor([3.]), tensor([4.]))
    """
    return _apply(p, q, index, weight, sign, True)


def _apply(
    p: torch.Tensor,
    q: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    sign: torch.Tensor,
    centred: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _EdgePair.apply(p, q, index, weight, sign, centred)


class _EdgePair(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        p: torch.Tensor,
        q: torch.Tensor,
        index: torch.Tensor,
        weight: torch.Tensor,
        sign: torch.Tensor,
        centred: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        p, q, index = p.contiguous(), q.contiguous(), index.contiguous()
        centre = p.new_zeros(p.shape[2])
        if centred:
            centre = _mean_input(p, q, index)
        extreme, rank, squares = _forward(p, q, index, weight, sign, centre)
        ctx.save_for_backward(p, q, index, weight, centre, rank)
        ctx.centred = centred
        mean = F.linear(centre, weight)
        ctx.mark_non_differentiable(mean)
        return extreme, mean, squares / index.numel()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_extreme, _, grad_var = grads
        p, q, index, weight, centre, rank = ctx.saved_tensors
        edges = index.numel()
        # Without statistics nothing but the chosen edges has a gradient.
        slope = 2 * grad_var / edges if ctx.centred else None
        const = -grad_extreme.sum((0, 1)) / edges if ctx.centred else None
        grad_p, grad_q, chosen, gram = _backward(
            p, q, index, weight, centre, rank, grad_extreme.contiguous(), slope, const
        )
        grad_weight = chosen
        if slope is not None:
            grad_weight = chosen + slope[:, None] * (weight @ gram)
        return grad_p, grad_q, None, grad_weight, None, None


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


def _mean_input(p: torch.Tensor, q: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    total = p.new_zeros(p.shape[2])
    for block in _blocks(index, p.shape[2]):
        total += F.leaky_relu(_first(p, q, index, block), SLOPE).sum((0, 1))
    return total / index.numel()


def _forward(
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


def _backward(
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
