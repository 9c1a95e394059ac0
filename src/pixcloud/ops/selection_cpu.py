"""Stage 4, the k best of a row of scores, in order; used by `pixcloud.ops.neighbours_cpu`.

Of each row the few that can be among the k best are picked out, and only these are sorted:

1. A lower bound of the k-th best score: columns are dealt to 64 or more lanes, and k lanes have a
   greatest score of at least the k-th greatest among the lanes.
2. Scores above it, as bits, 32 at a time; with random scores these are about 1.3 k.
3. The rank of each of them is the number of those before it.

Columns come in the order of their index, so that ties keep it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from pixcloud.ops.vector_cpu import (
    LANES,
    MASK,
    above,
    at_least,
    count_bits,
    lane_extremes,
    lane_maxima,
    lowest_bit,
)

FLAGS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz"},
}
PIECE_COLUMNS = 512  # columns between two looks at how many candidates there are
SPARE = 34  # candidates beyond 3 k / 2 that are kept before they are sorted
FEW = 96  # candidates that are ranked; more than these and 2 k are inserted one by one


@numba.njit(**FLAGS)
def candidate_room(k: int) -> int:
    """Places that `pick` needs for the candidates of a row."""
    return k + k // 2 + SPARE + PIECE_COLUMNS + MASK


@numba.njit(**FLAGS)
def scratch_for(k: int, kind: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `pick` works in: candidates while sorted, words of bits and their columns, maxima."""
    lanes, room = LANES, candidate_room(k)
    while 2 * lanes < 3 * k:
        lanes *= 2
    return (
        np.empty(room, kind.dtype),
        np.empty(room, np.int64),
        np.empty(PIECE_COLUMNS // MASK + 1, np.uint32),
        np.empty(PIECE_COLUMNS // MASK + 1, np.int64),
        np.empty(lanes, kind.dtype),
    )


@numba.njit(**FLAGS)
def pick(
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
            # Not read back from the array: each round would wait for the write of the one before.
            word = above(scores, s, bound)
            words[filled], origins[filled] = word, s
            filled += word != 0
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
        if found > k + k // 2 + SPARE:
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
    if found > max(FEW, 2 * k):
        return _insert(values, places, found, k)
    spare_values, spare_places = scratch[0], scratch[1]
    for n in range(found):
        rank = 0
        for at in range(0, found, MASK):
            greater, equal_too = above(values, at, values[n]), at_least(values, at, values[n])
            if at + MASK <= n:
                greater = equal_too
            elif at <= n:
                earlier = (np.uint32(1) << np.uint32(n - at)) - np.uint32(1)
                greater |= equal_too & earlier
            if at + MASK > found:  # what lies behind the candidates is of rows before
                greater &= (np.uint32(1) << np.uint32(found - at)) - np.uint32(1)
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
