"""Stage 4, processor kernels: products of a matrix of bits and one of numbers, by sums from tables.

Where a factor is 0 or 1, a product is a sum of chosen rows. Four rows have 16 such sums; they are
made once, and then every four bits cost one addition of a row from a table that lies in the
first-level cache, where a plain product costs four multiply-adds: the method of the Four Russians
(Arlazarov et al. 1970). `pixcloud.ops.linear_pool` has such a matrix: LeakyReLU has two slopes.

Bits lie in words: `bits` has one for 64 channels of a point, `turned` one for 32 points of a cloud
and a channel. Columns are done by one thread each, in one order, so that results do not depend on
the number of threads. Arrays of numbers are flat, columns are whole pairs of vectors
(`lanes_cpu`).

Shape legend: B clouds, N points, M = B N rows, C columns, D channels (a multiple of 64).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir

from pixcloud.ops.lanes_cpu import BYTES as VECTOR_BYTES
from pixcloud.ops.lanes_cpu import FLAGS, intrinsic, pair_of, repeat, store, to_line
from pixcloud.ops.lanes_cpu import load_pair as load

WORD = 32  # bits that are added at once
SOME = 4  # rows of a table
SUMS = 1 << SOME  # their sums
# Two vectors for each sum: what the bits choose is found once for both. Beside the additions, to
# find it is what costs.
BYTES = 2 * VECTOR_BYTES
TABLES = WORD // SOME  # tables of a word: 16 KiB, half of most first-level caches
POINTS, CHANNELS = 2048, 512  # of one task, for which the tables are made


@numba.njit(**FLAGS)
def _fill(table: np.ndarray, at: int, size: int, a: Any, b: Any, c: Any, d: Any) -> None:
    """All sums of four vectors; the bits of a sum's place say which of them it has."""
    store(table, at, repeat(0, a))
    store(table, at + size, a)
    store(table, at + 2 * size, b)
    store(table, at + 3 * size, a + b)
    for n in range(4):
        store(table, at + (4 + n) * size, load(table, at + n * size) + c)
    for n in range(8):
        store(table, at + (8 + n) * size, load(table, at + n * size) + d)


