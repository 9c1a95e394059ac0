"""Stage 4, processor kernels of `pixcloud.ops.edge_pairs`: the same numbers, point by point.

The k edges of one point, (k, C) values, fit the first-level cache: they are built there, multiplied
and reduced, and nothing of the size of the edges is ever in memory. Clouds are joined: M = B N
points. Points go in runs of a fixed length, each of which is done by one thread in order and has
sums of its own, added up in order at the end: so the result is the same for any number of threads.
Sums are in the numbers' own type over the edges of some points, in double precision beyond.

Shape legend: M points, N points of a cloud, k neighbours, C channels in, D channels out (both
multiples of 16), `rows` k rounded up to a multiple of 4; matrices that `tile` reads are flat.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F

from pixcloud.ops.threads_cpu import use_torch_threads
from pixcloud.ops.tile_cpu import TILE_COLUMNS, TILE_ROWS, tile

# Infinite and missing values keep their meaning.
FLAGS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz"},
}
RUN = 32  # points of one run in the forward pass
FLUSH = 16  # points between two additions in double precision in the backward pass
SEGMENTS = 16  # runs of the backward pass, each with an array (N, C) to scatter to; at least B


@numba.njit(**FLAGS)
def _build(
    p: np.ndarray,
    q: np.ndarray,
    index: np.ndarray,
    point: int,
    first: int,
    centre: np.ndarray,
    a: np.ndarray,
) -> None:
    """a[r, c] = LeakyReLU(p[j, c] + q[point, c], 0.2) - centre[c] of its neighbours j."""
    channels = p.shape[1]
    slope = p.dtype.type(0.2)
    for r in range(index.shape[1]):
        j = first + index[point, r]
        for c in range(channels):
            y = p[j, c] + q[point, c]
            a[r, c] = (y if y > 0 else slope * y) - centre[c]


@numba.njit(**FLAGS)
def _multiply(a: np.ndarray, panels: np.ndarray, z: np.ndarray) -> None:
    """z (rows, out) = a (rows, channels) times a matrix (channels, out) that lies in panels."""
    rows, channels, out, step = *a.shape, z.shape[1], TILE_COLUMNS
    for column in range(0, out, step):
        panel = column * channels
        for r in range(0, rows, TILE_ROWS):
            row, place = r * channels, r * out + column
            tile(a, row, channels, 1, panels, panel, step, channels, z, place, out, False)


@numba.njit(**FLAGS)
def _larger(value: float, row: int, largest: float, rank: int) -> tuple[float, int]:
    """The larger of two values and its row; what is no number is the largest, as for torch."""
    larger = (value > largest) | (value != value)
    return value if larger else largest, row if larger else rank


@numba.njit(**FLAGS)
def _reduce(
    z: np.ndarray, k: int, extreme: np.ndarray, rank: np.ndarray, squares: np.ndarray
) -> None:
    """Per column: the first largest value, its row, and the sum of squares."""
    for c in range(z.shape[1]):
        extreme[c] = z[0, c]
        rank[c] = 0
        squares[c] = z[0, c] * z[0, c]
    # Three rows at a time spare two thirds of the loads and stores of what is updated.
    for r in range(1, k - 2, 3):
        one, two, three = np.int32(r), np.int32(r + 1), np.int32(r + 2)
        for c in range(z.shape[1]):
            x, y, w = z[r, c], z[r + 1, c], z[r + 2, c]
            largest, where = _larger(x, one, extreme[c], rank[c])
            largest, where = _larger(y, two, largest, where)
            extreme[c], rank[c] = _larger(w, three, largest, where)
            squares[c] += x * x + y * y + w * w
    for r in range(1 + (k - 1) // 3 * 3, k):
        for c in range(z.shape[1]):
            extreme[c], rank[c] = _larger(z[r, c], np.int32(r), extreme[c], rank[c])
            squares[c] += z[r, c] * z[r, c]


@numba.njit(parallel=True, **FLAGS)
def sum_inputs(
    p: np.ndarray, q: np.ndarray, index: np.ndarray, cloud: int, sums: np.ndarray
) -> None:
    """Sums of a over the edges of each run: sums (runs, C) in double precision."""
    points, channels = p.shape
    slope = p.dtype.type(0.2)
    for run in numba.prange(sums.shape[0]):
        part = np.empty(channels, p.dtype)
        for point in range(run * RUN, min(points, run * RUN + RUN)):
            part[:] = 0
            first = point // cloud * cloud
            for r in range(index.shape[1]):
                j = first + index[point, r]
                for c in range(channels):
                    y = p[j, c] + q[point, c]
                    part[c] += y if y > 0 else slope * y
            for c in range(channels):
                sums[run, c] += part[c]


@numba.njit(parallel=True, **FLAGS)
def extremes(
    p: np.ndarray,
    q: np.ndarray,
    index: np.ndarray,
    cloud: int,
    panels: np.ndarray,
    centre: np.ndarray,
    extreme: np.ndarray,
    rank: np.ndarray,
    squares: np.ndarray,
) -> None:
    """Largest z = W (a - centre) of each point, which neighbour has it, and sums of squares.

    Args:
        p, q: (M, C).
        index: (M, k) places in the point's own cloud.
        cloud: N.
        panels: W in panels of 16 rows, flat.
        centre: (C,).
        extreme, rank: (M, D), to be filled.
        squares: (runs, D) zeros, in double precision, to be filled.
    """
    points, channels = p.shape
    k, out = index.shape[1], extreme.shape[1]
    rows = -(-k // TILE_ROWS) * TILE_ROWS
    for run in numba.prange(squares.shape[0]):
        a, z = np.zeros((rows, channels), p.dtype), np.empty((rows, out), p.dtype)
        part = np.empty(out, p.dtype)
        for point in range(run * RUN, min(points, run * RUN + RUN)):
            _build(p, q, index, point, point // cloud * cloud, centre, a)
            _multiply(a, panels, z)
            _reduce(z, k, extreme[point], rank[point], part)
            for c in range(out):
                squares[run, c] += part[c]


@numba.njit(**FLAGS)
def _add_gram(a: np.ndarray, gram: np.ndarray) -> None:
    """gram += a^T a, in tiles that reach the upper triangle; the rest stays as it is."""
    rows, channels = a.shape
    for i in range(0, channels, TILE_ROWS):
        for column in range(i // TILE_COLUMNS * TILE_COLUMNS, channels, TILE_COLUMNS):
            place = i * channels + column
            tile(a, i, 1, channels, a, column, channels, rows, gram, place, channels, True)


@numba.njit(**FLAGS)
def _add_chosen(
    a: np.ndarray,
    rank: np.ndarray,
    given: np.ndarray,
    weight: np.ndarray,
    grad: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """What comes through the extremes: to the edges that have them, and to W."""
    out, channels = weight.shape
    for d in range(out):
        edge, factor = rank[d], given[d]
        for c in range(channels):
            grad[edge, c] += factor * weight[d, c]
            chosen[d, c] += factor * a[edge, c]


@numba.njit(**FLAGS)
def _spread(
    p: np.ndarray,
    q: np.ndarray,
    index: np.ndarray,
    point: int,
    first: int,
    grad: np.ndarray,
    const: np.ndarray,
    grad_p: np.ndarray,
    grad_q: np.ndarray,
) -> None:
    """Through LeakyReLU to p_j, in the cloud's own array (N, C), and to q_i."""
    channels = p.shape[1]
    slope = p.dtype.type(0.2)
    for r in range(index.shape[1]):
        j = index[point, r]
        for c in range(channels):
            value = grad[r, c] + const[c]
            value = value if p[first + j, c] + q[point, c] > 0 else slope * value
            grad_p[j, c] += value
            grad_q[point, c] += value


