"""Stage 4, one EdgeConv after its search: x (B, N, C_in), index (B, N, k) -> y (B, N, C_out).

y_i = max_j LeakyReLU(BN(W1 (x_j - x_i) + W2 x_i), 0.2) over the neighbours j of i (Wang et al.
2019, arXiv:1801.07829). An edge is u_j + v_i with u = W1 x and v = (W2 - W1) x, so the products run
over N points and not over N k edges; BN and the activation are monotone per channel, so that only
the maximum of u_j is needed (the minimum where BN's scale is negative), and mean and variance over
all edges. Neither direction keeps anything of the size of the edges.

With gz = dL/dz at the selected edges, z = gamma xhat + beta, E edges and ~ for "minus the mean":
    dbeta = sum gz,    dgamma = sum gz xhat,    f = gamma / sqrt(var + eps),
    de_ij = f (gz_i [j was selected] - (dbeta + xhat_ij dgamma) / E),
whose sums over i are du_j and over j are dv_i. Without batch statistics only the first term is
left.

On processors, kernels do all but the products (`edge_conv_cpu`); elsewhere, torch's operators.
Of neighbours with equal values the first in `index` gets the gradient, in both, as from torch.max.

Shape legend: B clouds, N points, k neighbours, C_in and C_out channels.
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
from pixcloud.ops.gather_reduce import gather_reduce, in_degree

SLOPE = 0.2


def has_kernels(x: torch.Tensor) -> bool:
    """Whether the kernels for processors serve tensors such as x."""
    kind = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return kind and not recorded.recording()


def edge_conv(
    x: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    bn: nn.BatchNorm1d,
    out: torch.Tensor | None = None,
    half: bool = False,
) -> torch.Tensor:
    """EdgeConv with one linear map, BN over all edges, LeakyReLU(0.2) and a max over neighbours.

    Args:
        x: (B, N, C_in), in the dtype of the weight.
        index: (B, N, k) int64 neighbours in [0, N).
        weight: (C_out, 2 C_in), of [x_j - x_i ; x_i]; no bias.
        bn: over C_out channels; its running statistics are updated in training.
        out: (B, N, C_out) memory for the result, without gradient; may be ignored.
        half: products of the backward pass are of bf16 numbers, on processors.

    Returns:
        (B, N, C_out); differentiable once.

    Raises:
        ValueError: if x and index do not fit, or an index is not in [0, N).

    Example:
        >>> x, bn = torch.rand(2, 8, 3), nn.BatchNorm1d(16)
        >>> index = torch.arange(8).repeat(2, 8, 1)
        >>> edge_conv(x, index, torch.rand(16, 6), bn).shape
        torch.Size([2, 8, 16])
    """
    if x.dim() != 3 or index.dim() != 3 or x.shape[:2] != index.shape[:2]:
        shapes = f"{tuple(x.shape)} and {tuple(index.shape)}"
        raise ValueError(f"x (B, N, C) and index (B, N, k) are expected, got {shapes}")
    if not has_kernels(x):
        return _with_torch(x, index, weight, bn)
    wanted = torch.is_grad_enabled() and any(
        t.requires_grad for t in (x, weight, bn.weight, bn.bias)
    )
    if bn.training or wanted:
        running = None if bn.training else running_statistics(bn)
        y, mean, var, edges = _apply(x, index, weight, bn, running, out, half)
        if bn.training:
            update_running(bn, mean, var, edges.item())
        return y
    from pixcloud.ops import edge_conv_cpu

    mean, var = (t.double() for t in running_statistics(bn))
    scale = bn.weight.double() * torch.rsqrt(var + bn.eps)
    return edge_conv_cpu.evaluate(x, index, weight, scale, bn.bias - mean * scale, out)


def _apply(
    x: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    bn: nn.BatchNorm1d,
    running: tuple[torch.Tensor, torch.Tensor] | None,
    out: torch.Tensor | None,
    half: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    # Autograd should not take the memory for an input, so it comes wrapped.
    return _EdgeConv.apply(
        x, index, weight, bn.weight, bn.bias, running, bn.eps, world_of(bn), [out], half
    )


class _EdgeConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        index: torch.Tensor,
        weight: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        running: tuple[torch.Tensor, torch.Tensor] | None,
        eps: float,
        world: World,
        out: list[torch.Tensor | None],
        half: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        from pixcloud.ops import edge_conv_cpu

        y, saved = edge_conv_cpu.forward(x, index, weight, scale, bias, running, eps, world, out[0])
        ctx.save_for_backward(x, y, weight, scale, *saved)
        # Running statistics are the same on all processes, and so is what follows from them.
        ctx.eps, ctx.world, ctx.half = eps, world if running is None else None, half
        channels = weight.shape[0]
        mean = saved.mean[:channels] * torch.where(scale < 0, -1.0, 1.0)
        var = saved.var[:channels].clone()
        edges = saved.edges.clone()
        ctx.mark_non_differentiable(mean, var, edges)
        return y, mean, var, edges

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        from pixcloud.ops import edge_conv_cpu

        x, y, weight, scale, *saved = ctx.saved_tensors
        of_x, of_weight, of_scale, of_bias = edge_conv_cpu.backward(
            *(grads[0], x, y, weight, scale, ctx.eps, ctx.world, edge_conv_cpu.Batch(*saved)),
            needs_x=ctx.needs_input_grad[0],
            half=ctx.half,
        )
        return of_x, None, of_weight, of_scale, of_bias, *[None] * 5


def _with_torch(
    x: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, bn: nn.BatchNorm1d
) -> torch.Tensor:
    """The same with torch's operators, and autograd's derivatives."""
    w_edge, w_centre = weight.chunk(2, dim=1)
    # Clouds far from the origin keep their digits; as a constant it has no derivative, nor needs
    # one: edges do not depend on it.
    centres = x.detach().mean(dim=1, keepdim=True)
    u = F.linear(x - centres, w_edge)
    v = F.linear(x - centres, w_centre - w_edge) + F.linear(centres, w_centre)
    extreme, total = gather_reduce(u, index, bn.weight.detach().sign())
    if bn.training:
        mean, var, edges = _batch_statistics(u, v, total, index, world_of(bn))
        update_running(bn, mean, var, edges)
    else:
        mean, var = running_statistics(bn)
    scale = bn.weight * torch.rsqrt(var + bn.eps)
    return F.leaky_relu((extreme + v) * scale + (bn.bias - mean * scale), SLOPE)


def _batch_statistics(
    u: torch.Tensor, v: torch.Tensor, total: torch.Tensor, index: torch.Tensor, world: World
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Mean and biased variance (C_out,) of u_j + v_i over all edges, and how many they are.

    Both parts are centred first: the difference of two large sums would lose the variance.
    """
    k = index.shape[2]
    edges = world.size * index.numel()
    degree = in_degree(index, u.dtype)[..., None]
    mean_u = world.sum_with_gradient((degree * u).sum((0, 1))) / edges
    mean_v = world.sum_with_gradient(v.mean((0, 1))) / world.size
    u, v, total = u - mean_u, v - mean_v, total - k * mean_u
    squares = world.sum_with_gradient((degree * u.square() + v * (2 * total + k * v)).sum((0, 1)))
    return mean_u + mean_v, (squares / edges).clamp_min(0), edges
