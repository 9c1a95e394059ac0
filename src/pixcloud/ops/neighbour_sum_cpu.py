"""Stage 4, processor kernels of `pixcloud.ops.neighbour_sum`: one thread per output, one order.

Shape legend: B clouds, N points, M = B N, k neighbours, C channels.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

from pixcloud.ops.threads_cpu import use_torch_threads

FLAGS: dict[str, Any] = {
    "parallel": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz"},
}
LINE = 16  # channels that lie together in the caches, in fp32


@numba.njit(**FLAGS)
def gather(x: np.ndarray, index: np.ndarray, cloud: int, total: np.ndarray) -> None:
    """total[i] = sum of x[j] over the neighbours of i; all (M, C) but index (M, k)."""
    for i in numba.prange(x.shape[0]):
        first = i // cloud * cloud
        for r in range(index.shape[1]):
            j = first + index[i, r]
            for c in range(x.shape[1]):
                total[i, c] += x[j, c]


@numba.njit(**FLAGS)
def spread(given: np.ndarray, index: np.ndarray, cloud: int, width: int, grad: np.ndarray) -> None:
    """grad[j] = sum of given[i] over those whose neighbour j is.

    A thread does `width` channels of a whole cloud, so that no two write to the same place. The
    order of a sum does not depend on the width.
    """
    points, channels = given.shape
    blocks = -(-channels // width)
    for task in numba.prange(points // cloud * blocks):
        first, start = task // blocks * cloud, task % blocks * width
        some, target = given[:, start : start + width], grad[:, start : start + width]
        for i in range(first, first + cloud):
            for r in range(index.shape[1]):
                j = first + index[i, r]
                for c in range(some.shape[1]):
                    target[j, c] += some[i, c]


def forward(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Sums (B, N, C) over neighbours."""
    use_torch_threads()
    total = torch.zeros_like(x, memory_format=torch.contiguous_format)
    gather(_rows(x), _rows(index), x.shape[1], _rows(total))
    return total


def backward(given: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Gradient (B, N, C) of x, from that of the sums."""
    use_torch_threads()
    batch, num_points, channels = given.shape
    grad = torch.zeros_like(given, memory_format=torch.contiguous_format)
    # Whole rows are fastest, but a few clouds alone would not occupy many threads.
    width = -(-channels * batch // torch.get_num_threads() // LINE) * LINE
    width = max(LINE, min(channels, width))
    spread(_rows(given), _rows(index), num_points, width, _rows(grad))
    return grad


def _rows(x: torch.Tensor) -> np.ndarray:
    """(B, N, C) as (B N, C), in the same memory where it can be."""
    rows: np.ndarray = x.detach().contiguous().flatten(0, 1).numpy()
    return rows
