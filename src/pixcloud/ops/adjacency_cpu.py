"""Stage 4, neighbours for the processor kernels: index (B, N, k) -> rows, and who points back.

The way back, from a point to those whose neighbour it is, makes the backward pass a sum per point
in a fixed order, where threads do not meet.

Shape legend: M = B N rows of the joined clouds, N points of a cloud, k neighbours.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from pixcloud.ops.lanes_cpu import FLAGS
from pixcloud.ops.threads_cpu import use_torch_threads


@numba.njit(parallel=True, **FLAGS)
def join(index: np.ndarray, cloud: int, near: np.ndarray, wrong: np.ndarray) -> None:
    """Neighbours as rows of the joined clouds.

    Args:
        index: (M, k) places in the point's own cloud.
        cloud: N.
        near: (M, k), to be filled.
        wrong: (M,) zeros; 1 where a place is not in [0, N).
    """
    points, k = index.shape
    for i in numba.prange(points):
        first = i // cloud * cloud
        for r in range(k):
            j = index[i, r]
            if j < 0 or j >= cloud:
                wrong[i] = 1
            near[i, r] = first + j


@numba.njit(parallel=True, **FLAGS)
def reverse(
    near: np.ndarray, cloud: int, start: np.ndarray, who: np.ndarray, which: np.ndarray
) -> None:
    """For each point, the points whose neighbour it is, and as which of their neighbours.

    Args:
        near: (M, k) from `join`.
        cloud: N.
        start: (M + 1,); the entries of j are those from start[j] to start[j + 1].
        who: (M k,), points in ascending order.
        which: (M k,), ranks.
    """
    points, k = near.shape
    start[points] = points * k
    for b in numba.prange(points // cloud):
        first = b * cloud
        count = np.zeros(cloud, np.int64)
        for i in range(first, first + cloud):
            for r in range(k):
                count[near[i, r] - first] += 1
        total = first * k
        for j in range(cloud):
            start[first + j] = total
            total += count[j]
            count[j] = start[first + j]
        for i in range(first, first + cloud):
            for r in range(k):
                j = near[i, r] - first
                who[count[j]] = i
                which[count[j]] = r
                count[j] += 1


def joined_neighbours(index: torch.Tensor) -> np.ndarray:
    """Neighbours (B, N, k) as rows of the joined clouds (M, k).

    Raises:
        ValueError: if an index is not in [0, N).

    Example:
        >>> joined_neighbours(torch.tensor([[[1, 0], [1, 0]], [[0, 1], [1, 0]]])).tolist()
        [[1, 0], [1, 0], [2, 3], [3, 2]]
    """
    batch, num_points, k = index.shape
    use_torch_threads()
    near = np.empty((batch * num_points, k), np.int32)
    wrong = np.zeros(batch * num_points, np.uint8)
    rows: np.ndarray = index.contiguous().view(-1, k).numpy()
    join(rows, num_points, near, wrong)
    if wrong.any():
        where = int(wrong.argmax())
        raise ValueError(
            f"neighbours {rows[where].tolist()} of point {where % num_points} of cloud "
            f"{where // num_points}: places in a cloud of {num_points} points are expected"
        )
    return near


def reversed_neighbours(
    near: np.ndarray, num_points: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Way back from each point, for (M, k) neighbours: start (M + 1,), who (M k,), which (M k,).

    Example:
        >>> start, who, which = reversed_neighbours(np.array([[0, 1], [0, 2], [0, 2]], "i4"), 3)
        >>> start.tolist(), who.tolist(), which.tolist()
        ([0, 3, 4, 6], [0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1])
    """
    use_torch_threads()
    start = np.empty(near.shape[0] + 1, np.int64)
    who, which = np.empty(near.size, np.int32), np.empty(near.size, np.int32)
    reverse(near, num_points, start, who, which)
    return start, who, which
