"""Stage 6, losses: projections in, a scalar out; no settings, no devices, no logging."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

# Similarities held at a time: 4 Mi, which is 16 MiB in fp32.
BLOCK_ENTRIES = 1 << 22


def nt_xent(
    a: torch.Tensor,
    b: torch.Tensor,
    temperature: float | torch.Tensor = 0.1,
    rows: slice | None = None,
    *,
    between: bool = False,
    hardness: float = 0.0,
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
        temperature: > 0, without unit; a scalar tensor gets a gradient.
        rows: which of the B pairs count, against all others as negatives; the result is their part
            of the loss, so that parts over disjoint rows add up to the whole.
        between: negatives of a row are those of the other side only, B - 1, as in CLIP (Radford et
            al. 2021, arXiv:2103.00020).
        hardness: beta of Robinson et al. 2021 (arXiv:2010.04592): the exponential of each of the K
            negatives n of x is weighted by K exp(beta c(x, n)) / sum_m exp(beta c(x, m)), with c
            the cosine. 0 weighs all alike.

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
        >>> round(nt_xent(z, z, temperature=1.0, between=True).item(), 4)
        0.3133
    """
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"projections must share the shape (B, P): {a.shape} and {b.shape}")
    if len(a) < 2:
        raise ValueError("NT-Xent needs at least 2 pairs: with 1 there are no negatives")
    z = F.normalize(torch.cat([a, b]), dim=1)
    first, last, _ = (rows or slice(None)).indices(len(a))
    loss: torch.Tensor = _Contrast.apply(z, first, last, 1 / temperature, between, hardness)
    return loss


class _Contrast(torch.autograd.Function):
    """Unit rows z (2B, P), the second half positives of the first -> the loss of some pairs."""

    @staticmethod
    def forward(
        ctx: Any,
        z: torch.Tensor,
        first: int,
        last: int,
        sharpness: float | torch.Tensor,
        between: bool,
        hardness: float,
    ) -> torch.Tensor:
        pairs = len(z) // 2
        grad = torch.zeros_like(z) if any(ctx.needs_input_grad) else None
        total, pull = z.new_zeros(()), z.new_zeros(())
        step = max(1, BLOCK_ENTRIES // len(z))
        for half in (0, pairs):
            hidden = slice(half, half + pairs) if between else slice(0)
            for low in range(half + first, half + last, step):
                own = torch.arange(low, min(half + last, low + step), device=z.device)
                if hardness:
                    value, slope, steeper = _hard(z, own, hidden, sharpness, hardness)
                    pull += steeper
                else:
                    value, slope = _block(z, own, hidden, sharpness, grad is not None)
                total += value
                if grad is not None:
                    pulled = torch.mm(slope, z)
                    grad[own] += pulled
                    grad.addmm_(slope.T, z[own])
                    if not hardness:
                        pull += (pulled * z[own]).sum() / sharpness
        if grad is not None:
            ctx.save_for_backward(grad, pull)
        return total / len(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad, pull = ctx.saved_tensors
        share = grads[0] / len(grad)
        of_sharpness = pull * share if ctx.needs_input_grad[3] else None
        return grad * share, None, None, of_sharpness, None, None


def _block(
    z: torch.Tensor,
    own: torch.Tensor,
    hidden: slice,
    sharpness: float | torch.Tensor,
    sloping: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the losses of the rows `own` of z, and its slope in their cosines to all of z.

    `hidden` rows of z are no negatives of theirs; without `sloping` the slope means nothing.
    """
    every = torch.arange(len(own), device=z.device)
    positive = (own + len(z) // 2) % len(z)
    logits = torch.mm(z[own], z.T).mul_(sharpness)
    logits[every, own] = float("-inf")
    logits[:, hidden] = float("-inf")
    losses = torch.logsumexp(logits, dim=1)
    wanted = logits[every, positive]
    if sloping:
        # d loss / d logits: the softmax, less 1 at the positive.
        logits.sub_(losses[:, None]).exp_()
        logits[every, positive] -= 1
        logits *= sharpness
    return (losses - wanted).sum(), logits


def _hard(
    z: torch.Tensor,
    own: torch.Tensor,
    hidden: slice,
    sharpness: float | torch.Tensor,
    hardness: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `_block` with weighted negatives; last, the slope of the sum in the sharpness.

    The weighted sum of exponentials is K sum exp((sharpness + hardness) c) / sum exp(hardness c).
    """
    every = torch.arange(len(own), device=z.device)
    positive = (own + len(z) // 2) % len(z)
    cosines = torch.mm(z[own], z.T)
    wanted = cosines[every, positive]
    out = torch.zeros_like(cosines, dtype=torch.bool)
    out[every, own] = out[every, positive] = True
    out[:, hidden] = True
    steep = (cosines * (sharpness + hardness)).masked_fill_(out, float("-inf"))
    weights = (cosines * hardness).masked_fill_(out, float("-inf"))
    above, below = torch.logsumexp(steep, dim=1), torch.logsumexp(weights, dim=1)
    negatives = (~out).sum(dim=1).to(z.dtype)
    gap = negatives.log() + above - below - wanted * sharpness
    share = gap.sigmoid()
    steep, weights = (steep - above[:, None]).exp_(), (weights - below[:, None]).exp_()
    of_sharpness = (share * ((steep * cosines).sum(dim=1) - wanted)).sum()
    slope = steep.mul_(sharpness + hardness).sub_(weights.mul_(hardness)).mul_(share[:, None])
    slope[every, positive] = -share * sharpness
    return F.softplus(gap).sum(), slope, of_sharpness
