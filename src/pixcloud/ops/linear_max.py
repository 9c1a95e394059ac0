"""Stage 4, the last layer of PointNet: x (B, N, C) -> max over N of BN(W x), (B, D).

BN is monotone per channel, so the maximum over the points moves inside it, and only B * D of the
B * N * D products reach the output. The batch statistics of all of them follow from the mean and
covariance of x: mean(W x) = W mean(x), var(W x) = diag(W cov(x) W^T). So nothing of size
(B, N, D) is kept, and the backward pass costs D rows per cloud instead of N.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pixcloud.ops import recorded
from pixcloud.ops.batch_norm import running_statistics, update_running, world_of

# Scores held at a time: 1 Mi, which is 4 MiB in fp32.
BLOCK_ENTRIES = 1 << 20


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
    extreme = _extreme(x, weight, torch.where(bn.weight >= 0, 1.0, -1.0).to(weight.dtype))
    if not bn.training:
        mean, var = running_statistics(bn)
    else:
        # Under autocast the products may be in half precision, the statistics may not.
        with torch.autocast(x.device.type, enabled=False):
            mean, var = _linear_statistics(x.flatten(0, 1).to(weight.dtype), weight, bn)
    scale = bn.weight * torch.rsqrt(var + bn.eps)
    return extreme * scale + (bn.bias - mean * scale)


def linear_max(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Maximum over the points of x W^T, by the same operator.

    Args:
        x: (B, N, C) per-point features.
        weight: (D, C), no bias.

    Returns:
        (B, D).

    Example:
        >>> linear_max(torch.rand(2, 16, 4), torch.rand(8, 4)).shape
        torch.Size([2, 8])
    """
    return _extreme(x, weight, torch.ones_like(weight[:, 0]))


def _extreme(x: torch.Tensor, weight: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    if recorded.recording():
        return recorded.linear_extreme(x, weight, sign)
    return (_on_cpu if x.device.type == "cpu" else _anywhere)(x, weight, sign)


def _anywhere(x: torch.Tensor, weight: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """Maximum (B, D) of x W^T over the points where sign is +1, the minimum where it is -1."""
    with torch.no_grad():
        # The minimum is the maximum for the negated row of W.
        signed = weight * sign[:, None]
        where = torch.stack([(cloud @ signed.T).max(dim=0).indices for cloud in x])
    chosen = x.gather(1, where[..., None].expand(-1, -1, x.shape[2]))
    return torch.einsum("bdc,dc->bd", chosen, weight)


def _on_cpu(x: torch.Tensor, weight: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        extreme: torch.Tensor = _LinearMax.apply(x.to(weight.dtype), weight, sign)
    return extreme


class _LinearMax(torch.autograd.Function):
    """As `_anywhere`, by kernels: no gathered copy of x, and one pass to find the maximum."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, sign: torch.Tensor
    ) -> torch.Tensor:
        from pixcloud.ops.linear_max_cpu import column_maxima
        from pixcloud.ops.threads_cpu import use_torch_threads

        use_torch_threads()
        x = x.contiguous()
        (batch, num_points, _), channels = x.shape, weight.shape[0]
        signed = (weight * sign[:, None]).T
        best = x.new_empty(batch, channels)
        where = torch.empty(batch, channels, dtype=torch.int32)
        step = max(1, BLOCK_ENTRIES // (num_points * channels))
        scores = x.new_empty(min(step, batch) * num_points, channels)
        for b in range(0, batch, step):
            part = x[b : b + step].flatten(0, 1)
            block = torch.mm(part, signed, out=scores[: len(part)])
            column_maxima(
                block.view(-1, num_points, channels).numpy(),
                best[b : b + step].numpy(),
                where[b : b + step].numpy(),
            )
        ctx.save_for_backward(x, weight, where)
        return best.mul_(sign)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        from pixcloud.ops.linear_max_cpu import gradients
        from pixcloud.ops.threads_cpu import use_torch_threads

        use_torch_threads()
        x, weight, where = ctx.saved_tensors
        results = torch.zeros_like(x), torch.zeros_like(weight)
        inputs = (grad.contiguous(), where, x, weight.contiguous(), *results)
        gradients(*(tensor.detach().numpy() for tensor in inputs))
        return *results, None


def _linear_statistics(
    x: torch.Tensor, weight: torch.Tensor, bn: nn.BatchNorm1d
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance (D,) of x W^T over the rows of x (M, C); updates running ones."""
    world = world_of(bn)
    centre = world.sum_with_gradient(x.mean(dim=0)) / world.size
    centred = x - centre
    mean = weight @ centre
    var = ((weight @ (centred.T @ centred / len(x))) * weight).sum(-1)
    var = (world.sum_with_gradient(var) / world.size).clamp_min(0)
    update_running(bn, mean, var, world.size * len(x))
    return mean, var
