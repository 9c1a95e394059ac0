"""Stage 4, `pixcloud.ops.linear_pool` on processors: x (B, N, C) -> pooled (B, 2 D), and back.

Three products, h = x W^T forward, dh W and dh^T x backward, and few passes over h: one for the
statistics, one that pools without writing the activation, one that turns h into dh in place.

Shape legend: B clouds, N points, M = B N rows, C channels in, D channels (padded to whole vectors).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from pixcloud.distributed import World
from pixcloud.ops import pool_kernels_cpu as kernels
from pixcloud.ops.buffers_cpu import empty, flat, lanes, padded
from pixcloud.ops.threads_cpu import use_torch_threads

SLOPE = 0.2
# Rows of one product in evaluation: what it gives stays in the cache for the pass that follows.
EVALUATED_ROWS = 2048


@dataclass
class Batch:
    """What the backward pass needs beside x and the parameters; all in the sign of BN's scale.

    Attributes:
        h: (M, D), None once it has become its own gradient.
        scale, shift, mean: (D,), z = scale h + shift; mean is that of h.
        var: (D,), in double precision.
        best: (B, D), maxima of h.
        place: (B, D), which point has it.
        sums: (3, B, D), see `pool_kernels_cpu.pool`.
        count: points of all processes.
    """

    h: torch.Tensor | None
    scale: torch.Tensor
    shift: torch.Tensor
    mean: torch.Tensor
    var: torch.Tensor
    best: torch.Tensor
    place: np.ndarray
    sums: torch.Tensor
    count: float


def _signed(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """W, rows with a negative BN scale negated, padded with rows of zeros."""
    short = padded(weight.shape[0], weight.dtype) - weight.shape[0]
    return F.pad(torch.where(scale[:, None] < 0, -weight, weight), (0, 0, 0, short))


def _pad(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In double precision, with zeros behind the channels."""
    return F.pad(x.double(), (0, padded(x.shape[-1], dtype) - x.shape[-1]))


def _product(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    h = empty(x.shape[0], padded(weight.shape[0], weight.dtype), like=x)
    return torch.mm(x, _signed(weight, scale).T, out=h)


def _statistics(h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance (D,) of the columns in double precision."""
    rows, channels = h.shape
    blocks = -(-rows // kernels.ROWS)
    parts = empty(blocks, 3, channels, like=h)
    kernels.statistics(flat(h), rows, channels, flat(parts), lanes(h.dtype))
    count = torch.full((blocks, 1), kernels.ROWS, dtype=torch.float64)
    count[-1] = rows - (blocks - 1) * kernels.ROWS
    origin, total, squares = parts.double().unbind(1)
    means = origin + total / count
    mean = (means * count).sum(0) / rows
    within = squares - total.square() / count
    var = (within + count * (means - mean).square()).sum(0) / rows
    return mean, var.clamp_min(0)


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    running: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
    world: World,
) -> tuple[torch.Tensor, Batch]:
    """Pooled (B, 2 D) and what the backward pass needs; with batch statistics unless `running`."""
    use_torch_threads()
    batch, num_points, _ = x.shape
    channels, dtype = weight.shape[0], x.dtype
    h = _product(x.view(batch * num_points, -1), weight, scale)
    count = float(batch * num_points)
    if running is None:
        mean, var, count = world.moments(*_statistics(h), count)
    else:
        mean = _pad(torch.where(scale < 0, -running[0], running[0]), dtype)
        var = _pad(running[1], dtype)
    slope = _pad(scale.abs(), dtype) * torch.rsqrt(var + eps)
    shift = _pad(bias, dtype) - mean * slope
    rounded = [t.to(dtype) for t in (slope, shift, mean)]
    best, place = empty(batch, h.shape[1], like=x), np.empty((batch, h.shape[1]), np.uint32)
    sums = torch.empty(3, batch, h.shape[1], dtype=torch.float64)
    kernels.pool(
        *(flat(h), num_points, *map(flat, rounded), best.numpy(), place),
        *(sums.numpy(), lanes(dtype)),
    )
    # At a scale of zero all points tie, whatever h is: the first one it is.
    equal = slope == 0
    best[:, equal] = h[::num_points, equal] + 0 * best[:, equal]
    place[:, equal.numpy()] = 0
    top = F.leaky_relu(best * rounded[0] + rounded[1], SLOPE)
    average = (sums[0] / num_points).to(dtype)
    pooled = torch.cat([top[:, :channels], average[:, :channels]], dim=1)
    return pooled, Batch(h, rounded[0], rounded[1], rounded[2], var, best, place, sums, count)


def backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    eps: float,
    world: World | None,
    saved: Batch,
    needs_x: bool,
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, W, BN's scale and its bias; `world` is None without batch statistics."""
    use_torch_threads()
    batch, num_points, _ = x.shape
    rows, channels, dtype = x.view(batch * num_points, -1), weight.shape[0], x.dtype
    h = saved.h if saved.h is not None else _product(rows, weight, scale)
    saved.h = None
    of_max, of_mean = (_pad(g, dtype) for g in grad.chunk(2, dim=1))
    of_mean = of_mean / num_points
    z = saved.best * saved.scale + saved.shift
    of_max = torch.where(z > 0, of_max, of_max * SLOPE)
    inverse = torch.rsqrt(saved.var + eps)
    grad_bias = (of_max + of_mean * saved.sums[1]).sum(0)
    apart = saved.best.double() - saved.mean.double()
    grad_scale = inverse * (of_max * apart + of_mean * saved.sums[2]).sum(0)
    factor = _pad(scale.abs(), dtype) * inverse
    sums, each = torch.stack([grad_scale, grad_bias]), torch.zeros_like(factor)
    if world:
        sums, each = world.sum(sums), factor / saved.count
    small = [t.to(dtype) for t in (each * inverse * sums[0], each * sums[1])]
    kernels.gradients(
        *(flat(h), num_points, flat(saved.scale), flat(saved.shift), flat(saved.mean)),
        *(*map(flat, small), flat((factor * of_mean).to(dtype)), saved.place),
        *((factor * of_max).to(dtype).numpy(), lanes(dtype)),
    )
    grad_x = None
    if needs_x:
        grad_x = torch.mm(h, _signed(weight, scale), out=empty(*rows.shape, like=x)).view(x.shape)
    grad_weight = torch.mm(h.T, rows)[:channels]
    grad_weight = torch.where(scale[:, None] < 0, -grad_weight, grad_weight)
    grad_scale = grad_scale[:channels].to(dtype)
    grad_scale = torch.where(scale < 0, -grad_scale, grad_scale)
    return grad_x, grad_weight, grad_scale, grad_bias[:channels].to(dtype)


def evaluate(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """Pooled with BN given as a scale and a shift (D,) in double precision; nothing is kept."""
    use_torch_threads()
    batch, num_points, channels = x.shape
    width = padded(weight.shape[0], x.dtype)
    folded = F.pad(weight * scale[:, None].to(weight.dtype), (0, 0, 0, width - weight.shape[0]))
    offset = _pad(shift, x.dtype).to(x.dtype)
    pooled = torch.empty(batch, 2, width, dtype=x.dtype)
    step = max(1, EVALUATED_ROWS // num_points)
    h = empty(min(step, batch) * num_points, width, like=x)
    for first in range(0, batch, step):
        clouds = x[first : first + step].reshape(-1, channels)
        part = torch.mm(clouds, folded.T, out=h[: len(clouds)])
        kernels.evaluate(
            *(flat(part), num_points, flat(offset), pooled[first : first + step].numpy()),
            lanes(x.dtype),
        )
    return pooled[..., : weight.shape[0]].flatten(1)
