"""Stage 4, `pixcloud.ops.edge_conv` on processors: x (B, N, C_in) -> y (B, N, C), and back.

All is products (`products_cpu`) and a few passes of `edge_kernels_cpu`, for which u and v lie in
slabs of channels. Each cloud's mean c_b is taken off x first, and added again in double precision,
so that u and v of a cloud far from the origin keep their digits: with W = [W1 W2],
u = W1 (x - c_b), v = (W2 - W1) (x - c_b), an edge is u_j + v_i + W2 c_b. Rows of W with a negative
BN scale change sign, so that all extremes are maxima.

Shape legend: B clouds, N points, M = B N rows, k neighbours, C = S L channels out (padded to whole
slabs), E = B N k edges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from pixcloud.distributed import World
from pixcloud.ops import edge_kernels_cpu as kernels
from pixcloud.ops.adjacency_cpu import joined_neighbours, reversed_neighbours
from pixcloud.ops.buffers_cpu import empty, flat, flat_rows, lanes, padded
from pixcloud.ops.products_cpu import (
    panels_of,
    rows_of,
    rows_product,
    slab_columns_product,
    slab_rows_product,
)
from pixcloud.ops.threads_cpu import use_torch_threads

# Rows of one product, at least: what is made for it, or from it, stays in the cache.
BLOCK_ROWS = 2048
# Vectors of a row of a slab.
VECTORS = 2


class Batch(NamedTuple):
    """What the backward pass needs beside x, y and the parameters; tensors, as autograd frees.

    Attributes:
        centres: (B, C_in), c_b.
        uv: (2 S, M, L), slabs of u and of v.
        near: (M, k), rows of the joined clouds.
        rank: (S M L,), which of them gave the extreme.
        mean, var: (C,) of the edges of all processes in double precision, in the sign of the rows
            of W.
        origin: (C_in,), mean of c_b over the clouds of all processes, in double precision.
        edges: how many edges all processes have; a scalar.
    """

    centres: torch.Tensor
    uv: torch.Tensor
    near: torch.Tensor
    rank: torch.Tensor
    mean: torch.Tensor
    var: torch.Tensor
    origin: torch.Tensor
    edges: torch.Tensor


def _width(weight: torch.Tensor) -> int:
    """C."""
    return padded(weight.shape[0], weight.dtype, VECTORS)


def _slabs(rows: int, weight: torch.Tensor) -> torch.Tensor:
    """Room for u and v, or their gradients: (2 S, M, L)."""
    slab = VECTORS * lanes(weight.dtype)
    return empty(2 * _width(weight) // slab, rows, slab, like=weight)


def _signs(scale: torch.Tensor) -> torch.Tensor:
    """+1, or -1 where BN's scale is negative, as a column."""
    return torch.where(scale < 0, -1.0, 1.0).to(scale.dtype)[:, None]


