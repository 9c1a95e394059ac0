"""Stage 4, processor kernels of `pixcloud.ops.edge_conv`: passes over points and their neighbours.

Clouds are joined: M = B N rows. The sign of BN's scale is folded into u and v, so that an extreme
is always a maximum. They lie in slabs of L channels, uv (2 S, M, L), those of u before those of v:
what is gathered for one slab of one cloud, 256 KiB of 2048 points, stays in the second-level cache,
where whole rows of many channels would not. A slab is as wide as a pair of vectors, and a pair is
one value in the loops (`load_pair`). Every row of results is written by one thread, and sums are
kept per block of rows of one cloud, to be added up in order: results do not depend on the number of
threads. Arrays are flat (`lanes_cpu`).

Shape legend: M rows, N points of a cloud, k neighbours, C = S L channels in S slabs; blocks of ROWS
rows per cloud.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from pixcloud.ops.lanes_cpu import (
    FLAGS,
    larger,
    load,
    load_pair,
    load_whole,
    missing,
    positive,
    repeat,
    repeat_whole,
    same,
    store,
    where,
)

ROWS = 64  # rows of a block, whose sums are in the numbers' own type


@numba.njit(**FLAGS)
def _tasks(points: int, cloud: int, slabs: int) -> int:
    """Blocks of all slabs of all clouds. A thread takes a run of them, so it stays at one slab."""
    return points // cloud * slabs * -(-cloud // ROWS)


@numba.njit(**FLAGS)
def _task(task: int, cloud: int, slabs: int) -> tuple[int, int, int, int, int]:
    """Which cloud, slab and block a task is of, and the block's first and last row."""
    blocks = -(-cloud // ROWS)
    b, s, n = task // (slabs * blocks), task // blocks % slabs, task % blocks
    first = b * cloud + n * ROWS
    return b, s, b * blocks + n, first, min(first + ROWS, b * cloud + cloud)


@numba.njit(**FLAGS)
def _extreme(
    uv: np.ndarray,
    near: np.ndarray,
    start: int,
    k: int,
    u_at: int,
    slab: int,
    shift: Any,
    squares: Any,
) -> tuple[Any, Any, Any, Any]:
    """The maximum of one point's u, whose it is, the sum of u + shift, and more to the squares."""
    best = load_pair(uv, near[start] * slab + u_at)
    place, total = repeat_whole(0, best), repeat(0, best)
    for r in range(k):
        u = load_pair(uv, near[start + r] * slab + u_at)
        above = larger(u, best)
        best = where(above, u, best)
        place = where(above, repeat_whole(r, u), place)
        value = u + shift
        total = total + value
        squares = squares + value * value
    # A value that is no number is the largest, as it is for torch.
    return where(missing(total), total, best), place, total, squares


@numba.njit(parallel=True, **FLAGS)
def extremes(
    uv: np.ndarray,
    near: np.ndarray,
    k: int,
    cloud: int,
    channels: int,
    y: np.ndarray,
    y_step: int,
    rank: np.ndarray,
    parts: np.ndarray,
    slab: int,
) -> None:
    """max_j u_j + v_i, which neighbour has it (the first), and sums over all edges of a block.

    Args:
        uv: (2 S, M, L).
        near: (M k,), rows.
        k, cloud, channels: k, N, C.
        y: rows of C numbers, `y_step` apart, to be filled.
        y_step: see y.
        rank: (S, M, L), to be filled.
        parts: (B blocks, 3, C), to be filled: one value, and the sums of the differences from it
            and of their squares.
        slab: L.
    """
    points, slabs = near.shape[0] // k, channels // slab
    for task in numba.prange(_tasks(points, cloud, slabs)):
        _, s, block, first, last = _task(task, cloud, slabs)
        u_at, v_at = s * points * slab, (slabs + s) * points * slab
        part = block * 3 * channels + s * slab
        # One of the values is the origin of the sums: so close to all that no digits cancel.
        origin = load_pair(uv, near[first * k] * slab + u_at) + load_pair(uv, first * slab + v_at)
        total, squares = repeat(0, origin), repeat(0, origin)
        for i in range(first, last):
            v = load_pair(uv, i * slab + v_at)
            best, place, more, squares = _extreme(
                uv, near, i * k, k, u_at, slab, v - origin, squares
            )
            store(y, i * y_step + s * slab, best + v)
            store(rank, i * slab + u_at, place)
            total = total + more
        store(parts, part, origin)
        store(parts, part + channels, total)
        store(parts, part + 2 * channels, squares)


@numba.njit(**FLAGS)
def _leaky(value: Any) -> Any:
    return where(positive(value), value, value * repeat(0.2, value))


@numba.njit(parallel=True, **FLAGS)
def activate(
    y: np.ndarray,
    y_step: int,
    points: int,
    cloud: int,
    scale: np.ndarray,
    shift: np.ndarray,
    vector: int,
) -> None:
    """In place, y = LeakyReLU(scale y + shift, 0.2), with scale (C,) and shift (B, C)."""
    channels = scale.shape[0]
    for i in numba.prange(points):
        first = i // cloud * channels
        for c in range(0, channels, vector):
            value = load(y, i * y_step + c) * load(scale, c) + load(shift, first + c)
            store(y, i * y_step + c, _leaky(value))


@numba.njit(**FLAGS)
def _largest(uv: np.ndarray, near: np.ndarray, start: int, k: int, u_at: int, slab: int) -> Any:
    best = load_pair(uv, near[start] * slab + u_at)
    total = best
    for r in range(1, k):
        u = load_pair(uv, near[start + r] * slab + u_at)
        best = where(larger(u, best), u, best)
        total = total + u
    return where(missing(total), total, best)


@numba.njit(parallel=True, **FLAGS)
def evaluate(
    uv: np.ndarray,
    near: np.ndarray,
    k: int,
    cloud: int,
    shift: np.ndarray,
    y: np.ndarray,
    y_step: int,
    slab: int,
) -> None:
    """LeakyReLU(max_j u_j + v_i + shift, 0.2) where BN is folded into u and v already.

    Args:
        uv: (2 S, M, L).
        near: (M k,), rows.
        k, cloud: k, N.
        shift: (B, C).
        y: rows of C numbers, `y_step` apart, to be filled.
        y_step: see y.
        slab: L.
    """
    points = near.shape[0] // k
    channels = shift.shape[0] // (points // cloud)
    slabs = channels // slab
    for task in numba.prange(_tasks(points, cloud, slabs)):
        b, s, _, first, last = _task(task, cloud, slabs)
        u_at, v_at = s * points * slab, (slabs + s) * points * slab
        more = load_pair(shift, b * channels + s * slab)
        for i in range(first, last):
            value = _largest(uv, near, i * k, k, u_at, slab)
            value = value + load_pair(uv, i * slab + v_at) + more
            store(y, i * y_step + s * slab, _leaky(value))


@numba.njit(parallel=True, **FLAGS)
def through_activation(
    grad: np.ndarray,
    grad_step: int,
    y: np.ndarray,
    y_step: int,
    uv: np.ndarray,
    cloud: int,
    channels: int,
    mean: np.ndarray,
    duv: np.ndarray,
    parts: np.ndarray,
    slab: int,
) -> None:
    """Gradients before the activation into the second half of duv, and sums of them.

    Args:
        grad: gradients of y, rows of C numbers, `grad_step` apart.
        grad_step: see grad.
        y: outputs, rows of C numbers, `y_step` apart.
        y_step: see y.
        uv: (2 S, M, L).
        cloud, channels: N, C.
        mean: (B, C), mean of u + v.
        duv: (2 S, M, L), its second half to be filled.
        parts: (B blocks, 2, C), to be filled: sums of the gradients, and of them times v - mean.
        slab: L.
    """
    points, slabs = uv.shape[0] // (2 * channels), channels // slab
    for task in numba.prange(_tasks(points, cloud, slabs)):
        b, s, block, first, last = _task(task, cloud, slabs)
        low, v_at = s * slab, (slabs + s) * points * slab
        origin = load_pair(mean, b * channels + low)
        total, products = repeat(0, origin), repeat(0, origin)
        for i in range(first, last):
            g = load_pair(grad, i * grad_step + low)
            up = positive(load_pair(y, i * y_step + low))
            g = where(up, g, g * repeat(0.2, g))
            store(duv, i * slab + v_at, g)
            total = total + g
            products = products + g * (load_pair(uv, i * slab + v_at) - origin)
        store(parts, 2 * block * channels + low, total)
        store(parts, (2 * block + 1) * channels + low, products)


@numba.njit(parallel=True, **FLAGS)
def collect(
    rank: np.ndarray,
    start: np.ndarray,
    who: np.ndarray,
    which: np.ndarray,
    uv: np.ndarray,
    cloud: int,
    channels: int,
    duv: np.ndarray,
    parts: np.ndarray,
    slab: int,
) -> None:
    """What reaches u through the maxima: sums over the points that chose it, in the first half.

    Args:
        rank: (S, M, L), which neighbour each point chose.
        start, who, which: from `adjacency_cpu.reverse`.
        uv: (2 S, M, L).
        cloud, channels: N, C.
        duv: (2 S, M, L): its first half is filled, from its second one.
        parts: (B blocks, C), to be filled: sums of the results times u.
        slab: L.
    """
    points, slabs = start.shape[0] - 1, channels // slab
    for task in numba.prange(_tasks(points, cloud, slabs)):
        _, s, block, first, last = _task(task, cloud, slabs)
        u_at, v_at = s * points * slab, (slabs + s) * points * slab
        products = repeat(0, load_pair(uv, u_at))
        for j in range(first, last):
            u = load_pair(uv, j * slab + u_at)
            total = repeat(0, u)
            for n in range(start[j], start[j + 1]):
                row = who[n] * slab
                g = load_pair(duv, row + v_at)
                here = same(load_whole(rank, row + u_at, g), repeat_whole(which[n], g))
                total = total + where(here, g, repeat(0, g))
            store(duv, j * slab + u_at, total)
            products = products + total * u
        store(parts, block * channels + s * slab, products)


@numba.njit(**FLAGS)
def _sum_rows(x: np.ndarray, rows: np.ndarray, low: int, high: int, step: int, place: int) -> Any:
    """Sum of the pairs at `place` of some rows of x, which are `step` apart."""
    total = repeat(0, load_pair(x, place))
    for n in range(low, high):
        total = total + load_pair(x, rows[n] * step + place)
    return total


@numba.njit(parallel=True, **FLAGS)
def finish(
    near: np.ndarray,
    start: np.ndarray,
    who: np.ndarray,
    uv: np.ndarray,
    cloud: int,
    channels: int,
    mean: np.ndarray,
    factors: np.ndarray,
    statistics: bool,
    duv: np.ndarray,
    parts: np.ndarray,
    slab: int,
) -> None:
    """In place, sums of gradients before the activation become gradients of u and v.

    With (f, a, b) the factors and e the values of the edges, dv_i = f dv_i - sum_j (a + b ~e_ij)
    over the neighbours, and du_j likewise over the points whose neighbour j is.

    Args:
        near: (M k,), rows.
        start, who: from `adjacency_cpu.reverse`.
        uv: (2 S, M, L).
        cloud, channels: N, C.
        mean: (B, C), mean of u + v.
        factors: (3, C).
        statistics: whether a and b count; they are those of batch statistics.
        duv: (2 S, M, L), changed in place.
        parts: (B blocks, C), to be filled: sums of dv.
        slab: L.
    """
    points, slabs = start.shape[0] - 1, channels // slab
    k = near.shape[0] // points
    for task in numba.prange(_tasks(points, cloud, slabs)):
        b, s, block, first, last = _task(task, cloud, slabs)
        u_at, v_at, c = s * points * slab, (slabs + s) * points * slab, s * slab
        f, origin = load_pair(factors, c), load_pair(mean, b * channels + c)
        each, slope = load_pair(factors, channels + c), load_pair(factors, 2 * channels + c)
        total = repeat(0, f)
        for i in range(first, last):
            low, high = start[i], start[i + 1]
            left, right = i * slab + u_at, i * slab + v_at
            du, dv = f * load_pair(duv, left), f * load_pair(duv, right)
            if statistics:
                of_u = _sum_rows(uv, near, i * k, i * k + k, slab, u_at)
                of_v = _sum_rows(uv, who, low, high, slab, v_at)
                of_u = of_u + repeat(k, f) * (load_pair(uv, right) - origin)
                of_v = of_v + repeat(high - low, f) * (load_pair(uv, left) - origin)
                dv = dv - repeat(k, f) * each - slope * of_u
                du = du - repeat(high - low, f) * each - slope * of_v
            store(duv, left, du)
            store(duv, right, dv)
            total = total + dv
        store(parts, block * channels + c, total)
