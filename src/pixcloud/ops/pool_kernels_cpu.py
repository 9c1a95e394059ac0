"""Stage 4, processor kernels of `pixcloud.ops.linear_pool`: passes over h (M, C) = x W^T.

Rows of h lie one after the other, M = B N of them, with the sign of BN's scale folded in, so that
an extreme is always a maximum. Passes go along the rows, a few rows at a time, and keep their sums
per channel in the first-level cache. Each sum is made by one thread in one order, so that results
do not depend on the number of threads. C is a whole number of vectors; arrays are flat.

Shape legend: B clouds, N points, M = B N rows, C channels.
"""

from __future__ import annotations

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
    store,
    where,
)

ROWS = 128  # rows of a block of the statistics
GROUP = 8  # rows whose sums stay in registers
PANEL = 256  # channels of a task of the pooling


@numba.njit(parallel=True, **FLAGS)
def statistics(h: np.ndarray, rows: int, channels: int, parts: np.ndarray, vector: int) -> None:
    """Sums over blocks of rows, for mean and variance.

    Args:
        h: (M, C).
        rows, channels: M, C.
        parts: (blocks, 3, C), to be filled: a block's first row, and the sums of the differences
            from it and of their squares.
        vector: numbers in a vector.
    """
    for block in numba.prange(-(-rows // ROWS)):
        first, last = block * ROWS, min(rows, block * ROWS + ROWS)
        place = block * 3 * channels
        for c in range(0, channels, vector):
            origin = load(h, first * channels + c)
            store(parts, place + c, origin)
            store(parts, place + channels + c, origin - origin)
            store(parts, place + 2 * channels + c, origin - origin)
        for start in range(first, last, GROUP):
            stop = min(last, start + GROUP)
            for c in range(0, channels, vector):
                origin = load(parts, place + c)
                total = load(parts, place + channels + c)
                squares = load(parts, place + 2 * channels + c)
                for i in range(start, stop):
                    value = load(h, i * channels + c) - origin
                    total = total + value
                    squares = squares + value * value
                store(parts, place + channels + c, total)
                store(parts, place + 2 * channels + c, squares)


@numba.njit(**FLAGS)
def _pool_group(
    h: np.ndarray,
    start: int,
    stop: int,
    first: int,
    channels: int,
    c: int,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    best: np.ndarray,
    place: np.ndarray,
    sums: np.ndarray,
    at: int,
) -> None:
    """A few rows of one vector of channels, at `at` of best and place, and of sums (3, C)."""
    width = best.shape[0]
    factor, offset, centre = load(scale, c), load(shift, c), load(mean, c)
    top = load(best, at)
    point = load_whole(place, at, top)
    total, slopes, products = repeat(0, top), repeat(0, top), repeat(0, top)
    for i in range(start, stop):
        value = load(h, i * channels + c)
        above = larger(value, top)
        top = where(above, value, top)
        point = where(above, repeat_whole(i - first, value), point)
        z = value * factor + offset
        slope = where(positive(z), repeat(1, z), repeat(0.2, z))
        total = total + slope * z
        slopes = slopes + slope
        products = products + slope * (value - centre)
    store(best, at, top)
    store(place, at, point)
    store(sums, at, load(sums, at) + total)
    store(sums, width + at, load(sums, width + at) + slopes)
    store(sums, 2 * width + at, load(sums, 2 * width + at) + products)


@numba.njit(parallel=True, **FLAGS)
def pool(
    h: np.ndarray,
    cloud: int,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    best: np.ndarray,
    place: np.ndarray,
    sums: np.ndarray,
    vector: int,
) -> None:
    """Over the points of each cloud: the maximum of h, the first point that has it, and sums.

    With z = scale h + shift and s = 1 where z > 0, 0.2 elsewhere.

    Args:
        h: (M, C).
        cloud: N.
        scale, shift, mean: (C,).
        best: (B, C), to be filled: the maximum of h.
        place: (B, C) uint32, to be filled: which point has it.
        sums: (3, B, C), to be filled: sums of s z, which is LeakyReLU(z, 0.2), of s, and of
            s (h - mean).
        vector: numbers in a vector.
    """
    clouds, channels = best.shape
    panels = -(-channels // PANEL)
    for task in numba.prange(clouds * panels):
        b, low = task // panels, task % panels * PANEL
        high = min(channels, low + PANEL)
        first, last = b * cloud, b * cloud + cloud
        top = h[first * channels + low : first * channels + high].copy()
        point = np.zeros(high - low, np.uint32)
        of_panel, of_group = np.zeros((3, high - low)), np.zeros(3 * (high - low), h.dtype)
        for block in range(first, last, ROWS):
            end = min(last, block + ROWS)
            of_group[:] = 0
            for start in range(block, end, GROUP):
                stop = min(end, start + GROUP)
                for c in range(low, high, vector):
                    _pool_group(
                        *(h, start, stop, first, channels, c),
                        *(scale, shift, mean, top, point, of_group, c - low),
                    )
            for n in range(3):
                for c in range(high - low):
                    of_panel[n, c] += of_group[n * (high - low) + c]
        for c in range(high - low):
            total = of_panel[0, c]
            # A value that is no number is the largest, as it is for torch.
            best[b, low + c] = top[c] if total == total else total
            place[b, low + c] = point[c]
            for n in range(3):
                sums[n, b, low + c] = of_panel[n, c]


@numba.njit(**FLAGS)
def _evaluate_group(
    h: np.ndarray,
    start: int,
    stop: int,
    channels: int,
    c: int,
    shift: np.ndarray,
    best: np.ndarray,
    sums: np.ndarray,
    at: int,
) -> None:
    offset, top, total = load(shift, c), load(best, at), load(sums, at)
    for i in range(start, stop):
        z = load(h, i * channels + c) + offset
        z = where(positive(z), z, z * repeat(0.2, z))
        top = where(larger(z, top), z, top)
        total = total + z
    store(best, at, where(missing(total), total, top))
    store(sums, at, total)


@numba.njit(parallel=True, **FLAGS)
def evaluate(h: np.ndarray, cloud: int, shift: np.ndarray, out: np.ndarray, vector: int) -> None:
    """Maximum and mean of LeakyReLU(h + shift, 0.2) over the points of each cloud.

    Args:
        h: (M, C).
        cloud: N.
        shift: (C,).
        out: (B, 2, C), to be filled.
        vector: numbers in a vector.
    """
    clouds, _, channels = out.shape
    panels = -(-channels // PANEL)
    for task in numba.prange(clouds * panels):
        b, low = task // panels, task % panels * PANEL
        width = min(channels, low + PANEL) - low
        last = b * cloud + cloud
        best, mean = np.full(width, -np.inf, h.dtype), np.zeros(width)
        part = np.zeros(width, h.dtype)
        for block in range(b * cloud, last, ROWS):
            end = min(last, block + ROWS)
            part[:] = 0
            for start in range(block, end, GROUP):
                stop = min(end, start + GROUP)
                for c in range(0, width, vector):
                    _evaluate_group(h, start, stop, channels, low + c, shift, best, part, c)
            for c in range(width):
                mean[c] += part[c]
        for c in range(width):
            out[b, 0, low + c] = best[c]
            out[b, 1, low + c] = mean[c] / cloud


@numba.njit(parallel=True, **FLAGS)
def gradients(
    h: np.ndarray,
    cloud: int,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    slope: np.ndarray,
    const: np.ndarray,
    given: np.ndarray,
    place: np.ndarray,
    chosen: np.ndarray,
    vector: int,
) -> None:
    """In place, h becomes its gradient.

    Where z = scale h + shift > 0 it is given - const - slope (h - mean), elsewhere 0.2 given less
    the same; `chosen` is added at the points of the maxima.

    Args:
        h: (M, C), changed in place.
        cloud: N.
        scale, shift, mean, slope, const: (C,).
        given: (B, C), what each point gets through the mean.
        place: (B, C), which point has the maximum.
        chosen: (B, C), what it gets.
        vector: numbers in a vector.
    """
    clouds, channels = place.shape
    blocks = -(-cloud // ROWS)
    for task in numba.prange(clouds * blocks):
        b, low = task // blocks, task % blocks * ROWS
        first, high = b * cloud, min(cloud, low + ROWS)
        for i in range(first + low, first + high):
            _gradients_of_row(
                *(h, i * channels, channels, scale, shift, mean, slope, const, given),
                *(b * channels, vector),
            )
        for c in range(channels):
            point = np.int64(place[b, c])
            if low <= point < high:
                h[(first + point) * channels + c] += chosen[b, c]


@numba.njit(**FLAGS)
def _gradients_of_row(
    h: np.ndarray,
    row: int,
    channels: int,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    slope: np.ndarray,
    const: np.ndarray,
    given: np.ndarray,
    of_cloud: int,
    vector: int,
) -> None:
    for c in range(0, channels, vector):
        value = load(h, row + c)
        up = positive(value * load(scale, c) + load(shift, c))
        g = load(given, of_cloud + c)
        g = where(up, g, g * repeat(0.2, g))
        g = g - load(const, c) - load(slope, c) * (value - load(mean, c))
        store(h, row + c, g)
