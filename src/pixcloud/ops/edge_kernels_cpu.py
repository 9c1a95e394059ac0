"""Stage 4, processor kernels of `pixcloud.ops.edge_conv`: passes over points and their neighbours.

Clouds are joined: M = B N rows. u and v lie side by side in one matrix, uv (M, 2 C), with the sign
of BN's scale folded in, so that an extreme is always a maximum. Every row of results is written by
one thread, and sums are kept per block of rows of one cloud, to be added up in order: results do
not depend on the number of threads. C is a whole number of vectors; arrays are flat (`lanes_cpu`).

Shape legend: M rows, N points of a cloud, k neighbours, C channels; blocks of ROWS rows per cloud.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from pixcloud.ops.lanes_cpu import (
    FLAGS,
    larger,
    load,
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
def _block(block: int, cloud: int) -> tuple[int, int, int]:
    """Which cloud a block is of, and its first and last row."""
    blocks = -(-cloud // ROWS)
    b, low = block // blocks, block % blocks * ROWS
    return b, b * cloud + low, b * cloud + min(cloud, low + ROWS)


@numba.njit(**FLAGS)
def _extremes_of_row(
    uv: np.ndarray,
    near: np.ndarray,
    k: int,
    i: int,
    channels: int,
    y: np.ndarray,
    y_step: int,
    rank: np.ndarray,
    parts: np.ndarray,
    part: int,
    vector: int,
) -> None:
    width = 2 * channels
    for c in range(0, channels, vector):
        v = load(uv, i * width + channels + c)
        shift = v - load(parts, part + c)
        best = load(uv, near[i * k] * width + c)
        place, total = repeat_whole(0, best), repeat(0, best)
        squares = load(parts, part + 2 * channels + c)
        for r in range(k):
            u = load(uv, near[i * k + r] * width + c)
            above = larger(u, best)
            best = where(above, u, best)
            place = where(above, repeat_whole(r, u), place)
            value = u + shift
            total = total + value
            squares = squares + value * value
        # A value that is no number is the largest, as it is for torch.
        store(y, i * y_step + c, where(missing(total), total, best) + v)
        store(rank, i * channels + c, place)
        store(parts, part + channels + c, load(parts, part + channels + c) + total)
        store(parts, part + 2 * channels + c, squares)


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
    vector: int,
) -> None:
    """max_j u_j + v_i, which neighbour has it (the first), and sums over all edges of a block.

    Args:
        uv: (M, 2 C).
        near: (M k,), rows.
        k, cloud, channels: k, N, C.
        y: rows of C numbers, `y_step` apart, to be filled.
        y_step: see y.
        rank: (M, C), to be filled.
        parts: (B blocks, 3, C), to be filled: one value, and the sums of the differences from it
            and of their squares.
        vector: numbers in a vector.
    """
    for block in numba.prange(parts.shape[0] // (3 * channels)):
        _, first, last = _block(block, cloud)
        part = block * 3 * channels
        for c in range(0, channels, vector):
            # One of the values is the origin of the sums: so close to all that no digits cancel.
            u, v = load(uv, near[first * k] * 2 * channels + c), (2 * first + 1) * channels + c
            origin = u + load(uv, v)
            store(parts, part + c, origin)
            store(parts, part + channels + c, repeat(0, origin))
            store(parts, part + 2 * channels + c, repeat(0, origin))
        for i in range(first, last):
            _extremes_of_row(uv, near, k, i, channels, y, y_step, rank, parts, part, vector)


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
def _largest(uv: np.ndarray, near: np.ndarray, start: int, k: int, width: int, c: int) -> Any:
    best = load(uv, near[start] * width + c)
    total = best
    for r in range(1, k):
        u = load(uv, near[start + r] * width + c)
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
    vector: int,
) -> None:
    """LeakyReLU(max_j u_j + v_i + shift, 0.2) where BN is folded into u and v already.

    Args:
        uv: (M, 2 C).
        near: (M k,), rows.
        k, cloud: k, N.
        shift: (B, C).
        y: rows of C numbers, `y_step` apart, to be filled.
        y_step: see y.
        vector: numbers in a vector.
    """
    points = near.shape[0] // k
    channels = shift.shape[0] // (points // cloud)
    width = 2 * channels
    for i in numba.prange(points):
        first = i // cloud * channels
        for c in range(0, channels, vector):
            value = _largest(uv, near, i * k, k, width, c)
            value = value + load(uv, i * width + channels + c) + load(shift, first + c)
            store(y, i * y_step + c, _leaky(value))


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
    vector: int,
) -> None:
    """Gradients before the activation into the right half of duv, and sums of them.

    Args:
        grad: gradients of y, rows of C numbers, `grad_step` apart.
        grad_step: see grad.
        y: outputs, rows of C numbers, `y_step` apart.
        y_step: see y.
        uv: (M, 2 C).
        cloud, channels: N, C.
        mean: (B, C), mean of u + v.
        duv: (M, 2 C), its right half to be filled.
        parts: (B blocks, 2, C), to be filled: sums of the gradients, and of them times v - mean.
        vector: numbers in a vector.
    """
    for block in numba.prange(parts.shape[0] // (2 * channels)):
        b, first, last = _block(block, cloud)
        part = 2 * block * channels
        parts[part : part + 2 * channels] = 0
        for i in range(first, last):
            for c in range(0, channels, vector):
                g = load(grad, i * grad_step + c)
                up = positive(load(y, i * y_step + c))
                g = where(up, g, g * repeat(0.2, g))
                place = (2 * i + 1) * channels + c
                store(duv, place, g)
                apart = load(uv, place) - load(mean, b * channels + c)
                store(parts, part + c, load(parts, part + c) + g)
                products = load(parts, part + channels + c) + g * apart
                store(parts, part + channels + c, products)


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
    vector: int,
) -> None:
    """What reaches u through the maxima: sums over the points that chose it, in the left half.

    Args:
        rank: (M, C), which neighbour each point chose.
        start, who, which: from `adjacency_cpu.reverse`.
        uv: (M, 2 C).
        cloud, channels: N, C.
        duv: (M, 2 C): its left half is filled, from its right one.
        parts: (B blocks, C), to be filled: sums of the results times u.
        vector: numbers in a vector.
    """
    for block in numba.prange(parts.shape[0] // channels):
        _, first, last = _block(block, cloud)
        part = block * channels
        parts[part : part + channels] = 0
        for j in range(first, last):
            for c in range(0, channels, vector):
                u = load(uv, 2 * j * channels + c)
                total = repeat(0, u)
                for n in range(start[j], start[j + 1]):
                    i = who[n]
                    g = load(duv, (2 * i + 1) * channels + c)
                    chosen = load_whole(rank, i * channels + c, g)
                    here = same(chosen, repeat_whole(which[n], g))
                    total = total + where(here, g, repeat(0, g))
                store(duv, 2 * j * channels + c, total)
                store(parts, part + c, load(parts, part + c) + total * u)


@numba.njit(**FLAGS)
def _sum_rows(x: np.ndarray, rows: np.ndarray, low: int, high: int, step: int, place: int) -> Any:
    """Sum of the vectors at `place` of some rows of x, which are `step` apart."""
    total = repeat(0, load(x, place))
    for n in range(low, high):
        total = total + load(x, rows[n] * step + place)
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
    vector: int,
) -> None:
    """In place, sums of gradients before the activation become gradients of u and v.

    With (f, a, b) the factors and e the values of the edges, dv_i = f dv_i - sum_j (a + b ~e_ij)
    over the neighbours, and du_j likewise over the points whose neighbour j is.

    Args:
        near: (M k,), rows.
        start, who: from `adjacency_cpu.reverse`.
        uv: (M, 2 C).
        cloud, channels: N, C.
        mean: (B, C), mean of u + v.
        factors: (3, C).
        statistics: whether a and b count; they are those of batch statistics.
        duv: (M, 2 C), changed in place.
        parts: (B blocks, C), to be filled: sums of dv.
        vector: numbers in a vector.
    """
    k = near.shape[0] // (start.shape[0] - 1)
    width = 2 * channels
    for block in numba.prange(parts.shape[0] // channels):
        b, first, last = _block(block, cloud)
        part = block * channels
        parts[part : part + channels] = 0
        for i in range(first, last):
            low, high = start[i], start[i + 1]
            for c in range(0, channels, vector):
                f = load(factors, c)
                left, right = i * width + c, i * width + channels + c
                du, dv = f * load(duv, left), f * load(duv, right)
                if statistics:
                    each, slope = load(factors, channels + c), load(factors, 2 * channels + c)
                    origin = load(mean, b * channels + c)
                    of_u = _sum_rows(uv, near, i * k, i * k + k, width, c)
                    of_v = _sum_rows(uv, who, low, high, width, channels + c)
                    of_u = of_u + repeat(k, f) * (load(uv, right) - origin)
                    of_v = of_v + repeat(high - low, f) * (load(uv, left) - origin)
                    dv = dv - repeat(k, f) * each - slope * of_u
                    du = du - repeat(high - low, f) * each - slope * of_v
                store(duv, left, du)
                store(duv, right, dv)
                store(parts, part + c, load(parts, part + c) + dv)
