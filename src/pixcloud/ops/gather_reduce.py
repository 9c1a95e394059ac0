"""Stage 4, reductions over neighbours: u (B, N, C), indices (B, N, k) -> (B, N, C).

EdgeConv needs, per point and channel, an extreme and the sum over the k neighbours. Neither
direction keeps the (B, N, k, C) edge tensor: the forward pass makes it for one cloud at a time,
and the backward pass needs only where each extreme was.
"""

from __future__ import annotations

from typing import Any

import torch

from pixcloud.ops import recorded


class _GatherReduce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: torch.Tensor, index: torch.Tensor, sign: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.empty_like(u)
        where = torch.empty(u.shape, dtype=torch.int64, device=u.device)
        for b in range(u.shape[0]):
            edges = u[b].index_select(0, index[b].flatten()).view(*index[b].shape, -1)
            total[b] = edges.sum(dim=1)
            # The minimum is the maximum of the negated channel, so one reduction serves both.
            where[b] = index[b].gather(1, edges.mul_(sign).max(dim=1).indices)
        ctx.save_for_backward(index, where)
        return u.gather(1, where), total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        grad_extreme, grad_total = grads
        index, where = ctx.saved_tensors
        grad = torch.zeros_like(grad_extreme)
        for b in range(grad.shape[0]):
            grad[b].scatter_add_(0, where[b], grad_extreme[b])
            for rank in range(index.shape[2]):
                grad[b].index_add_(0, index[b, :, rank], grad_total[b])
        return grad, None, None


def gather_reduce(
    u: torch.Tensor, index: torch.Tensor, sign: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Extreme and sum of u over the neighbours of each point.

    extreme[b, i, c] = max_j u[b, index[b, i, j], c] where sign[c] > 0, the minimum where it is < 0,
    the value of the first neighbour where it is 0;
    total[b, i, c] = sum_j u[b, index[b, i, j], c]. Gradients flow to u through both.

    Args:
        u: (B, N, C) per-point values.
        index: (B, N, k) int64 neighbours in [0, N).
        sign: (C,) of +1, -1 and 0, in the dtype of u.

    Returns:
        extreme and total, each (B, N, C).

    Example:
        >>> u = torch.tensor([[[1.0], [4.0], [2.0]]])
        >>> index = torch.tensor([[[0, 1], [1, 2], [2, 0]]])
        >>> extreme, total = gather_reduce(u, index, torch.tensor([1.0]))
        >>> extreme.flatten().tolist(), total.flatten().tolist()
        ([4.0, 4.0, 2.0], [5.0, 6.0, 3.0])
    """
    if recorded.recording():
        return recorded.gathered(u, index, sign)
    return _GatherReduce.apply(u, index, sign)


def in_degree(index: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """How often each point is a neighbour: index (B, N, k) -> (B, N) in `dtype`."""
    batch, num_points, _ = index.shape
    degree = torch.zeros(batch, num_points, dtype=dtype, device=index.device)
    ones = torch.ones((), dtype=dtype, device=index.device).expand(batch, index[0].numel())
    return degree.scatter_add_(1, index.flatten(1), ones)
