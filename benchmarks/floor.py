"""The least that a result can cost: operations over the product rate, bytes over the copy rate.

M = B N points, C_l channels of layer l, E channels before pooling, k neighbours; 4 bytes a number.

- EdgeConv, factored: two products of M x C_(l-1) x C_l, 4 M C_(l-1) C_l operations. Training costs
  three times that: forward, gradient of the weights, gradient of the input.
- Neighbours: every pair of points once, M N C_(l-1) / 2 multiply-adds, M N C_(l-1) operations,
  without gradient.
- Fusion: 2 M C E with C = sum C_l, three times that in training.
- Fusion with its pooling, in training: 2 M C E forward; M C (C + 1) for the covariance of the
  input, which is symmetric; 2 M C^2 for what is linear in it backward; and two products by bits,
  of M C E / 4 additions each (`pixcloud.ops.bit_products_cpu`).
- Two-layer EdgeConv: the first layer as above; the second over all edges, 2 M k C_1 C_2, three
  times that in training.
- Bytes: every activation that a later operation needs is written once and read once, forward; in
  training its gradient too.

Rates are measured in the same run, so that a busy machine slows the floor as it slows the rest.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Cost:
    """operations (floating-point, a multiply-add is two) and bytes moved."""

    operations: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.operations + other.operations, self.bytes + other.bytes)

    def seconds(self, rates: dict[str, float]) -> float:
        """The floor under measured rates in GFLOP/s and GB/s."""
        return self.operations / (1e9 * rates["fp32"]) + self.bytes / (1e9 * rates["copy"])


def knn_cost(batch: int, points: int, channels: int, k: int) -> Cost:
    """Each distance within a cloud once, for it has two ends; indices of the nearest written."""
    return Cost(1.0 * batch * points**2 * channels, 8.0 * batch * points * k)


def edgeconv_cost(
    batch: int, points: int, c_in: int, c_out: int, *, training: bool, second: int = 0, k: int = 0
) -> Cost:
    """One EdgeConv with given neighbours; `second` channels of a second layer over k edges."""
    rows, passes = batch * points, 3 if training else 1
    operations = 4.0 * rows * c_in * c_out + 2.0 * rows * k * c_out * second
    moved = 2 * 4.0 * rows * (2 * c_out + (second or c_out))
    return Cost(passes * operations, (2 if training else 1) * moved)


def dgcnn_cost(
    batch: int, points: int, widths: Sequence[int], embed: int, k: int, *, training: bool
) -> Cost:
    """DGCNN for classification up to its pooled feature."""
    total = Cost(0, 0)
    for c_in, c_out in itertools.pairwise([3, *widths]):
        total += knn_cost(batch, points, c_in, k)
        total += edgeconv_cost(batch, points, c_in, c_out, training=training)
    return total + pooled_cost(batch * points, sum(widths), embed, training=training)


def dgcnn_seg_cost(batch: int, points: int, embed: int, k: int, *, training: bool) -> Cost:
    """DGCNN for segmentation up to its features, in the published sizes."""
    total = Cost(0, 0)
    for c_knn, c_in, c_out, second in ((3, 3, 64, 128), (3, 3, 64, 64), (64, 64, 64, 64)):
        total += knn_cost(batch, points, c_knn, k)
        total += edgeconv_cost(batch, points, c_in, c_out, training=training, second=second, k=k)
    total += knn_cost(batch, points, 64, k)
    total += edgeconv_cost(batch, points, 64, 64, training=training)
    rows = batch * points
    total += fusion_cost(rows, 128, 1024, training=training)
    return total + fusion_cost(rows, 192, embed, training=training)


def fusion_cost(rows: int, c_in: int, c_out: int, *, training: bool) -> Cost:
    """A linear map of each point."""
    passes = 3 if training else 1
    return Cost(passes * 2.0 * rows * c_in * c_out, (2 if training else 1) * 8.0 * rows * c_out)


def pooled_cost(rows: int, c_in: int, c_out: int, *, training: bool) -> Cost:
    """A linear map of each point whose maxima, means and signs are all that is kept."""
    forward = Cost(2.0 * rows * c_in * c_out, 4.0 * rows * c_in)
    if not training:
        return forward
    around = rows * c_in * (c_in + 1.0) + 2.0 * rows * c_in**2 + rows * c_in * c_out / 2
    return forward + Cost(around, 4.0 * 3 * rows * c_in + rows * c_out / 2)


def measured_rates() -> dict[str, float]:
    """Product rates in GFLOP/s in fp32 and bf16, and the copy rate (read and write) in GB/s."""
    from pixcloud.precision import product_rates

    source = torch.ones(1 << 25)
    target = torch.empty_like(source).copy_(source)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return {
        "fp32": _large_product_rate(),
        "bf16": product_rates("cpu", torch.bfloat16)[0],
        "copy": 2 * 4 * source.numel() / best / 1e9,
    }


def _large_product_rate() -> float:
    """GFLOP/s of the product that most of DGCNN's work is: 16,384 points, 512 -> 1,024 channels.

    Of the library's and ours, whichever is faster.
    """
    from pixcloud.ops.products_cpu import panels_of, rows_product

    a, b = torch.ones(16384, 512), torch.ones(512, 1024)
    out, panels = torch.mm(a, b), panels_of(b)
    best = float("inf")
    for way in (lambda: torch.mm(a, b, out=out), lambda: rows_product(a, panels, out)):
        for _ in range(5):
            start = time.perf_counter()
            way()
            best = min(best, time.perf_counter() - start)
    return 2 * 16384 * 512 * 1024 / best / 1e9
