"""Stage 4, processor kernels of `pixcloud.ops.neighbours`: x (B, N, C) -> indices (B, M, k).

Nearest means of greatest score: -|q - x|^2 for few channels, which is exact even far from the
origin, and q . x - |x|^2 / 2 of centred points for many, which takes half the operations. Scores of
a block of rows, against a run of columns, lie in the second-level cache; `selection_cpu` picks the
k best of each row there.

Where there are clouds enough for all threads, a thread does a cloud: then the products of a block
of rows with the columns behind it are kept for the blocks behind it, which halves them. One row is
done by one thread in one order, and both ways give the same bits: the result is the same for any
number of threads.

Shape legend: B clouds, N points, M queries, C channels, P panels of W columns (P W >= N).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

from pixcloud.ops.buffers_cpu import room
from pixcloud.ops.selection_cpu import candidate_room, pick, scratch_for
from pixcloud.ops.threads_cpu import use_torch_threads
from pixcloud.ops.vector_cpu import LANES, TILE_BYTES, TILE_ROWS, WIDE, score_tile, turn_tile

FLAGS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz"},
}
DIRECT_CHANNELS = 8  # up to here differences are squared, beyond products are taken
# Queries whose scores are in the cache together; a multiple of a tile's rows, and of half of its
# columns.
BLOCK_ROWS = 48 if WIDE else 24
RUN_COLUMNS = 2048  # columns of one run
MIRROR_COLUMNS = 2048  # largest cloud of which half the scores are kept: 8 MiB in fp32
MIRROR_CHANNELS = 40  # from here on products cost more than keeping them


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
    num_queries = num_points if queries is None else queries.shape[1]
    out = np.empty((batch, num_queries, k), np.int64)
    if queries is not None:
        asked, _ = _panels(queries.contiguous().numpy(), centre, direct)
        _search(panels, start, asked, direct, out)
    elif _pays_to_mirror(batch, start.shape[1], channels):
        _search_mirrored(panels, start, _mirrors(start), out)
    else:
        _search(panels, start, panels, direct, out)
    return torch.from_numpy(out)


def _pays_to_mirror(batch: int, columns: int, channels: int) -> bool:
    """Whether every thread has about as many clouds, and a cloud is of the right size."""
    threads = numba.get_num_threads()
    evenly = batch % threads == 0 or batch >= 4 * threads
    return evenly and columns <= MIRROR_COLUMNS and channels >= MIRROR_CHANNELS


def _mirrors(start: np.ndarray) -> np.ndarray:
    """Room for the products of one cloud's rows for each thread; half of it is never touched."""
    columns = start.shape[1]
    # Behind the columns for the last block's rows, and so that rows begin in all places of caches.
    length = columns + BLOCK_ROWS + TILE_BYTES // start.itemsize
    return room((numba.get_num_threads(), columns, length), start.dtype)


def _panels(points: np.ndarray, centre: np.ndarray, direct: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points (B, N, C) as panels (B, P, C, W), and what scores of columns start with (B, P W)."""
    batch, num_points, channels = points.shape
    width = TILE_BYTES // points.itemsize
    columns = -(-num_points // LANES) * LANES
    panels = room((batch, columns // width, channels, width), points.dtype)
    start = np.empty((batch, columns), points.dtype)
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
        for w in range(width):
            inside = first + w < num_points
            start[b, first + w] = 0 if inside else -np.inf
            for c in range(channels):
                panels[b, p, c, w] = points[b, first + w, c] - centre[b, c] if inside else 0
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
    scores = _scores(run * width, panels)
    nothing = np.empty((0, 0), panels.dtype)
    # The candidates of each row, best first up to the number in `found`.
    values = np.empty((count, candidate_room(k)), panels.dtype)
    places = np.empty((count, candidate_room(k)), np.int64)
    found = np.zeros(count, np.int64)
    scratch = scratch_for(k, panels)
    for p in range(0, num_panels, run):
        ahead = min(run, num_panels - p)
        _score(rows, panels, start, p, p + ahead, direct, scores, 0, nothing)
        for r in range(count):
            found[r] = pick(
                *(scores[r, : ahead * width], p * width, k),
                *(values[r], places[r], found[r], scratch),
            )
    for r in range(count):
        for n in range(k):
            out[first + r, n] = places[r, n]


@numba.njit(parallel=True, **FLAGS)
def _search_mirrored(
    panels: np.ndarray, start: np.ndarray, mirrors: np.ndarray, out: np.ndarray
) -> None:
    """As `_search`, for queries that are the points, with half the products: a . b is b . a."""
    for n in numba.prange(len(mirrors)):
        for b in range(n, len(out), len(mirrors)):
            for first in range(0, out.shape[1], BLOCK_ROWS):
                _search_mirrored_block(panels[b], start[b], mirrors[n], first, out[b])


@numba.njit(**FLAGS)
def _search_mirrored_block(
    panels: np.ndarray, start: np.ndarray, mirror: np.ndarray, first: int, out: np.ndarray
) -> None:
    """Products with columns before this block are those of earlier blocks; its own are kept."""
    num_panels, width, k = panels.shape[0], panels.shape[2], out.shape[1]
    count = min(BLOCK_ROWS, len(out) - first)
    rows, begin = _rows(panels, first, count), first // width
    scores = _scores(num_panels * width, panels)
    for i in range(0, first, width // 2):
        for r in range(0, BLOCK_ROWS, width // 2):
            turn_tile(
                *(mirror, i * mirror.shape[1] + first + r, mirror.shape[1], start, i),
                *(scores, r * scores.shape[1] + i, scores.shape[1]),
            )
    # Nothing comes behind the last block.
    later = mirror[first:] if first + BLOCK_ROWS < len(out) else mirror[:0]
    _score(rows, panels, start, begin, num_panels, False, scores, begin * width, later)
    values = np.empty(candidate_room(k), panels.dtype)
    places = np.empty(candidate_room(k), np.int64)
    scratch = scratch_for(k, panels)
    for r in range(count):
        pick(scores[r, : len(start)], 0, k, values, places, 0, scratch)
        for n in range(k):
            out[first + r, n] = places[n]


@numba.njit(**FLAGS)
def _scores(columns: int, kind: np.ndarray) -> np.ndarray:
    """Scores of a block; rows a power of two apart would share a few places of the cache."""
    return np.empty((BLOCK_ROWS, columns + TILE_BYTES // kind.itemsize), kind.dtype)


@numba.njit(**FLAGS)
def _score(
    rows: np.ndarray,
    panels: np.ndarray,
    start: np.ndarray,
    begin: int,
    end: int,
    direct: bool,
    scores: np.ndarray,
    at: int,
    mirror: np.ndarray,
) -> None:
    """Scores of all rows of a block against panels from begin to end, from the column `at` on.

    If there is a mirror (BLOCK_ROWS or more, P W or more), its [r, j] gets the product alone of
    row r and column j.
    """
    channels, width, length = panels.shape[1], panels.shape[2], scores.shape[1]
    kept = mirror.shape[1]
    for p in range(begin, end):
        for g in range(len(rows)):
            score_tile(
                *(rows[g], panels[p], start, p * width, channels, direct),
                *(scores, g * TILE_ROWS * length + at, length),
                *(mirror, g * TILE_ROWS * kept + p * width, kept, len(mirror) > 0),
            )
        at += width


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
