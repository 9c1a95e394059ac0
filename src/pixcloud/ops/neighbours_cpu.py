"""Stage 4, processor kernels of `pixcloud.ops.neighbours`: x (B, N, C) -> indices (B, M, k).

Nearest means of greatest score: -|q - x|^2 for few channels, which is exact even far from the
origin, and q . x - |x|^2 / 2 of centred points for many, which takes half the operations. Scores of
a few rows at a time, against a run of columns, lie in the second-level cache; of each row the few
that can be among the k best are picked out, and only these are sorted:

1. A lower bound of the k-th best score: columns are dealt to 64 or more lanes, and k lanes have a
   greatest score of at least the k-th greatest among the lanes.
2. Scores above it, as bits, 32 at a time; with random scores these are about 1.3 k.
3. The rank of each of them is the number of those before it.

Columns come in the order of their index, so that ties keep it. One row is done by one thread in one
order: the result is the same for any number of threads.

Shape legend: B clouds, N points, M queries, C channels, P panels of W columns (P W >= N).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

from pixcloud.ops.threads_cpu import use_torch_threads
from pixcloud.ops.vector_cpu import (
    LANES,
    MASK,
    TILE_BYTES,
    TILE_ROWS,
    above,
    at_least,
    count_bits,
    lane_extremes,
    lane_maxima,
    lowest_bit,
    score_tile,
)

FLAGS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz"},
}
DIRECT_CHANNELS = 8  # up to here differences are squared, beyond products are taken
BLOCK_ROWS = 24  # queries whose scores are in the cache together; a multiple of TILE_ROWS
RUN_COLUMNS = 2048  # columns of one run
PIECE_COLUMNS = 512  # columns between two looks at how many candidates there are
SPARE = 44  # candidates beyond k that are kept before they are sorted
FEW = 96  # candidates that are ranked; more are inserted one by one


def nearest(x: torch.Tensor, queries: torch.Tensor | None, k: int) -> torch.Tensor:
    """Indices (B, M, k) of the k nearest points of x (B, N, C) to each query (B, M, C).

    Args:
        x: finite numbers, fp32 or fp64, whose squares neither overflow nor vanish.
        queries: the same; None takes the points themselves.
        k: 1 <= k <= N.
    """
    use_torch_threads()
    points = x.contiguous().numpy()
    batch, num_points, channels = points.shape
    direct = channels <= DIRECT_CHANNELS
    centre = np.zeros((batch, channels), points.dtype)
    if not direct:
        _centre(points, centre)
    panels, start = _panels(points, centre, direct)
    asked, num_queries = panels, num_points
    if queries is not None:
        asked, _ = _panels(queries.contiguous().numpy(), centre, direct)
        num_queries = queries.shape[1]
    out = np.empty((batch, num_queries, k), np.int64)
    _search(panels, start, asked, direct, out)
    return torch.from_numpy(out)


def _panels(points: np.ndarray, centre: np.ndarray, direct: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points (B, N, C) as panels (B, P, C, W), and what scores of columns start with (B, P W)."""
    batch, num_points, channels = points.shape
    width = TILE_BYTES // points.itemsize
    columns = -(-num_points // LANES) * LANES
    panels = np.zeros((batch, columns // width, channels, width), points.dtype)
    start = np.full((batch, columns), -np.inf, points.dtype)
    _fill(points, centre, direct, panels, start)
    return panels, start


@numba.njit(**FLAGS)
def _centre(points: np.ndarray, centre: np.ndarray) -> None:
    """Mean of each cloud, summed in double precision."""
    batch, num_points, channels = points.shape
    for b in range(batch):
        total = np.zeros(channels)
        for j in range(num_points):
            for c in range(channels):
                total[c] += points[b, j, c]
        for c in range(channels):
            centre[b, c] = total[c] / num_points


@numba.njit(parallel=True, **FLAGS)
def _fill(
    points: np.ndarray,
    centre: np.ndarray,
    direct: bool,
    panels: np.ndarray,
    start: np.ndarray,
) -> None:
    """Panels of points minus centre; start -|x|^2 / 2, 0 for distances, -inf beyond the cloud."""
    batch, num_points, channels = points.shape
    num_panels, width = panels.shape[1], panels.shape[3]
    for t in numba.prange(batch * num_panels):
        b, p = t // num_panels, t % num_panels
        first = p * width
        for w in range(min(width, num_points - first)):
            start[b, first + w] = 0
            for c in range(channels):
                panels[b, p, c, w] = points[b, first + w, c] - centre[b, c]
        if not direct:
            for c in range(channels):
                for w in range(width):
                    value = panels[b, p, c, w]
                    start[b, first + w] -= value * value * points.dtype.type(0.5)


@numba.njit(parallel=True, **FLAGS)
def _search(
    panels: np.ndarray, start: np.ndarray, asked: np.ndarray, direct: bool, out: np.ndarray
) -> None:
    """The k best columns of every row."""
    blocks = (out.shape[1] + BLOCK_ROWS - 1) // BLOCK_ROWS
    for t in numba.prange(len(out) * blocks):
        b, first = t // blocks, t % blocks * BLOCK_ROWS
        _search_block(panels[b], start[b], asked[b], first, direct, out[b])


@numba.njit(**FLAGS)
def _search_block(
    panels: np.ndarray,
    start: np.ndarray,
    asked: np.ndarray,
    first: int,
    direct: bool,
    out: np.ndarray,
) -> None:
    """The k best columns of the rows of one block, which begins with `first`."""
    num_panels, width, k = panels.shape[0], panels.shape[2], out.shape[1]
    count = min(BLOCK_ROWS, len(out) - first)
    rows = _rows(asked, first, count)
    run = min(num_panels, RUN_COLUMNS // width)
    scores = np.empty((BLOCK_ROWS, run * width), panels.dtype)
    lanes = LANES
    while 2 * lanes < 3 * k:
        lanes *= 2
    # The candidates of each row, best first up to the number in `found`.
    room = k + SPARE + PIECE_COLUMNS + MASK
    values = np.empty((count, room), panels.dtype)
    places = np.empty((count, room), np.int64)
    found = np.zeros(count, np.int64)
    scratch = (
        np.empty(room, panels.dtype),
        np.empty(room, np.int64),
        np.empty(PIECE_COLUMNS // MASK + 1, np.uint32),
        np.empty(PIECE_COLUMNS // MASK + 1, np.int64),
        np.empty(lanes, panels.dtype),
    )
    for p in range(0, num_panels, run):
        ahead = min(run, num_panels - p)
        _score(rows, panels[p : p + ahead], start[p * width :], direct, scores)
        for r in range(count):
            found[r] = _pick(
                *(scores[r, : ahead * width], p * width, k),
                *(values[r], places[r], found[r], scratch),
            )
    for r in range(count):
        for n in range(k):
            out[first + r, n] = places[r, n]


@numba.njit(**FLAGS)
def _score(
    rows: np.ndarray, panels: np.ndarray, start: np.ndarray, direct: bool, scores: np.ndarray
) -> None:
    """Scores of all rows of a block against some panels."""
    channels, width, length = panels.shape[1], panels.shape[2], scores.shape[1]
    for p in range(len(panels)):
        for g in range(len(rows)):
            score_tile(
                *(rows[g], panels[p], start, p * width, channels, direct),
                *(scores, g * TILE_ROWS * length + p * width, length),
            )


@numba.njit(**FLAGS)
def _rows(asked: np.ndarray, first: int, count: int) -> np.ndarray:
    """Queries from `first` on as tiles (tiles, C, TILE_ROWS); rows beyond `count` are zero."""
    channels, width = asked.shape[1:]
    rows = np.zeros(((count + TILE_ROWS - 1) // TILE_ROWS, channels, TILE_ROWS), asked.dtype)
    for r in range(count):
        i = first + r
        for c in range(channels):
            rows[r // TILE_ROWS, c, r % TILE_ROWS] = asked[i // width, c, i % width]
    return rows


@numba.njit(**FLAGS)
def _pick(
    scores: np.ndarray,
    column: int,
    k: int,
    values: np.ndarray,
    places: np.ndarray,
    found: int,
    scratch: tuple[np.ndarray, ...],
) -> int:
    """Merge scores of the columns from `column` on into the `found` candidates, best first."""
    _, _, words, origins, maxima = scratch
    ranked = found
    bound = values[k - 1] if found >= k else _bound(scores, k, maxima)
    for piece in range(0, len(scores), PIECE_COLUMNS):
        filled = 0
        for s in range(piece, min(piece + PIECE_COLUMNS, len(scores)), MASK):
            words[filled], origins[filled] = above(scores, s, bound), s
            filled += words[filled] != 0
        n = 0
        word = words[0]
        # Not a loop over words around a loop over bits: its ends could not be foreseen.
        while n < filled:
            s = origins[n] + lowest_bit(word)
            values[found], places[found] = scores[s], column + s
            found += 1
            word &= word - np.uint32(1)
            done = word == 0
            n += done
            word = words[n] if done else word
        if found > k + SPARE:
            found = _best(values, places, found, k, scratch)
            ranked, bound = found, values[k - 1]
    if found > ranked:
        found = _best(values, places, found, k, scratch)
    return found


@numba.njit(**FLAGS)
def _bound(scores: np.ndarray, k: int, maxima: np.ndarray) -> Any:
    """A number below the k-th greatest score, and below no more of the others than need be."""
    kind = scores.dtype.type
    lanes = len(maxima)
    if 2 * lanes > len(scores):
        return kind(-np.inf)
    high, low = kind(-np.inf), kind(np.inf)
    for lane in range(0, lanes, LANES):
        lane_maxima(scores, lane, lanes, len(scores) // lanes, maxima, lane)
        top, bottom = lane_extremes(maxima, lane)
        high, low = max(high, top), min(low, bottom)
    count = _count(maxima, low)
    if count < k:
        return kind(-np.inf)
    for _ in range(12):
        if count <= k + k // 4:
            break
        middle = kind(0.5) * (low + high)
        above_middle = _count(maxima, middle)
        if above_middle >= k:
            low, count = middle, above_middle
        else:
            high = middle
    return np.nextafter(low, kind(-np.inf))


@numba.njit(**FLAGS)
def _count(numbers: np.ndarray, bound: Any) -> int:
    count = 0
    for at in range(0, len(numbers), MASK):
        count += count_bits(at_least(numbers, at, bound))
    return count


@numba.njit(**FLAGS)
def _best(
    values: np.ndarray,
    places: np.ndarray,
    found: int,
    k: int,
    scratch: tuple[np.ndarray, ...],
) -> int:
    """Sort candidates, which stand in the order of their index, by score; keep the first k."""
    if found > FEW:
        return _insert(values, places, found, k)
    spare_values, spare_places = scratch[0], scratch[1]
    for n in range(found, (found + MASK - 1) // MASK * MASK):
        values[n] = -np.inf
    for n in range(found):
        rank = 0
        for at in range(0, found, MASK):
            greater, equal_too = above(values, at, values[n]), at_least(values, at, values[n])
            if at + MASK <= n:
                greater = equal_too
            elif at <= n:
                earlier = (np.uint32(1) << np.uint32(n - at)) - np.uint32(1)
                greater |= equal_too & earlier
            rank += count_bits(greater)
        spare_values[rank], spare_places[rank] = values[n], places[n]
    kept = min(found, k)
    for n in range(kept):
        values[n], places[n] = spare_values[n], spare_places[n]
    return kept


@numba.njit(**FLAGS)
def _insert(values: np.ndarray, places: np.ndarray, found: int, k: int) -> int:
    """The same for many candidates, in place; cheap where most of them tie."""
    kept = 0
    for n in range(found):
        value, place = values[n], places[n]
        if kept < k:
            at = kept
            kept += 1
        elif value > values[k - 1]:
            at = k - 1
        else:
            continue
        while at > 0 and values[at - 1] < value:
            values[at], places[at] = values[at - 1], places[at - 1]
            at -= 1
        values[at], places[at] = value, place
    return kept