@numba.njit(**FLAGS)
def _room(count: int, like: np.ndarray) -> np.ndarray:
    """Numbers from the start of a line of the cache on."""
    numbers = np.empty(count + BYTES // like.itemsize, like.dtype)
    skipped = to_line(numbers)
    return numbers[skipped : skipped + count]


@intrinsic
def _sum(_: Any, table: Any, word: Any) -> Any:
    """Sum of the vectors that the bits of a word choose, one of each of the tables."""
    return pair_of(table.dtype)(table, word), _generate_sum


def _generate_sum(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    lanes = context.get_value_type(sig.return_type)
    base = context.make_array(sig.args[0])(context, builder, args[0]).data
    base = builder.bitcast(base, ir.IntType(8).as_pointer())
    word = args[1]
    bytes_of_bits = (SUMS - 1) * BYTES
    totals: list[Any] = []
    for n in range(TABLES):
        # Shifted so that four bits become a place in bytes; a multiplication would cost as much
        # as the addition.
        shift = SOME * n - BYTES.bit_length() + 1
        amount = ir.Constant(word.type, abs(shift))
        moved = builder.shl(word, amount) if shift < 0 else builder.lshr(word, amount)
        place = builder.and_(moved, ir.Constant(word.type, bytes_of_bits))
        of_table = builder.gep(base, [ir.Constant(ir.IntType(64), n * SUMS * BYTES)])
        address = builder.bitcast(builder.gep(of_table, [place]), lanes.as_pointer())
        chosen = builder.load(address, align=int(sig.args[0].dtype.bitwidth) // 8)
        # Four sums, for each waits for the one before.
        if n < 4:
            totals.append(chosen)
        else:
            totals[n % 4] = builder.fadd(totals[n % 4], chosen)
    return builder.fadd(builder.fadd(totals[0], totals[1]), builder.fadd(totals[2], totals[3]))


@numba.njit(parallel=True, **FLAGS)
def add_chosen_channels(
    bits: np.ndarray,
    cloud: int,
    weight: np.ndarray,
    columns: int,
    factor: np.ndarray,
    base: np.ndarray,
    place: np.ndarray,
    extra: np.ndarray,
    out: np.ndarray,
    vector: int,
) -> None:
    """out_i += base_b + sum_d bits_id factor_bd w_d, and extra_bd w_d at the point place_bd.

    Args:
        bits: (D / 64, M) uint64.
        cloud, columns: N, C.
        weight: (D, C).
        factor, extra: (B, D).
        base: (B, C).
        place: (B, D), points of the cloud.
        out: (M, C), changed in place.
        vector: numbers in two vectors.
    """
    clouds, channels = factor.shape
    panels, runs = columns // vector, -(-cloud // POINTS)
    for task in numba.prange(clouds * runs * panels):
        b, rest = task // (runs * panels), task % (runs * panels)
        low, c = rest // panels * POINTS, rest % panels * vector
        first, high = b * cloud, min(cloud, low + POINTS)
        table = _room(TABLES * SUMS * vector, out)
        sums = _room((high - low) * vector, out)
        sums[:] = 0
        for w in range(channels // WORD):
            for n in range(TABLES):
                d = w * WORD + SOME * n
                start = load(weight, d * columns + c)
                _fill(
                    *(table, n * SUMS * vector, vector),
                    repeat(factor[b, d], start) * start,
                    repeat(factor[b, d + 1], start) * load(weight, (d + 1) * columns + c),
                    repeat(factor[b, d + 2], start) * load(weight, (d + 2) * columns + c),
                    repeat(factor[b, d + 3], start) * load(weight, (d + 3) * columns + c),
                )
            half = np.uint64(w % 2 * WORD)
            for i in range(high - low):
                value = _sum(table, bits[w // 2, first + low + i] >> half)
                store(sums, i * vector, load(sums, i * vector) + value)
        of_cloud = load(base, b * columns + c)
        for i in range(high - low):
            at = (first + low + i) * columns + c
            store(out, at, load(out, at) + of_cloud + load(sums, i * vector))
        for d in range(channels):
            i = int(place[b, d])
            if low <= i < high:
                at = (first + i) * columns + c
                more = load(weight, d * columns + c)
                store(out, at, load(out, at) + repeat(extra[b, d], more) * more)


@numba.njit(**FLAGS)
def _row(x: np.ndarray, i: int, last: int, columns: int, c: int, origin: np.ndarray) -> Any:
    """Pair of vectors of row i less the origin; zeros from the row `last` on."""
    centre = load(origin, c)
    if i < last:
        return load(x, i * columns + c) - centre
    return centre - centre


@numba.njit(parallel=True, **FLAGS)
def sum_chosen_points(
    turned: np.ndarray,
    cloud: int,
    x: np.ndarray,
    columns: int,
    origin: np.ndarray,
    factor: np.ndarray,
    place: np.ndarray,
    extra: np.ndarray,
    out: np.ndarray,
    vector: int,
) -> None:
    """out_d = sum_b (factor_bd sum_i bits_id (x_i - o) + extra_bd (x at place_bd - o)).

    Args:
        turned: (B, 2 W, D) uint32, with W = N / 64 rounded up.
        cloud, columns: N, C.
        x: (M, C).
        origin: (C,), o.
        factor, extra: (B, D).
        place: (B, D), points of the cloud.
        out: (D, C), to be filled.
        vector: numbers in two vectors.
    """
    clouds, words, channels = turned.shape
    panels, runs = columns // vector, -(-channels // CHANNELS)
    for task in numba.prange(panels * runs):
        c, low = task % panels * vector, task // panels * CHANNELS
        high = min(channels, low + CHANNELS)
        centre = load(origin, c)
        table = _room(TABLES * SUMS * vector, out)
        sums, total = _room((high - low) * vector, out), _room((high - low) * vector, out)
        total[:] = 0
        for b in range(clouds):
            last = b * cloud + cloud
            sums[:] = 0
            for w in range(words):
                for n in range(TABLES):
                    i = b * cloud + w * WORD + SOME * n
                    _fill(
                        *(table, n * SUMS * vector, vector),
                        _row(x, i, last, columns, c, origin),
                        _row(x, i + 1, last, columns, c, origin),
                        _row(x, i + 2, last, columns, c, origin),
                        _row(x, i + 3, last, columns, c, origin),
                    )
                for d in range(low, high):
                    at = (d - low) * vector
                    value = _sum(table, np.uint64(turned[b, w, d]))
                    store(sums, at, load(sums, at) + value)
            for d in range(low, high):
                at = (d - low) * vector
                chosen = load(x, (b * cloud + np.int64(place[b, d])) * columns + c) - centre
                value = repeat(factor[b, d], centre) * load(sums, at)
                value = value + repeat(extra[b, d], centre) * chosen
                store(total, at, load(total, at) + value)
        for d in range(low, high):
            store(out, d * columns + c, load(total, (d - low) * vector))
