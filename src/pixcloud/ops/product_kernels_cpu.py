"""Stage 4, processor kernels of `products_cpu`: packing, and tiles of products from what is packed.

A tile is T by W numbers of a result, in registers while they are summed. What it reads is packed
before, rows as (steps, T) and panels of columns as (steps, W), so that it streams through the
caches. Rows lose an origin while they are packed. Each number is made by one thread in one order,
so that results do not depend on the number of threads.

Shape legend: M rows, K columns in, C columns out; T = PRODUCT_ROWS, W one or two vectors;
P panels (P W >= columns).
"""

from __future__ import annotations

import numba
import numpy as np

from pixcloud.ops.lanes_cpu import FLAGS, load, repeat, store
from pixcloud.ops.vector_cpu import PRODUCT_ROWS, product_tile

# Steps of a sum that are made in registers: so many rows of a panel stay in the first-level cache.
DEEP = 128
TILES = 16  # tiles of a block of rows: they are packed once for all panels


@numba.njit(**FLAGS)
def _pack_tiles(
    x: np.ndarray,
    step: int,
    leap: int,
    slab: int,
    first: int,
    count: int,
    cloud: int,
    origin: np.ndarray,
    columns: int,
    packed: np.ndarray,
) -> None:
    """Rows of x less their cloud's origin as tiles (tiles, K, T), zeros behind the last one."""
    for g in range(-(-count // PRODUCT_ROWS)):
        at, i = g * columns * PRODUCT_ROWS, first + g * PRODUCT_ROWS
        rows, of_cloud = min(PRODUCT_ROWS, first + count - i), i // cloud * columns
        if rows == PRODUCT_ROWS and (i + rows - 1) // cloud == i // cloud:
            for low in range(0, columns, slab):
                begin = low // slab * leap - low
                for c in range(low, min(columns, low + slab)):
                    centre = origin[of_cloud + c]
                    for r in range(PRODUCT_ROWS):
                        value = x[begin + (i + r) * step + c]
                        packed[at + c * PRODUCT_ROWS + r] = value - centre
            continue
        packed[at : at + columns * PRODUCT_ROWS] = 0
        for r in range(rows):
            of_cloud = (i + r) // cloud * columns
            for c in range(columns):
                value = x[c // slab * leap + (i + r) * step + c % slab]
                packed[at + c * PRODUCT_ROWS + r] = value - origin[of_cloud + c]


@numba.njit(parallel=True, **FLAGS)
def multiply_rows(
    x: np.ndarray,
    step: int,
    leap: int,
    slab: int,
    rows: int,
    cloud: int,
    origin: np.ndarray,
    panels: np.ndarray,
    out: np.ndarray,
    out_slab: int,
    columns: int,
) -> None:
    """out = (x - origin) W.

    Args:
        x: rows of K numbers, `step` apart; or of `slab` numbers, in slabs that are `leap` apart.
        step, leap, slab: see x.
        rows, cloud: M; rows that share an origin.
        origin: (M / cloud, K).
        panels: (P, K, W), panels of the right side, zeros beyond its columns.
        out: slabs of M rows of `out_slab` numbers, to be filled: (M, C) is one of them. A whole
            number of W, if there are more.
        out_slab, columns: see out; C.
    """
    count, deep, width = panels.shape
    right = panels.reshape(-1)
    block = TILES * PRODUCT_ROWS
    for task in numba.prange(-(-rows // block)):
        first, last = task * block, min(rows, task * block + block)
        packed = np.empty(block * deep, x.dtype)
        edge = np.empty(PRODUCT_ROWS * width, x.dtype)
        _pack_tiles(x, step, leap, slab, first, last - first, cloud, origin, deep, packed)
        for p in range(count):
            begin = p * width // out_slab * rows * out_slab + p * width % out_slab
            inside = p * width + width <= columns
            for low in range(0, deep, DEEP):
                steps, of_panel = min(DEEP, deep - low), (p * deep + low) * width
                for i in range(first, last, PRODUCT_ROWS):
                    left, at = (i - first) * deep + low * PRODUCT_ROWS, begin + i * out_slab
                    if i + PRODUCT_ROWS <= last and inside:
                        product_tile(
                            *(packed, left, PRODUCT_ROWS, right, of_panel, steps),
                            *(out, at, out_slab, low > 0),
                        )
                        continue
                    product_tile(
                        *(packed, left, PRODUCT_ROWS, right, of_panel, steps),
                        *(edge, 0, width, False),
                    )
                    for r in range(min(PRODUCT_ROWS, last - i)):
                        for c in range(min(width, columns - p * width)):
                            before = out[at + r * out_slab + c] if low > 0 else out.dtype.type(0)
                            out[at + r * out_slab + c] = before + edge[r * width + c]


@numba.njit(parallel=True, **FLAGS)
def pack_columns(
    x: np.ndarray,
    step: int,
    columns: int,
    cloud: int,
    origin: np.ndarray,
    chunks: np.ndarray,
    packed: np.ndarray,
    sums: np.ndarray,
    vector: int,
) -> None:
    """Chunks of rows less their cloud's origin as panels (P, rows, W), and sums of their columns.

    Args:
        x: rows of K numbers, `step` apart.
        step, columns, cloud: see x; K; rows that share an origin.
        origin: (M / cloud, K).
        chunks: (chunks, 2), the first row of each, and how many it has.
        packed: (chunks, P, most rows, W), to be filled; zeros beyond K.
        sums: (chunks, P W), to be filled.
        vector: numbers in a vector, of which W has one or two.
    """
    panels, most, width = packed.shape[1:]
    numbers, totals = packed.reshape(-1), sums.reshape(-1)
    for task in numba.prange(len(chunks) * panels):
        n, low = task // panels, task % panels * width
        first, count = chunks[n, 0], chunks[n, 1]
        of_cloud, begin = first // cloud * columns + low, task * most * width
        if low + width <= columns:
            for c in range(0, width, vector):
                centre = load(origin, of_cloud + c)
                total = repeat(0, centre)
                for i in range(count):
                    value = load(x, (first + i) * step + low + c) - centre
                    store(numbers, begin + i * width + c, value)
                    total = total + value
                store(totals, task * width + c, total)
        else:
            totals[task * width : task * width + width] = 0
            for i in range(count):
                at, row = begin + i * width, (first + i) * step + low
                numbers[at : at + width] = 0
                for c in range(columns - low):
                    value = x[row + c] - origin[of_cloud + c]
                    numbers[at + c] = value
                    totals[task * width + c] += value


@numba.njit(parallel=True, **FLAGS)
def multiply_columns(
    left: np.ndarray,
    places: np.ndarray,
    left_row: int,
    right: np.ndarray,
    chunks: np.ndarray,
    tasks: np.ndarray,
    out: np.ndarray,
) -> None:
    """out += left^T right over all rows of some chunks, as `pack_columns` has packed them.

    Args:
        left: flat; panels of W columns, with rows that are `left_row` apart.
        places: (chunks, P), where each panel begins.
        left_row: see left.
        right: (chunks, P', most rows, W).
        chunks: (chunks, 2), as for `pack_columns`.
        tasks: (tasks, 2), which panel of `left`, and which of `right`.
        out: (P W, P' W), changed in place.
    """
    others, most, width = right.shape[1:]
    length = out.shape[1]
    b, c = right.reshape(-1), out.reshape(-1)
    for task in numba.prange(len(tasks)):
        p, q = tasks[task, 0], tasks[task, 1]
        for n in range(len(chunks)):
            at, other = places[n, p], (n * others + q) * most * width
            for r in range(0, width, PRODUCT_ROWS):
                product_tile(
                    *(left, at + r, left_row, b, other, chunks[n, 1]),
                    *(c, (p * width + r) * length + q * width, length, True),
                )