@numba.njit(**FLAGS)
def _flush(part: np.ndarray, total: np.ndarray) -> None:
    """total += part, which begins anew."""
    for i in range(part.shape[0]):
        for j in range(part.shape[1]):
            total[i, j] += part[i, j]
            part[i, j] = 0


@numba.njit(parallel=True, **FLAGS)
def gradients(
    p: np.ndarray,
    q: np.ndarray,
    index: np.ndarray,
    parts: int,
    weight: np.ndarray,
    centre: np.ndarray,
    rank: np.ndarray,
    given: np.ndarray,
    dense: np.ndarray,
    const: np.ndarray,
    grad_p: np.ndarray,
    grad_q: np.ndarray,
    chosen: np.ndarray,
    gram: np.ndarray,
) -> None:
    """Gradients from those of the extremes and, through the statistics, of every edge.

    Args:
        p, q: (M, C).
        index: (M, k) places in the point's own cloud.
        parts: runs into which each cloud is cut.
        weight: (D, C), W.
        centre: (C,).
        rank: (M, D), which neighbour has the extreme.
        given: (M, D), gradients of the extremes.
        dense: the matrix K (C, C) in panels, flat; empty without statistics.
        const: (C,), what every edge gets beside K a.
        grad_p: (B parts, N, C) zeros, to be filled; the sum over the parts is the gradient.
        grad_q: (M, C) zeros, to be filled.
        chosen: (B parts, D, C) zeros, in double precision: the gradient of W through the extremes.
        gram: (B parts, C, C) zeros, in double precision: upper triangles of a^T a.
    """
    channels, k, cloud = p.shape[1], index.shape[1], grad_p.shape[1]
    rows = -(-k // TILE_ROWS) * TILE_ROWS
    length = -(-cloud // parts)
    for segment in numba.prange(grad_p.shape[0]):
        first, start = segment // parts * cloud, segment % parts * length
        a, grad = np.zeros((rows, channels), p.dtype), np.zeros((rows, channels), p.dtype)
        some_chosen = np.zeros(weight.shape, p.dtype)
        some_gram = np.zeros((channels, channels), p.dtype)
        stop = min(cloud, start + length)
        for place in range(start, stop):
            point = first + place
            _build(p, q, index, point, first, centre, a)
            if dense.size:
                _multiply(a, dense, grad)
                _add_gram(a, some_gram)
            else:
                grad[:] = 0
            _add_chosen(a, rank[point], given[point], weight, grad, some_chosen)
            _spread(p, q, index, point, first, grad, const, grad_p[segment], grad_q)
            if (place - start) % FLUSH == FLUSH - 1 or place == stop - 1:
                _flush(some_chosen, chosen[segment])
                _flush(some_gram, gram[segment])


def mean_input(p: torch.Tensor, q: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Mean of a over all edges, (C,)."""
    use_torch_threads()
    batch, num_points, channels = p.shape
    sums = np.zeros((-(-batch * num_points // RUN), channels))
    sum_inputs(_rows(p), _rows(q), _rows(index), num_points, sums)
    return torch.from_numpy(sums.sum(0) / index.numel()).to(p.dtype)


def forward(
    p: torch.Tensor,
    q: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    sign: torch.Tensor,
    centre: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Extremes of W (a - centre), which neighbour has them, and sums of squares over all edges."""
    use_torch_threads()
    batch, num_points, out = *p.shape[:2], weight.shape[0]
    # The minimum is the maximum for the negated row of W.
    signed = _padded(_padded(weight * sign[:, None], 1), 0)
    p, q, centre = _padded(p, 2), _padded(q, 2), _padded(centre, 0)
    extreme = p.new_empty(batch, num_points, signed.shape[0])
    rank = torch.empty(extreme.shape, dtype=torch.int32)
    squares = np.zeros((-(-batch * num_points // RUN), signed.shape[0]))
    extremes(
        *(_rows(p), _rows(q), _rows(index), num_points, _panels(signed.T), _numbers(centre)),
        *(_rows(extreme), _rows(rank), squares),
    )
    total = torch.from_numpy(squares.sum(0)).to(p.dtype)
    return extreme[..., :out] * sign, rank[..., :out], total[:out]


def backward(
    p: torch.Tensor,
    q: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    centre: torch.Tensor,
    rank: torch.Tensor,
    grad_extreme: torch.Tensor,
    slope: torch.Tensor | None,
    const: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of p and q, that of W through the extremes, and the sum of ~a ~a^T."""
    use_torch_threads()
    out, channels = weight.shape
    p, q, weight, centre = _padded(p, 2), _padded(q, 2), _padded(weight, 1), _padded(centre, 0)
    batch, num_points, width = p.shape
    parts = max(1, min(num_points, SEGMENTS // batch))
    grad_p, grad_q = p.new_zeros(batch * parts, num_points, width), torch.zeros_like(q)
    chosen, gram = (np.zeros((batch * parts, size, width)) for size in (out, width))
    dense, constant = p.new_empty(0), p.new_zeros(width)
    if slope is not None and const is not None:
        dense, constant = weight.T @ (slope[:, None] * weight), const @ weight
    gradients(
        *(_rows(p), _rows(q), _rows(index), parts, _numbers(weight), _numbers(centre)),
        *(_rows(rank), _rows(grad_extreme), _panels(dense), _numbers(constant)),
        *(_numbers(grad_p), _rows(grad_q), chosen, gram),
    )
    of_p = grad_p.view(batch, parts, num_points, width).sum(1)[..., :channels]
    of_weight = torch.from_numpy(chosen.sum(0)).to(p.dtype)[:, :channels]
    upper = torch.from_numpy(gram.sum(0)).to(p.dtype)
    whole = upper.triu() + upper.triu(1).T
    return of_p, grad_q[..., :channels], of_weight, whole[:channels, :channels]


def _padded(x: torch.Tensor, axis: int) -> torch.Tensor:
    """x with zeros behind, so that the length of the axis is a multiple of 16."""
    short = -x.shape[axis] % TILE_COLUMNS
    return F.pad(x, (0, 0) * (x.dim() - 1 - axis) + (0, short)) if short else x


def _panels(matrix: torch.Tensor) -> np.ndarray:
    """A matrix (inner, out) as out / 16 matrices (inner, 16) one after the other, flat."""
    if not matrix.numel():
        return _numbers(matrix)
    split = matrix.reshape(matrix.shape[0], -1, TILE_COLUMNS)
    return _numbers(split.transpose(0, 1).reshape(-1))


def _rows(x: torch.Tensor) -> np.ndarray:
    """(B, N, C) as (B N, C)."""
    return _numbers(x.flatten(0, 1))


def _numbers(x: torch.Tensor) -> np.ndarray:
    numbers: np.ndarray = x.detach().contiguous().numpy()
    return numbers
