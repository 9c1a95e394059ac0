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
    memory: tuple[torch.Tensor, torch.Tensor] | None = None,
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
        memory: (M, P) and (M, P), projections of earlier pairs, which are further negatives (Wang
            et al. 2020, arXiv:1912.06798); they get no gradient.

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
    earlier = None
    if memory is not None and len(memory[0]):
        earlier = F.normalize(torch.cat(memory).detach(), dim=1)
    first, last, _ = (rows or slice(None)).indices(len(a))
    loss: torch.Tensor = _Contrast.apply(
        z, earlier, first, last, 1 / temperature, between, hardness
    )
    return loss


class _Contrast(torch.autograd.Function):
    """Unit rows z (2B, P), the second half positives of the first -> the loss of some pairs.

    `earlier` (2M, P) are further negatives, the first half of them on the side of the first of z.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: torch.Tensor,
        earlier: torch.Tensor | None,
        first: int,
        last: int,
        sharpness: float | torch.Tensor,
        between: bool,
        hardness: float,
    ) -> torch.Tensor:
        rows, pairs = len(z), len(z) // 2
        every = z if earlier is None else torch.cat([z, earlier])
        grad = torch.zeros_like(z) if any(ctx.needs_input_grad) else None
        total, pull = z.new_zeros(()), z.new_zeros(())
        step = max(1, BLOCK_ENTRIES // len(every))
        for side in (0, 1):
            hidden = _side(side, rows, len(every)) if between else []
            for low in range(side * pairs + first, side * pairs + last, step):
                own = torch.arange(low, min(side * pairs + last, low + step), device=z.device)
                positive = (own + pairs) % rows
                if hardness:
                    value, slope, steeper = _hard(every, own, positive, hidden, sharpness, hardness)
                    pull += steeper
                else:
                    sloping = grad is not None
                    value, slope = _block(every, own, positive, hidden, sharpness, sloping)
                total += value
                if grad is not None:
                    pulled = torch.mm(slope, every)
                    grad[own] += pulled
                    grad.addmm_(slope[:, :rows].T, z[own])
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
        of_sharpness = pull * share if ctx.needs_input_grad[4] else None
        return grad * share, None, None, None, of_sharpness, None, None


def _side(side: int, rows: int, every: int) -> list[slice]:
    """Places of one side's rows among those of both sides, and among earlier ones behind them."""
    now, past = rows // 2, (every - rows) // 2
    first, second = side * now, rows + side * past
    return [slice(first, first + now), slice(second, second + past)]


def _block(
    z: torch.Tensor,
    own: torch.Tensor,
    positive: torch.Tensor,
    hidden: list[slice],
    sharpness: float | torch.Tensor,
    sloping: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the losses of the rows `own` of z, and its slope in their cosines to all of z.

    `hidden` rows of z are no negatives of theirs; without `sloping` the slope means nothing.
    """
    every = torch.arange(len(own), device=z.device)
    logits = torch.mm(z[own], z.T).mul_(sharpness)
    logits[every, own] = float("-inf")
    for part in hidden:
        logits[:, part] = float("-inf")
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
    positive: torch.Tensor,
    hidden: list[slice],
    sharpness: float | torch.Tensor,
    hardness: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `_block` with weighted negatives; last, the slope of the sum in the sharpness.

    The weighted sum of exponentials is K sum exp((sharpness + hardness) c) / sum exp(hardness c).
    """
    every = torch.arange(len(own), device=z.device)
    cosines = torch.mm(z[own], z.T)
    wanted = cosines[every, positive]
    out = torch.zeros_like(cosines, dtype=torch.bool)
    out[every, own] = out[every, positive] = True
    for part in hidden:
        out[:, part] = True
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


def relation_loss(
    clouds: torch.Tensor,
    pictures: torch.Tensor,
    temperature: float = 0.1,
    rows: slice | None = None,
) -> torch.Tensor:
    """How far clouds are from being alike as their pictures are (relational distillation).

    With p_i the softmax over all other pairs j of the cosines of pictures i and j over the
    temperature, and q_i the same of clouds, the mean over i of the cross-entropy of q_i under p_i.
    Pictures are the teacher, and get no gradient. After Park et al. 2019 (arXiv:1904.05068) and
    Fang et al. 2021 (arXiv:2101.04731).

    Args:
        clouds: (B, P) projections.
        pictures: (B, P') projections of the pictures of the same pairs.
        temperature: > 0.
        rows: which i count, as for `nt_xent`.

    Returns:
        Scalar tensor; never below the entropy of the p_i.

    Raises:
        ValueError: if the lengths differ, or B < 2.

    Example:
        >>> z = torch.eye(3)
        >>> round(relation_loss(z, z).item(), 4)  # two others, equally alike
        0.6931
    """
    if len(clouds) != len(pictures):
        raise ValueError(f"one picture for each cloud: {len(clouds)} and {len(pictures)}")
    if len(clouds) < 2:
        raise ValueError("relations need at least 2 pairs")
    places = torch.arange(len(clouds), device=clouds.device)[rows or slice(None)]
    every = torch.arange(len(places), device=clouds.device)
    logits = []
    for z in (clouds, pictures.detach()):
        z = F.normalize(z, dim=1)
        alike = torch.mm(z[places], z.T) / temperature
        itself = torch.zeros_like(alike, dtype=torch.bool)
        itself[every, places] = True
        # A very low number and not minus infinity, whose product with 0 is no number.
        logits.append(alike.masked_fill(itself, torch.finfo(alike.dtype).min / 4))
    found, wanted = logits
    losses = -(wanted.softmax(dim=1) * found.log_softmax(dim=1)).sum(dim=1)
    return losses.sum() / len(clouds)
