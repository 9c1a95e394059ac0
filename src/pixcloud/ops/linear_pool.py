"""Stage 4, the last layer of DGCNN: x (B, N, C) -> max and mean over N of act(BN(W x)), (B, 2 D).

BN and LeakyReLU(0.2) are monotone per channel, so the maximum is found before them; the mean needs
every activation, but no tensor of them. On processors the kernels of `linear_pool_cpu` do it in few
passes over the product, and turn that into its own gradient; elsewhere torch's operators do.

Shape legend: B clouds, N points, C channels in, D channels out.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from pixcloud.distributed import World
from pixcloud.ops import recorded
from pixcloud.ops.batch_norm import running_statistics, update_running, world_of
from pixcloud.ops.edge_conv import SLOPE, has_kernels


def linear_bn_pool(x: torch.Tensor, weight: torch.Tensor, bn: nn.BatchNorm1d) -> torch.Tensor:
    """Maximum and mean over the points of LeakyReLU(BN(x W^T), 0.2).

    Batch statistics are those of all B N points. Of points with equal values the first one gets
    the gradient of the maximum.

    Args:
        x: (B, N, C) per-point features.
        weight: (D, C), no bias.
        bn: over D channels; its running statistics are updated in training, as by its own forward.

    Returns:
        (B, 2 D), maxima before means; on processors differentiable once.

    Raises:
        ValueError: in training, for a single point: it has no variance.

    Example:
        >>> bn = nn.BatchNorm1d(8)
        >>> linear_bn_pool(torch.rand(2, 16, 4), torch.rand(8, 4), bn).shape
        torch.Size([2, 16])
    """
    if bn.training and x.shape[0] * x.shape[1] * world_of(bn).size == 1:
        raise ValueError("batch statistics of a single point: more than 1 is expected in training")
    if x.device.type != "cpu":
        return _with_torch(x, weight, bn)
    # Few processors multiply faster in half precision, and the kernels have none.
    half = recorded.half_products(x)
    with recorded.full_precision(x):
        return _on_cpu(x.to(weight.dtype), weight, bn, half)


def _on_cpu(x: torch.Tensor, weight: torch.Tensor, bn: nn.BatchNorm1d, half: bool) -> torch.Tensor:
    if not has_kernels(x):
        return _with_torch(x, weight, bn)
    wanted = torch.is_grad_enabled() and any(
        t.requires_grad for t in (x, weight, bn.weight, bn.bias)
    )
    if bn.training or wanted:
        running = None if bn.training else running_statistics(bn)
        pooled, mean, var, count = _LinearPool.apply(
            x, weight, bn.weight, bn.bias, running, bn.eps, world_of(bn), half
        )
        if bn.training:
            update_running(bn, mean, var, count.item())
        return pooled
    from pixcloud.ops import linear_pool_cpu

    mean, var = (t.double() for t in running_statistics(bn))
    scale = bn.weight.double() * torch.rsqrt(var + bn.eps)
    return linear_pool_cpu.evaluate(x, weight, scale, bn.bias - mean * scale)


def _with_torch(x: torch.Tensor, weight: torch.Tensor, bn: nn.BatchNorm1d) -> torch.Tensor:
    """The same with torch's operators, and autograd's derivatives."""
    h = bn(F.linear(x, weight).flatten(0, 1)).unflatten(0, x.shape[:2])
    activated = F.leaky_relu(h, SLOPE)
    # Unlike amax, which shares it among equal ones, max hands the gradient to one of them.
    return torch.cat([activated.max(dim=1).values, activated.mean(1)], dim=-1)


class _LinearPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        running: tuple[torch.Tensor, torch.Tensor] | None,
        eps: float,
        world: World,
        half: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        from pixcloud.ops import linear_pool_cpu

        x = x.contiguous()
        pooled, saved = linear_pool_cpu.forward(x, weight, scale, bias, running, eps, world, half)
        ctx.save_for_backward(x, weight, scale)
        ctx.saved, ctx.eps, ctx.world = saved, eps, world if running is None else None
        ctx.half = half
        channels = weight.shape[0]
        mean = saved.mean[:channels] * torch.where(scale < 0, -1.0, 1.0)
        var = saved.var[:channels].clone()
        count = torch.tensor(saved.count, dtype=torch.float64)
        ctx.mark_non_differentiable(mean, var, count)
        return pooled, mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        from pixcloud.ops import linear_pool_cpu

        x, weight, scale = ctx.saved_tensors
        return (
            *linear_pool_cpu.backward(
                *(grads[0], x, weight, scale, ctx.eps, ctx.world, ctx.half, ctx.saved),
                needs_x=ctx.needs_input_grad[0],
            ),
            *[None] * 4,
        )
