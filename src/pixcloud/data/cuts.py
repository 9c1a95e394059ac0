"""Stage 3, cuts: clouds (B, V, N, 3) and draws -> clouds whose regions are missing.

Before it: the draws of `pixcloud.data.views`, which calls it. A cloud keeps its number of points:
what is cut away is replaced by points that stay, so that batches stay whole.
"""

from __future__ import annotations

import torch


def replace_last(
    x: torch.Tensor, order: torch.Tensor, kept: torch.Tensor, refill: torch.Tensor
) -> torch.Tensor:
    """Replace the last points in an order by others that stay.

    Args:
        x: (B, V, N, 3).
        order: (B, V, N) int64, a permutation of the points of each view.
        kept: (B, V) int64, at least 1: how many stay, from the first in that order.
        refill: (B, V, N) in [0, 1): which of those that stay comes in place of each one.

    Returns:
        (B, V, N, 3); points that stay keep their place.

    Example:
        >>> x = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 1, 4, 3)
        >>> order = torch.tensor([[[3, 2, 1, 0]]])
        >>> replace_last(x, order, torch.tensor([[1]]), torch.zeros(1, 1, 4))[..., 0].tolist()
        [[[3.0, 3.0, 3.0, 3.0]]]
    """
    kept = kept[..., None]
    place = torch.arange(x.shape[2], device=x.device)
    # Rounding may make of a number just below 1 the count itself.
    drawn = (refill * kept).long().minimum(kept - 1)
    source = order.gather(-1, torch.where(place < kept, place, drawn))
    source = torch.empty_like(order).scatter_(-1, order, source)
    return x.gather(2, source[..., None].expand_as(x))


def crop(
    x: torch.Tensor, direction: torch.Tensor, share: torch.Tensor, refill: torch.Tensor
) -> torch.Tensor:
    """Take away what lies farthest along a direction.

    Args:
        x: (B, V, N, 3).
        direction: (B, V, 3), of any length.
        share: (B, V) of the points, below 1; rounded down to whole points.
        refill: as for `replace_last`.
    """
    along = (x * direction[:, :, None]).sum(-1)
    return replace_last(x, along.argsort(dim=-1, stable=True), _kept(x, share), refill)


def hole(
    x: torch.Tensor, centre: torch.Tensor, share: torch.Tensor, refill: torch.Tensor
) -> torch.Tensor:
    """Take away what lies nearest to one of the points.

    Args:
        x: (B, V, N, 3).
        centre: (B, V) in [0, 1): which point, as a share of N.
        share: (B, V) of the points, below 1; rounded down to whole points.
        refill: as for `replace_last`.
    """
    count = x.shape[2]
    place = (centre * count).long().clamp(max=count - 1)[..., None, None].expand(-1, -1, 1, 3)
    distance = (x - x.gather(2, place)).square().sum(-1)
    order = distance.argsort(dim=-1, descending=True, stable=True)
    return replace_last(x, order, _kept(x, share), refill)


def drop_others(x: torch.Tensor, drop: torch.Tensor, refill: torch.Tensor) -> torch.Tensor:
    """Take away single points, but never a cloud's first one.

    Args:
        x: (B, V, N, 3).
        drop: (B, V, N) bool.
        refill: as for `replace_last`.
    """
    drop = drop.clone()
    drop[..., 0] = False
    order = drop.byte().argsort(dim=-1, stable=True)
    return replace_last(x, order, (~drop).sum(-1), refill)


def _kept(x: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    count = x.shape[2]
    return (count - (share * count).long()).clamp(min=1)
