"""Stage 4, `pixcloud.ops.linear_pool` on processors: x (B, N, C) -> pooled (B, 2 D), and back.

h = x W^T is made in blocks of rows that stay in the cache, and is gone when their maxima, sums and
signs are known. What both directions need of it beside follows from smaller things:

- Mean and variance of h are those of x, through W: one product of x with itself, (C, C), which is
  symmetric, instead of a pass over h before the one that pools.
- The activation has two slopes, so that the gradient through the mean is a matrix of bits, times a
  number for each cloud and channel, and `bit_products_cpu` multiplies by bits. Beside it there are
  one point for each maximum and, of the batch statistics, what is linear in h: a product of x with
  a (C, C) matrix.

So three products of M x C x D become one, two of M x C x C (one of them symmetric) and two by bits,
and neither h nor its gradient is ever whole. x is centred first, so that points far from the origin
keep their digits.

Shape legend: B clouds, N points, M = B N rows, C channels in (padded to pairs of vectors), D
channels (padded to whole words of bits).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from pixcloud.distributed import World
from pixcloud.ops import pool_kernels_cpu as kernels
from pixcloud.ops.bit_products_cpu import add_chosen_channels, sum_chosen_points
from pixcloud.ops.buffers_cpu import empty, flat, lanes, padded
from pixcloud.ops.products_cpu import panels_of, rows_product, square_product, symmetric_product
from pixcloud.ops.threads_cpu import use_torch_threads

SLOPE = 0.2
# Rows of one product: what it gives stays in the cache for the pass that follows.
BLOCK_ROWS = 2048
# Rows whose mean stands for that of all when x is centred.
SAMPLE_ROWS = 1024


@dataclass
class Batch:
    """What the backward pass needs beside x and the parameters; all in the sign of BN's scale.

    Attributes:
        signed: (D, C), W in that sign.
        origin: (C,), what is taken off x; h is then x' W^T with x' = x - origin.
        of_clouds: (B, C), sums of x' over each cloud, in double precision.
        spread: (D, C), W times the covariance of x', None without batch statistics.
        scale, shift, centre: (D,), z = scale h + shift; centre is the mean of h.
        mean: (D,), that of x W^T, in double precision.
        var: (D,), in double precision.
        best: (B, D), maxima of h.
        place: (B, D), which point has it.
        sums: (3, B, D), see `pool_kernels_cpu.pool`.
        bits, turned: z > 0, see `bit_products_cpu`.
        count: points of all processes.
    """

    signed: torch.Tensor
    origin: torch.Tensor
    of_clouds: torch.Tensor
    spread: torch.Tensor | None
    scale: torch.Tensor
    shift: torch.Tensor
    centre: torch.Tensor
    mean: torch.Tensor
    var: torch.Tensor
    best: torch.Tensor
    place: np.ndarray
    sums: torch.Tensor
    bits: np.ndarray
    turned: np.ndarray
    count: float


def _width(channels: int) -> int:
    """Channels, rounded up to whole words."""
    return -(-channels // kernels.WORD) * kernels.WORD


def _signed(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """W (D, C), rows with a negative BN scale negated, padded with zeros."""
    rows, columns = weight.shape
    wide = (0, padded(columns, weight.dtype, 2) - columns, 0, _width(rows) - rows)
    return F.pad(torch.where(scale[:, None] < 0, -weight, weight), wide)


def _pad(x: torch.Tensor) -> torch.Tensor:
    """In double precision, with zeros behind the channels."""
    return F.pad(x.double(), (0, _width(x.shape[-1]) - x.shape[-1]))


def _rows(x: torch.Tensor) -> torch.Tensor:
    """x as rows (M, C) of whole pairs of vectors."""
    rows = x.detach().reshape(-1, x.shape[-1])
    short = padded(rows.shape[1], x.dtype, 2) - rows.shape[1]
    return F.pad(rows, (0, short)) if short else rows


def _blocks(batch: int, num_points: int) -> list[tuple[int, int]]:
    """Runs of rows: whole clouds, or parts of one that begin with a whole group of its rows."""
    if num_points <= BLOCK_ROWS:
        step = BLOCK_ROWS // num_points * num_points
        return [(i, min(i + step, batch * num_points)) for i in range(0, batch * num_points, step)]
    starts = range(0, num_points, BLOCK_ROWS)
    return [
        (b * num_points + i, b * num_points + min(i + BLOCK_ROWS, num_points))
        for b in range(batch)
        for i in starts
    ]


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    running: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
    world: World,
    half: bool,
) -> tuple[torch.Tensor, Batch]:
    """Pooled (B, 2 D) and what the backward pass needs; with batch statistics unless `running`.

    With `half` the product of all points, and that of their gradients, is of bf16 numbers.
    """
    use_torch_threads()
    batch, num_points, _ = x.shape
    channels, dtype = weight.shape[0], x.dtype
    rows, signed = _rows(x), _signed(weight, scale)
    # About the middle is enough. One number that is none would make all of them so.
    origin = rows[:: max(1, len(rows) // SAMPLE_ROWS)].mean(0).nan_to_num_(0, 0, 0)
    far, count = signed.double() @ origin.double(), float(len(rows))
    spread: torch.Tensor | None = None
    if running is None:
        square, of_clouds = square_product(rows, origin, num_points)
        middle = of_clouds.sum(0) / count
        spread = signed @ (square / count - torch.outer(middle, middle)).to(dtype)
        mean = far + (signed @ middle.to(dtype)).double()
        var = torch.linalg.vecdot(spread, signed).double().clamp_min(0)
        mean, var, count = world.moments(mean, var, count)
    else:
        of_clouds = (rows - origin).view(batch, num_points, -1).sum(1, dtype=torch.float64)
        mean = _pad(torch.where(scale < 0, -running[0], running[0]))
        var = _pad(running[1])
    slope = _pad(scale.abs()) * torch.rsqrt(var + eps)
    centre = mean - far
    shift = _pad(bias) - centre * slope
    rounded = [t.to(dtype) for t in (slope, shift, centre)]
    words = 2 * -(-num_points // kernels.WORD)
    saved = Batch(
        signed=signed,
        origin=origin,
        of_clouds=of_clouds,
        spread=spread,
        scale=rounded[0],
        shift=rounded[1],
        centre=rounded[2],
        mean=mean,
        var=var,
        best=torch.full((batch, len(signed)), -torch.inf, dtype=dtype),
        place=np.zeros((batch, len(signed)), np.uint32),
        sums=torch.zeros(3, batch, len(signed), dtype=torch.float64),
        bits=np.empty((len(signed) // kernels.WORD, len(rows)), np.uint64),
        turned=np.zeros((batch, words, len(signed)), np.uint32),
        count=count,
    )
    _pool(rows, half, saved)
    # At a scale of zero all points tie, whatever h is: the first one it is.
    equal = slope == 0
    first = (rows[::num_points] - origin) @ signed[equal].T
    saved.best[:, equal] = first + 0 * saved.best[:, equal]
    saved.place[:, equal.numpy()] = 0
    top = F.leaky_relu(saved.best * rounded[0] + rounded[1], SLOPE)
    average = (saved.sums[0] / num_points).to(dtype)
    return torch.cat([top[:, :channels], average[:, :channels]], dim=1), saved


def _pool(rows: torch.Tensor, half: bool, saved: Batch) -> None:
    """Fill what is found over the points of each cloud: best, place, sums and bits."""
    batch = len(saved.best)
    runs = _blocks(batch, len(rows) // batch)
    product = _Product(saved.signed.T, half, saved.origin)
    h = product.room(max(last - first for first, last in runs))
    for first, last in runs:
        part = product(rows[first:last], out=h[: last - first])
        kernels.pool(
            *(flat(part.view(torch.uint16) if half else part), first, len(rows) // batch),
            *(flat(saved.scale), flat(saved.shift), flat(saved.centre)),
            *(saved.best.numpy(), saved.place, saved.sums.numpy()),
            *(saved.bits.reshape(-1).view(np.uint8), saved.turned.reshape(-1)),
            *(saved.turned.shape[1], lanes(rows.dtype)),
        )


class _Product:
    """Products of rows less an origin with one matrix; of and in bf16 with `half`."""

    def __init__(self, right: torch.Tensor, half: bool, origin: torch.Tensor) -> None:
        self.origin, self.columns = origin, right.shape[1]
        self.right = right.bfloat16() if half else panels_of(right)

    def room(self, rows: int) -> torch.Tensor:
        """Where so many rows of the product find place."""
        if isinstance(self.right, torch.Tensor):
            return self.right.new_empty(rows, self.columns)
        return empty(rows, self.columns, like=self.origin)

    def __call__(self, rows: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        if not isinstance(self.right, torch.Tensor):
            return rows_product(rows, self.right, out, self.origin)
        left = self.right.new_empty(rows.shape)
        kernels.halve_rows(
            flat(rows), flat(self.origin), flat(left.view(torch.uint16)), lanes(rows.dtype)
        )
        return torch.mm(left, self.right, out=out)


def backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    eps: float,
    world: World | None,
    half: bool,
    saved: Batch,
    needs_x: bool,
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, W, BN's scale and its bias; `world` is None without batch statistics.

    With s the slope of the activation, dh is what `Gradient` says.
    """
    use_torch_threads()
    num_points, channels, dtype = x.shape[1], weight.shape[0], x.dtype
    rows, signed = _rows(x), saved.signed
    of_max, of_mean = (_pad(g) for g in grad.chunk(2, dim=1))
    of_mean = of_mean / num_points
    z = saved.best * saved.scale + saved.shift
    of_max = torch.where(z > 0, of_max, of_max * SLOPE)
    inverse, centre = torch.rsqrt(saved.var + eps), saved.centre.double()
    grad_bias = (of_max + of_mean * saved.sums[1]).sum(0)
    apart = saved.best.double() - centre
    grad_scale = inverse * (of_max * apart + of_mean * saved.sums[2]).sum(0)
    factor = _pad(scale.abs()) * inverse
    sums, each = torch.stack([grad_scale, grad_bias]), torch.zeros_like(factor)
    if world:
        sums, each = world.sum(sums), factor / saved.count
    part = Gradient(
        *(factor * of_mean, factor * of_max, each * inverse * sums[0], each * sums[1]),
        *(t.to(dtype).numpy() for t in ((1 - SLOPE) * factor * of_mean, factor * of_max)),
    )
    grad_x = None
    if needs_x:
        base = (SLOPE * part.given - part.const + part.slope * centre).to(dtype) @ signed
        grad_x = _linear_part(rows, part.slope, half, saved)
        add_chosen_channels(
            *(saved.bits, num_points, flat(signed), rows.shape[1], part.at_bits, flat(base)),
            *(saved.place, part.at_places, flat(grad_x), 2 * lanes(dtype)),
        )
        grad_x = grad_x[:, : weight.shape[1]].reshape(x.shape)
    grad_weight = _grad_weight(rows, num_points, part, saved)[:channels, : weight.shape[1]]
    sign = torch.where(scale < 0, -1.0, 1.0).to(dtype)
    grad_scale = grad_scale[:channels].to(dtype) * sign
    return grad_x, grad_weight * sign[:, None], grad_scale, grad_bias[:channels].to(dtype)


