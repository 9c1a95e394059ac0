"""Stage 4, processor kernels of `pixcloud.ops.linear_pool`: passes over h (M, C) = x W^T.

Rows of h lie one after the other, with the sign of BN's scale folded in, so that an extreme is
always a maximum. Passes go along the rows, a few rows at a time, and keep their sums
per channel in the first-level cache. Each sum is made by one thread in one order, so that results
do not depend on the number of threads. C is a whole number of vectors; arrays are flat.

Shape legend: B clouds, N points, M = B N rows, C channels.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from pixcloud.ops.lanes_cpu import (
    FLAGS,
    larger,
    load,
    load_like,
    load_whole,
    missing,
    positive,
    repeat,
    repeat_whole,
    store,
    store_bits,
    store_half,
    where,
    with_bits,
)

ROWS = 128  # rows whose sums are in the numbers' own type
GROUP = 32  # rows whose sums stay in registers, and whose bits are a word
EVALUATED = 8  # the same in evaluation, which has no bits
PANEL = 128  # channels of a task of the pooling
WORD = 64  # channels of a word


@numba.njit(**FLAGS)
def _pool_group(
    h: np.ndarray,
    start: int,
    stop: int,
    channels: int,
    c: int,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    best: np.ndarray,
    place: np.ndarray,
    point: int,
    sums: np.ndarray,
    at: int,
    bits: np.ndarray,
    bits_at: int,
) -> Any:
    """A few rows of one vector of channels, at `at` of best and place, and of sums (3, C).

    `point` is the first row's place in its cloud, and its bits go to `bits_at`; those of the
    channels are returned.
    """
    width = best.shape[0]
    factor, offset, centre = load(scale, c), load(shift, c), load(mean, c)
    top = load(best, at)
    where_top = load_whole(place, at, top)
    words = repeat_whole(0, top)
    total, slopes, products = repeat(0, top), repeat(0, top), repeat(0, top)
    for i in range(start, stop):
        value = load_like(h, i * channels + c, top)
        above = larger(value, top)
        top = where(above, value, top)
        where_top = where(above, repeat_whole(point + i - start, value), where_top)
        z = value * factor + offset
        up = positive(z)
        store_bits(bits, bits_at + (i - start) * 8, up)
        words = with_bits(words, up, i - start)
        slope = where(up, repeat(1, z), repeat(0.2, z))
        total = total + slope * z
        slopes = slopes + slope
        products = products + slope * (value - centre)
    store(best, at, top)
    store(place, at, where_top)
    store(sums, at, load(sums, at) + total)
    store(sums, width + at, load(sums, width + at) + slopes)
    store(sums, 2 * width + at, load(sums, 2 * width + at) + products)
    return words


@numba.njit(parallel=True, **FLAGS)
def pool(
    h: np.ndarray,
    first_row: int,
    cloud: int,
    scale: np.ndarray,
    shift: np.ndarray,
    mean: np.ndarray,
    best: np.ndarray,
    place: np.ndarray,
    sums: np.ndarray,
    bits: np.ndarray,
    turned: np.ndarray,
    words: int,
    vector: int,
) -> None:
    """Some rows of h, which are whole clouds or a part of one: maxima, sums, and signs.

    With z = scale h + shift and s = 1 where z > 0, 0.2 elsewhere. What is to be found is found over
    all points of a cloud when all its rows have been here, in order.

    Args:
        h: (R, C), the rows from `first_row` on; of numbers as the others, or of bf16 as 16 bits.
        first_row: a multiple of 32 within its cloud.
        cloud: N.
        scale, shift, mean: (C,).
        best: (B, C), before the first rows -inf: the maximum of h.
        place: (B, C) uint32, before the first rows 0: which point has it, the first one.
        sums: (3, B, C), before the first rows 0: sums of s z, which is LeakyReLU(z, 0.2), of s, and
            of s (h - mean).
        bits: (C / 64, M) words of 64 bits, as bytes: whether z > 0, a word for 64 channels.
        turned: (B, words, C) uint32, before the first rows 0: the same, a word for 32 points.
        words: see turned; at least N / 32.
        vector: numbers in a vector.
    """
    channels = best.shape[1]
    all_rows, count = best.shape[0] * cloud, h.shape[0] // channels
    clouds, panels = -(-count // cloud), -(-channels // PANEL)
    for task in numba.prange(clouds * panels):
        b, low = first_row // cloud + task // panels, task % panels * PANEL
        high = min(channels, low + PANEL)
        begin = max(first_row, b * cloud)
        end = min(first_row + count, b * cloud + cloud)
        top, point = best[b, low:high].copy(), place[b, low:high].copy()
        of_panel, of_group = np.zeros((3, high - low)), np.zeros(3 * (high - low), scale.dtype)
        for block in range(begin, end, ROWS):
            of_group[:] = 0
            for start in range(block, min(end, block + ROWS), GROUP):
                stop = min(end, start + GROUP)
                for c in range(low, high, vector):
                    word = _pool_group(
                        *(h, start - first_row, stop - first_row, channels, c),
                        *(scale, shift, mean, top, point, start - b * cloud),
                        *(of_group, c - low),
                        *(bits, (c // WORD * all_rows + start) * 8 + c % WORD // 8),
                    )
                    place_of_word = b * words + (start - b * cloud) // GROUP
                    store(turned, place_of_word * channels + c, word)
            for n in range(3):
                for c in range(high - low):
                    of_panel[n, c] += of_group[n * (high - low) + c]
        for c in range(high - low):
            total = of_panel[0, c]
            # A value that is no number is the largest, as it is for torch.
            best[b, low + c] = top[c] if total == total else total
            place[b, low + c] = point[c]
            for n in range(3):
                sums[n, b, low + c] += of_panel[n, c]


@numba.njit(parallel=True, **FLAGS)
def halve_rows(x: np.ndarray, origin: np.ndarray, out: np.ndarray, vector: int) -> None:
    """Rows less an origin, rounded.

    Args:
        x: (M, C) of fp32.
        origin: (C,).
        out: (M, C) of bf16 as 16 bits, to be filled.
        vector: numbers in a vector.
    """
    channels = origin.shape[0]
    rows = out.shape[0] // channels
    for task in numba.prange(-(-rows // ROWS)):
        for i in range(task * ROWS, min(rows, task * ROWS + ROWS)):
            for c in range(0, channels, vector):
                at = i * channels + c
                store_half(out, at, load(x, at) - load(origin, c))


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
            for start in range(block, end, EVALUATED):
                stop = min(end, start + EVALUATED)
                for c in range(0, width, vector):
                    _evaluate_group(h, start, stop, channels, low + c, shift, best, part, c)
            for c in range(width):
                mean[c] += part[c]
        for c in range(width):
            out[b, 0, low + c] = best[c]
            out[b, 1, low + c] = mean[c] / cloud
