"""Stage 6, losses: projections in, a scalar out; no settings, no devices, no logging."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

# Similarities held at a time: 4 Mi, which is 16 MiB in fp32.
BLOCK_ENTRIES = 1 << 22


def nt_xent(
    a: torch.Tensor, b: torch.Tensor, temperature: float = 0.1, rows: slice | None = None
) -> torch.Tensor:
    """Normalised temperature-scaled cross entropy of SimCLR (Chen et al. 2020, arXiv:2002.05709).

    Row i of `a` and row i of `b` are each other's positive; the other 2B - 2 rows of both are the
    negatives of each. With s(x, y) the cosine of x and y over the temperature, the loss is the mean
    over all 2B rows x with positive y of -s(x, y) + log sum_{z != x} exp s(x, z).

    The gradient is computed with the value, a block of rows after the other, so that no matrix of
    all similarities is made: their memory does not grow with B.

    Args:
        a: (B, P) projections.
        b: (B, P) projections.
        temperature: > 0, without unit.
        rows: which of the B pairs count, against all others as negatives; the result is their part
            of the loss, so that parts over disjoint rows add up to the whole.

    Returns:
        Scalar tensor; differentiable once.

    Raises:
        ValueError: if the shapes differ or B < 2, where there are no negatives.

    Example:
        >>> z = torch.eye(2)
        >>> round(nt_xent(z, z, temperature=1.0).item(), 4)
        0.5514
        >>> round(nt_xent(z, z, temperature=1.0, rows=slice(0, 1)).item(), 4)
        0.2757
    """
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"projections must share the shape (B, P): {a.shape} and {b.shape}")
    if len(a) < 2:
        raise ValueError("NT-Xent needs at least 2 pairs: with 1 there are no negatives")
    z = F.normalize(torch.cat([a, b]), dim=1)
    first, last, _ = (rows or slice(None)).indices(len(a))
    loss: torch.Tensor = _Contrast.apply(z, first, last, 1 / temperature)
    return loss


class _Contrast(torch.autograd.Function):
    """Unit rows z (2B, P), the second half positives of the first -> the loss of some pairs."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, first: int, last: int, sharpness: float) -> torch.Tensor:
        pairs = len(z) // 2
        grad = torch.zeros_like(z) if ctx.needs_input_grad[0] else None
        total = z.new_zeros(())
        step = max(1, BLOCK_ENTRIES // len(z))
        for half in (0, pairs):
            for low in range(half + first, half + last, step):
                own = torch.arange(low, min(half + last, low + step), device=z.device)
                total += _block(z, own, sharpness, grad)
        if grad is not None:
            ctx.save_for_backward(grad)
        return total / len(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad * (grads[0] / len(grad)), None, None, None


def _block(
    z: torch.Tensor, own: torch.Tensor, sharpness: float, grad: torch.Tensor | None
) -> torch.Tensor:
    """Sum of the losses of the rows `own` of z; their gradients are added to `grad`."""
    every = torch.arange(len(own), device=z.device)
    positive = (own + len(z) // 2) % len(z)
    logits = torch.mm(z[own], z.T).mul_(sharpness)
    logits[every, own] = float("-inf")
    losses = torch.logsumexp(logits, dim=1)
    wanted = logits[every, positive]
    if grad is not None:
        # d loss / d logits: the softmax, less 1 at the positive.
        slope = logits.sub_(losses[:, None]).exp_()
        slope[every, positive] -= 1
        slope *= sharpness
        grad[own] += torch.mm(slope, z)
        grad.addmm_(slope.T, z[own])
    return (losses - wanted).sum()