@dataclass
class Gradient:
    """dh = given s(z) - const - slope (h - centre), and `chosen` more at the maxima.

    In double precision; `at_bits` (0.8 given) and `at_places` (chosen) as the kernels take them.
    """

    given: torch.Tensor
    chosen: torch.Tensor
    slope: torch.Tensor
    const: torch.Tensor
    at_bits: np.ndarray
    at_places: np.ndarray


def _linear_part(rows: torch.Tensor, slope: torch.Tensor, half: bool, saved: Batch) -> torch.Tensor:
    """What reaches x through the batch statistics and is linear in it, (M, C)."""
    out = empty(*rows.shape, like=rows)
    if saved.spread is None:
        return out.zero_()
    steep = saved.signed * -slope.to(rows.dtype)[:, None]
    product = _Product(symmetric_product(saved.signed, steep), half, saved.origin)
    if not half:
        return product(rows, out=out)
    for first, last in _blocks(1, len(rows)):
        out[first:last] = product(rows[first:last], product.room(last - first))
    return out


def _grad_weight(rows: torch.Tensor, num_points: int, part: Gradient, saved: Batch) -> torch.Tensor:
    """Gradient of W (D, C) in its sign: sum of dh_i (x'_i + origin)."""
    signed, dtype = saved.signed, rows.dtype
    out = empty(*signed.shape, like=rows)
    sum_chosen_points(
        *(saved.turned, num_points, flat(rows), rows.shape[1], flat(saved.origin), part.at_bits),
        *(saved.place, part.at_places, flat(out), 2 * lanes(dtype)),
    )
    total, count = saved.of_clouds.sum(0), len(rows)
    # sum of h - centre over this process's points: 0 if there is no other
    apart = (signed @ total.to(dtype)).double() - count * saved.centre.double()
    of_h = (part.given * saved.sums[1] + part.chosen).sum(0) - count * part.const
    of_h -= part.slope * apart
    out.addmm_((SLOPE * part.given.T).to(dtype), saved.of_clouds.to(dtype))
    out.addr_(of_h.to(dtype), saved.origin)
    if saved.spread is not None:
        out.addr_((part.const + part.slope * apart / count).to(dtype), total.to(dtype), alpha=-1)
        out.addcmul_((part.slope * count).to(dtype)[:, None], saved.spread, value=-1)
    return out


def evaluate(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """Pooled with BN given as a scale and a shift (D,) in double precision; nothing is kept."""
    use_torch_threads()
    batch, num_points, channels = x.shape
    width = _width(weight.shape[0])
    folded = F.pad(weight * scale[:, None].to(weight.dtype), (0, 0, 0, width - weight.shape[0]))
    offset = _pad(shift).to(x.dtype)
    pooled = torch.empty(batch, 2, width, dtype=x.dtype)
    step = max(1, BLOCK_ROWS // num_points)
    h = empty(min(step, batch) * num_points, width, like=x)
    for first in range(0, batch, step):
        clouds = x[first : first + step].reshape(-1, channels)
        part = torch.mm(clouds, folded.T, out=h[: len(clouds)])
        kernels.evaluate(
            *(flat(part), num_points, flat(offset), pooled[first : first + step].numpy()),
            lanes(x.dtype),
        )
    return pooled[..., : weight.shape[0]].flatten(1)
