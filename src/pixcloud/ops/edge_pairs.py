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

On processors, kernels of `pixcloud.ops.edge_pairs_cpu` do the work; elsewhere, torch's operators in
`pixcloud.ops.edge_pairs_blocks`.

Shape legend: B clouds, N points, k neighbours, C channels in, D channels out, E = B N k edges.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from pixcloud.distributed import ALONE, World
from pixcloud.ops import recorded
from pixcloud.ops.neighbour_sum import check_neighbours


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
        (B, N, D). Of equal extremes the first neighbour's gets the gradient.

    Raises:
        ValueError: if shapes do not fit, or an index is not in [0, N).

    Example:
        >>> p, q = torch.tensor([[[1.0], [4.0]]]), torch.zeros(1, 2, 1)
        >>> index = torch.tensor([[[0, 1], [1, 0]]])
        >>> edge_pair_extreme(p, q, index, torch.ones(1, 1), torch.ones(1)).flatten().tolist()
        [4.0, 4.0]
    """
    if recorded.recording():
        return recorded.pair_extreme(p, q, index, weight, sign)
    return _apply(p, q, index, weight, sign, None)[0]


def edge_pair_statistics(
    p: torch.Tensor,
    q: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    sign: torch.Tensor,
    world: World = ALONE,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `edge_pair_extreme`, with the mean taken off and with the moments of z over all edges.

    Args:
        p: (B, N, C), the part of a neighbour.
        q: (B, N, C), the part of a centre.
        index: (B, N, k) int64 neighbours in [0, N).
        weight: (D, C), W.
        sign: (D,) of +1 (maximum) and -1 (minimum), in the dtype of p.
        world: the processes over whose edges the moments are taken.

    Returns:
        extreme of z - mean (B, N, D); mean (D,), for running statistics only: no gradient flows
        through it; biased variance (D,).

    Raises:
        ValueError: if shapes do not fit, or an index is not in [0, N).

    Example:
        >>> p, q = torch.tensor([[[1.0], [5.0]]]), torch.zeros(1, 2, 1)
        >>> index = torch.tensor([[[0, 1], [1, 0]]])
        >>> edge_pair_statistics(p, q, index, torch.ones(1, 1), torch.ones(1))[1:]
        (tensor([3.]), tensor([4.]))
    """
    extreme, mean, part = _apply(p, q, index, weight, sign, world)
    return extreme, mean, world.sum_with_gradient(part)


def _apply(
    p: torch.Tensor,
    q: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    sign: torch.Tensor,
    world: World | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    check_neighbours(p, index)
    if q.shape != p.shape or weight.dim() != 2 or weight.shape[1] != p.shape[2]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (p, q, weight))
        raise ValueError(f"p and q (B, N, C) and a weight (D, C) are expected, got {shapes}")
    return _EdgePair.apply(p, q, index, weight, sign, world)


class _EdgePair(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        p: torch.Tensor,
        q: torch.Tensor,
        index: torch.Tensor,
        weight: torch.Tensor,
        sign: torch.Tensor,
        world: World | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        p, q, index = p.contiguous(), q.contiguous(), index.contiguous()
        kernels = _kernels(p)
        centre, edges = p.new_zeros(p.shape[2]), index.numel()
        if world:
            centre = world.sum(kernels.mean_input(p, q, index)) / world.size
            edges *= world.size
        extreme, rank, squares = kernels.forward(p, q, index, weight, sign, centre)
        ctx.save_for_backward(p, q, index, weight, centre, rank)
        ctx.world, ctx.edges = world, edges
        mean = F.linear(centre, weight)
        ctx.mark_non_differentiable(mean)
        return extreme, mean, squares / edges

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_extreme, _, grad_var = grads
        p, q, index, weight, centre, rank = ctx.saved_tensors
        # Without statistics nothing but the chosen edges has a gradient.
        slope = const = None
        if ctx.world:
            slope = 2 * grad_var / ctx.edges
            const = -ctx.world.sum(grad_extreme.sum((0, 1))) / ctx.edges
        grad_p, grad_q, chosen, gram = _kernels(p).backward(
            p, q, index, weight, centre, rank, grad_extreme.contiguous(), slope, const
        )
        grad_weight = chosen
        if slope is not None:
            grad_weight = chosen + slope[:, None] * (weight @ gram)
        return grad_p, grad_q, None, grad_weight, None, None


def _kernels(x: torch.Tensor) -> Any:
    """The module that does the work for tensors such as x."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        from pixcloud.ops import edge_pairs_cpu

        return edge_pairs_cpu
    from pixcloud.ops import edge_pairs_blocks

    return edge_pairs_blocks
