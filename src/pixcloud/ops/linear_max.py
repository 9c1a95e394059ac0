"""Stage 4, the last layer of PointNet: x (B, N, C) -> max over N of BN(W x), (B, D).

BN is monotone per channel, so the maximum over the points moves inside it, and only B * D of the
B * N * D products reach the output. The batch statistics of all of them follow from the mean and
covariance of x: mean(W x) = W mean(x), var(W x) = diag(W cov(x) W^T). So nothing of size
(B, N, D) is kept, and the backward pass costs D rows per cloud instead of N.
"""

from __future__ import annotations

import torch
from torch import nn

from pixcloud.ops.batch_norm import running_statistics, update_running


def linear_bn_max(x: torch.Tensor, weight: torch.Tensor, bn: nn.BatchNorm1d) -> torch.Tensor:
    """Maximum over the points of BN(x W^T), with batch statistics over all B N points in training.

    A monotone activation commutes with the maximum; apply it to the result.

    Args:
        x: (B, N, C) per-point features.
        weight: (D, C), no bias.
        bn: over D channels; its running statistics are updated in training, as by its own forward.

    Returns:
        (B, D).

    Example:
        >>> bn = nn.BatchNorm1d(8).eval()
        >>> linear_bn_max(torch.rand(2, 16, 4), torch.rand(8, 4), bn).shape
        torch.Size([2, 8])
    """
    with torch.no_grad():
        # The minimum is the maximum for the negated row of W.
        signed = torch.where(bn.weight[:, None] >= 0, weight, -weight)
        where = torch.stack([(cloud @ signed.T).max(dim=0).indices for cloud in x])
    chosen = x.gather(1, where[..., None].expand(-1, -1, x.shape[2]))
    extreme = torch.einsum("bdc,dc->bd", chosen, weight)
    if not bn.training:
        mean, var = running_statistics(bn)
    else:
        # Under autocast the products may be in half precision, the statistics may not.
        with torch.autocast(x.device.type, enabled=False):
            mean, var = _linear_statistics(x.flatten(0, 1).to(weight.dtype), weight, bn)
    scale = bn.weight * torch.rsqrt(var + bn.eps)
    return extreme * scale + (bn.bias - mean * scale)


def _linear_statistics(
    x: torch.Tensor, weight: torch.Tensor, bn: nn.BatchNorm1d
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance (D,) of x W^T over the rows of x (M, C); updates running ones."""
    count = x.shape[0]
    centre = x.mean(dim=0)
    centred = x - centre
    mean = weight @ centre
    var = ((weight @ (centred.T @ centred / count)) * weight).sum(-1).clamp_min(0)
    update_running(bn, mean, var * (count / max(count - 1, 1)))
    return mean, var
