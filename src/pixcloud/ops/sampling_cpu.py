"""Stage 4, processor kernel of `pixcloud.ops.sampling`: x (B, N, C) -> indices (B, m).

Every step lowers the distance of all points to the chosen ones, and looks for the greatest. Both
run over channels and distances that lie side by side; clouds are done in parallel, each by one
thread in one order, so the result is the same for any number of threads.

Shape legend: B clouds, N points (rounded up to L), C channels, m points to choose.
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
    at_least,
    lane_extremes,
    lane_maxima,
    lowest_bit,
)

FLAGS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz"},
}


def farthest(x: torch.Tensor, m: int, start: int) -> torch.Tensor:
    """Indices (B, m) of farthest points.

    Args:
        x: (B, N, C) finite numbers, fp32 or fp64, whose squares neither overflow nor vanish.
        m: 1 <= m <= N.
        start: 0 <= start < N.
    """
    use_torch_threads()
    chosen = np.empty((x.shape[0], m), np.int64)
    _sample(x.contiguous().numpy(), start, chosen)
    return torch.from_numpy(chosen)


@numba.njit(parallel=True, **FLAGS)
def _sample(points: np.ndarray, start: int, chosen: np.ndarray) -> None:
    for b in numba.prange(len(points)):
        _sample_cloud(points[b], start, chosen[b])


@numba.njit(**FLAGS)
def _sample_cloud(points: np.ndarray, start: int, chosen: np.ndarray) -> None:
    num_points, channels = points.shape
    length = (num_points + LANES - 1) // LANES * LANES
    columns = np.zeros((channels, length), points.dtype)
    # Beyond the cloud the distance is -inf and stays so.
    distance = np.full(length, -np.inf, points.dtype)
    for j in range(num_points):
        distance[j] = np.inf
        for c in range(channels):
            columns[c, j] = points[j, c]
    square, maxima = np.empty(length, points.dtype), np.empty(LANES, points.dtype)
    chosen[0] = start
    for n in range(1, len(chosen)):
        _approach(columns, chosen[n - 1], square, distance)
        lane_maxima(distance, 0, LANES, length // LANES, maxima, 0)
        greatest, _ = lane_extremes(maxima, 0)
        chosen[n] = _first(distance, greatest)


@numba.njit(**FLAGS)
def _approach(columns: np.ndarray, last: int, square: np.ndarray, distance: np.ndarray) -> None:
    """Lower the squared distances to that to the point `last`."""
    channels, length = columns.shape
    for c in range(channels):
        here = columns[c, last]
        if c == 0:
            for j in range(length):
                square[j] = (columns[c, j] - here) * (columns[c, j] - here)
        else:
            for j in range(length):
                square[j] += (columns[c, j] - here) * (columns[c, j] - here)
    for j in range(length):
        distance[j] = square[j] if square[j] < distance[j] else distance[j]


@numba.njit(**FLAGS)
def _first(distance: np.ndarray, greatest: Any) -> int:
    """The first place that holds the greatest distance."""
    for at in range(0, len(distance), MASK):
        bits = at_least(distance, at, greatest)
        if bits != 0:
            return at + lowest_bit(bits)
    return 0
