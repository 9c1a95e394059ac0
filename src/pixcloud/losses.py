"""Stage 6, losses: projections in, a scalar out; no settings, no devices, no logging."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def nt_xent(a: torch.Tensor, b: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """Normalised temperature-scaled cross entropy of SimCLR (Chen et al. 2020, arXiv:2002.05709).

    Row i of `a` and row i of `b` are each other's positive; the other 2B - 2 rows of both are the
    negatives of each. With s(x, y) the cosine of x and y over the temperature, the loss is the mean
    over all 2B rows x with positive y of -s(x, y) + log sum_{z != x} exp s(x, z).

    Args:
        a: (B, P) projections.
        b: (B, P) projections.
        temperature: > 0, without unit.

    Returns:
        Scalar tensor.

    Raises:
        ValueError: if the shapes differ or B < 2, where there are no negatives.

    Example:
        >>> z = torch.eye(2)
        >>> round(nt_xent(z, z, temperature=1.0).item(), 4)
        0.5514
    """
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"projections must share the shape (B, P): {a.shape} and {b.shape}")
    if len(a) < 2:
        raise ValueError("NT-Xent needs at least 2 pairs: with 1 there are no negatives")
    z = F.normalize(torch.cat([a, b]), dim=1)
    logits = z @ z.T / temperature
    logits.fill_diagonal_(float("-inf"))
    count = len(a)
    positives = torch.arange(2 * count, device=z.device).roll(count)
    return F.cross_entropy(logits, positives)
