"""Stage 4, processor kernels of `linear_max`: which point has the maximum, and its gradients.

Shape legend: B clouds, N points, C channels in, D channels out. Each output is written by one
thread in one order, so the number of threads changes no bit.
"""

from __future__ import annotations

from typing import Any

from numba import njit, prange

# Channels of one job; and of one test whether any of them has a new maximum. Most tests say no
# after the first few points, so that most of the work is one vectorised comparison.
JOB, GROUP = 256, 64


@njit(parallel=True, cache=True, error_model="numpy")
def column_maxima(scores: Any, best: Any, where: Any) -> None:
    """scores (B, N, D) -> best (B, D) and the first point that has it, where (B, D) int32."""
    batch, num_points, channels = scores.shape
    jobs = (channels + JOB - 1) // JOB
    for job in prange(batch * jobs):
        b, first = job // jobs, job % jobs * JOB
        last = min(first + JOB, channels)
        highest, place = best[b], where[b]
        for d in range(first, last):
            highest[d] = scores[b, 0, d]
            place[d] = 0
        for n in range(1, num_points):
            row = scores[b, n]
            for low in range(first, last, GROUP):
                high = min(low + GROUP, last)
                any_higher = False
                for d in range(low, high):
                    any_higher |= row[d] > highest[d]
                if any_higher:
                    for d in range(low, high):
                        if row[d] > highest[d]:
                            highest[d] = row[d]
                            place[d] = n


@njit(parallel=True, cache=True, error_model="numpy")
def gradients(grad: Any, where: Any, x: Any, weight: Any, grad_x: Any, grad_weight: Any) -> None:
    """Gradients of x[b, where[b, d]] . weight[d] given grad (B, D); both results start as zeros."""
    batch, channels = where.shape
    for b in prange(batch):
        for d in range(channels):
            value, row = grad[b, d], where[b, d]
            for c in range(x.shape[2]):
                grad_x[b, row, c] += value * weight[d, c]
    for d in prange(channels):
        for b in range(batch):
            value, row = grad[b, d], where[b, d]
            for c in range(x.shape[2]):
                grad_weight[d, c] += value * x[b, row, c]