def _halves(weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """[W1 ; W2 - W1], rows times a factor (C_out, 1): (2 C, C_in), padded with rows of zeros."""
    w_edge, w_centre = weight.chunk(2, dim=1)
    short = _width(weight) - weight.shape[0]
    parts = [F.pad(w * factor, (0, 0, 0, short)) for w in (w_edge, w_centre - w_edge)]
    return torch.cat(parts)


def _blocks(x: torch.Tensor) -> list[tuple[slice, slice]]:
    """Runs of clouds, and of their rows."""
    batch, num_points, _ = x.shape
    step = max(1, BLOCK_ROWS // num_points)
    runs = [(b, min(batch, b + step)) for b in range(0, batch, step)]
    return [(slice(b, e), slice(b * num_points, e * num_points)) for b, e in runs]


def _far(centres: torch.Tensor, weight: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """W2 c_b (B, C) in double precision and in the sign of the rows."""
    w_centre = (weight.chunk(2, dim=1)[1] * sign).double()
    far = centres.double() @ w_centre.T
    return _pad(far, weight)


def _pad(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Zeros behind the channels, up to whole slabs."""
    return F.pad(x, (0, _width(weight) - weight.shape[0]))


def forward(
    x: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    running: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
    world: World,
    out: torch.Tensor | None,
) -> tuple[torch.Tensor, Batch]:
    """y and what the backward pass needs; with batch statistics unless `running` ones are given."""
    batch, num_points, k = index.shape
    rows, width = batch * num_points, _width(weight)
    use_torch_threads()
    near = joined_neighbours(index)
    sign = _signs(scale)
    centres = x.mean(dim=1)
    uv = _slabs(rows, weight)
    rows_product(x, panels_of(_halves(weight, sign).T), uv, centres)
    y = _output(batch, num_points, weight, out, like=x)
    y_flat, y_step = flat_rows(y, VECTORS)
    rank = np.empty(rows * width, _rank_type(k))
    blocks = -(-num_points // kernels.ROWS)
    parts = empty(batch * blocks, 3, width, like=x)
    kernels.extremes(
        *(flat(uv), near.reshape(-1), k, num_points, width),
        *(y_flat, y_step, rank, flat(parts), uv.shape[2]),
    )
    # At a scale of zero all neighbours tie, whatever u is: the first one it is.
    without = flat(_pad(scale, weight)).reshape(-1, uv.shape[2]) == 0
    rank.reshape(-1, *uv.shape[1:]).transpose(0, 2, 1)[without] = 0
    far = _far(centres, weight, sign)
    origin, edges = centres.double().mean(0), float(rows * k)
    if running is None:
        mean, var = _combine(parts.view(batch, blocks, 3, width), far, num_points, k)
        # Clouds have equally many edges, so that one exchange serves both means.
        mean, var, edges = world.moments(
            torch.cat([mean, origin]), torch.cat([var, torch.zeros_like(origin)]), edges
        )
        mean, origin, var = mean[:width], mean[width:], var[:width]
    else:
        mean, var = _pad(running[0].double() * sign[:, 0], weight), _pad(running[1], weight)
    slope = _pad(scale.abs(), weight).double() * torch.rsqrt(var.double() + eps)
    shift = (far - mean) * slope + _pad(bias, weight)
    kernels.activate(
        *(y_flat, y_step, rows, num_points),
        *(flat(slope.to(x.dtype)), flat(shift.to(x.dtype)), lanes(x.dtype)),
    )
    places = [torch.from_numpy(numbers) for numbers in (near, rank)]
    number = torch.tensor(edges, dtype=torch.float64)
    saved = Batch(centres, uv, places[0], places[1], mean, var.double(), origin, number)
    return _cut(y, weight, out), saved


def _rank_type(k: int) -> type[np.unsignedinteger]:
    return np.uint8 if k <= 1 << 8 else np.uint16 if k <= 1 << 16 else np.uint32


def _output(
    batch: int, num_points: int, weight: torch.Tensor, out: torch.Tensor | None, like: torch.Tensor
) -> torch.Tensor:
    """Where kernels write y: `out` itself where its channels are whole slabs."""
    width = _width(weight)
    if out is not None and width == weight.shape[0] and out.dtype == like.dtype:
        return out
    return empty(batch, num_points, width, like=like)


def _cut(y: torch.Tensor, weight: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """y without the padding, in `out` if that is given."""
    if out is None:
        whole = y.shape[2] == weight.shape[0]
        return y if whole else y[..., : weight.shape[0]].contiguous()
    if out is not y:
        out.copy_(y[..., : weight.shape[0]])
    return out


def _combine(
    parts: torch.Tensor, far: torch.Tensor, num_points: int, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance (C,) of all edges from the sums (B, blocks, 3, C) of the blocks."""
    batch, blocks = parts.shape[:2]
    count = torch.full((blocks, 1), kernels.ROWS * k, dtype=torch.float64)
    count[-1] = (num_points - (blocks - 1) * kernels.ROWS) * k
    origin, total, squares = parts.double().unbind(2)
    edges = batch * num_points * k
    means = origin + total / count + far[:, None]
    mean = (means * count).sum((0, 1)) / edges
    within = squares - total.square() / count
    var = (within + count * (means - mean).square()).sum((0, 1)) / edges
    return mean, var.clamp_min(0)


def backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    eps: float,
    world: World | None,
    saved: Batch,
    needs_x: bool,
    half: bool,
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, W, BN's scale and its bias; `world` is None without batch statistics.

    With `half` the products are of bf16 numbers.
    """
    use_torch_threads()
    batch, num_points, channels = y.shape
    near, rows = saved.near.numpy(), len(saved.near)
    sign, width, slab = _signs(scale), _width(weight), saved.uv.shape[2]
    blocks = batch * -(-num_points // kernels.ROWS)
    start, who, which = reversed_neighbours(near, num_points)
    mean = flat((saved.mean - _far(saved.centres, weight, sign)).to(y.dtype))
    uv, duv = saved.uv, _slabs(rows, weight)
    of_v, of_u = empty(blocks, 2, width, like=y), empty(blocks, width, like=y)
    kernels.through_activation(
        *(*flat_rows(grad.to(y.dtype), VECTORS), *flat_rows(y, VECTORS)),
        *(flat(uv), num_points, width, mean, flat(duv), flat(of_v), slab),
    )
    kernels.collect(
        *(saved.rank.numpy(), start, who, which, flat(uv), num_points, width),
        *(flat(duv), flat(of_u), slab),
    )
    inverse = torch.rsqrt(saved.var + eps)
    sums = of_v.double().sum(0)
    # sum of gradients times u - and v less the mean: together, xhat where the extremes are
    sums[1] = inverse * (sums[1] + of_u.double().sum(0))
    factor = _pad(scale.abs(), weight).double() * inverse
    everywhere = world.sum(sums) if world else sums
    through_mean = factor / saved.edges * everywhere[0]
    through_var = factor / saved.edges * inverse * everywhere[1]
    factors = torch.stack([factor, through_mean, through_var]).to(y.dtype)
    kernels.finish(
        *(near.reshape(-1), start, who, flat(uv), num_points, width),
        *(mean, flat(factors), world is not None, flat(duv), flat(of_u), slab),
    )
    # Before the gradient of x, which then takes the memory that this has needed.
    of_clouds = of_u.double().view(batch, -1, width).sum(1)[:, :channels]
    origin = saved.origin if world else None
    rounded = rows_of(duv, torch.bfloat16) if half else duv
    grad_weight = _grad_weight(rounded, x, saved.centres, of_clouds, origin) * sign
    grad_x = None
    if needs_x:
        halves = _halves(weight, sign)
        if half:
            grad_x = (rounded @ halves.bfloat16()).to(y.dtype)
        else:
            grad_x = slab_rows_product(duv, panels_of(halves), empty(rows, x.shape[2], like=y))
        grad_x = grad_x.view(batch, num_points, -1)
    return grad_x, grad_weight, _first(sums[1], y) * sign[:, 0], _first(sums[0], y)


def _first(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x[: y.shape[2]].to(y.dtype)


def _grad_weight(
    duv: torch.Tensor,
    x: torch.Tensor,
    centres: torch.Tensor,
    of_clouds: torch.Tensor,
    origin: torch.Tensor | None,
) -> torch.Tensor:
    """Gradient of W (C_out, 2 C_in), from sums of dv over each cloud (B, C_out).

    `duv` is in slabs, or in rows if it is of bf16 numbers.
    """
    channels = of_clouds.shape[1]
    if duv.dtype == torch.bfloat16:
        centred = (x - centres[:, None]).bfloat16().flatten(0, 1)
        product = (duv.T @ centred).to(x.dtype)
    else:
        product = slab_columns_product(duv, x, centres)
    width = product.shape[0] // 2
    of_u, of_v = product[:channels], product[width : width + channels]
    centres = centres.double()
    if origin is not None:
        # Over the clouds of all processes dv adds up to zero, so the origin may move; a far one
        # would lose digits.
        centres = centres - origin
    return torch.cat([of_u - of_v, of_v + (of_clouds.T @ centres).to(of_v.dtype)], dim=1)


def evaluate(
    x: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    out: torch.Tensor | None,
) -> torch.Tensor:
    """y with BN given as a scale and a shift (C_out,) in double precision; nothing is kept."""
    use_torch_threads()
    batch, num_points, k = index.shape
    near = joined_neighbours(index)
    y = _output(batch, num_points, weight, out, like=x)
    halves = panels_of(_halves(weight, scale[:, None].to(weight.dtype)).T)
    blocks, slab = _blocks(x), VECTORS * lanes(x.dtype)
    room = flat(_slabs(blocks[0][1].stop, weight))
    for clouds, part in blocks:
        rows, centres = part.stop - part.start, x[clouds].mean(dim=1)
        uv = torch.from_numpy(room[: 2 * y.shape[2] * rows]).view(-1, rows, slab)
        rows_product(x[clouds], halves, uv, centres)
        far = _far(centres, weight, scale[:, None]) + _pad(shift, weight)
        y_flat, y_step = flat_rows(y[clouds], VECTORS)
        kernels.evaluate(
            *(flat(uv), (near[part] - part.start).reshape(-1), k, num_points),
            *(flat(far.to(x.dtype)), y_flat, y_step, slab),
        )
    return _cut(y, weight, out)
