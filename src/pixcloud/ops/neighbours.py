"""Stage 4, k nearest neighbours: x (B, N, C) -> indices (B, N, k); used by the graph encoders.

Distances are squared Euclidean. The distance matrix of a large cloud is never whole: queries go in
blocks, so that memory grows with N and not with N squared. On processors kernels of
`pixcloud.ops.neighbours_cpu` do the work; elsewhere, the torch operators below.
"""

from __future__ import annotations

import torch

from pixcloud.ops import recorded
from pixcloud.ops.finite import safe_to_square

# Entries of one block of the distance matrix: 4 Mi, which is 16 MiB in fp32.
BLOCK_ENTRIES = 1 << 22


def knn(x: torch.Tensor, k: int, queries: torch.Tensor | None = None) -> torch.Tensor:
    """Indices of the k nearest points of each point within its own cloud, itself among them.

    As in DGCNN (Wang et al. 2019, arXiv:1801.07829), whose neighbourhoods include the centre.

    Points at the same computed distance come, and are chosen, in the order of their index. Points
    that are equal have the same computed distance. On a processor all of this holds, for any number
    of threads. On other devices the points chosen are sorted likewise, but which of several points
    at the k-th distance are chosen is left to torch's `topk`.

    Args:
        x: (B, N, C) points or features; no gradient flows through the choice. Distances are
            computed in fp64 if both are in fp64, else in fp32.
        k: neighbours per point, 1 <= k <= N.
        queries: (B, M, C) whose neighbours among x are asked for; the points themselves if None.

    Returns:
        (B, N, k) int64, or (B, M, k) with queries, nearest first.

    Raises:
        ValueError: if k is not between 1 and N, or a shape is another one.
        NotFiniteError: for NaN or infinite values; it names the first sample that holds them.

    Example:
        >>> knn(torch.tensor([[[0.0], [1.0], [5.0]]]), 2)[0].tolist()
        [[0, 1], [1, 0], [2, 1]]
    """
    if x.dim() != 3 or not x.shape[2]:
        raise ValueError(f"x must have the axes (B, N, C), got shape {tuple(x.shape)}")
    if queries is not None and (queries.dim() != 3 or queries.shape[::2] != x.shape[::2]):
        raise ValueError(
            f"queries must have the axes (B, M, C) with B and C of x {tuple(x.shape)}, got shape "
            f"{tuple(queries.shape)}"
        )
    num_points = x.shape[1]
    if not 1 <= k <= num_points:
        raise ValueError(f"k = {k} neighbours of a cloud of {num_points} points: 1 <= k <= N")
    if recorded.recording():
        return recorded.nearest(x, queries, k)
    # Half precision would round away the differences between neighbours, so autocast stays out.
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        clouds = [x] if queries is None else [x, queries]
        exact = all(cloud.dtype == torch.float64 for cloud in clouds)
        kind = torch.float64 if exact else torch.float32
        # One copy of what lies apart, as the outputs of layers that lie side by side do.
        whole = (cloud.detach().to(kind).contiguous() for cloud in clouds)
        points, *asked = safe_to_square(*whole)
        return _nearest(points, asked[0] if asked else None, k)


def _nearest(x: torch.Tensor, queries: torch.Tensor | None, k: int) -> torch.Tensor:
    if x.device.type == "cpu":
        # Numba takes a second to import, which users of other devices need not pay.
        from pixcloud.ops.neighbours_cpu import nearest

        return nearest(x, queries, k)
    return blockwise(x, queries, k)


def blockwise(x: torch.Tensor, queries: torch.Tensor | None, k: int) -> torch.Tensor:
    """`knn` of checked input with torch's operators, on any device."""
    # Distances do not change with the origin, but their rounding does: |x|^2 + |y|^2 - 2 x.y loses
    # all digits far from it.
    centre = x.mean(dim=1, keepdim=True)
    x = x - centre
    queries = x if queries is None else queries - centre
    step = max(1, BLOCK_ENTRIES // x.shape[1])
    out = torch.empty(*queries.shape[:2], k, dtype=torch.int64, device=x.device)
    for cloud, asked, nearest in zip(x, queries, out, strict=True):
        half_norm = cloud.square().sum(-1) / 2
        for first in range(0, len(asked), step):
            # argmax of x.y - |y|^2 / 2 is argmin of |x - y|^2: one product and one pass fewer.
            block = asked[first : first + step]
            scores, index = torch.addmm(half_norm, block, cloud.T, beta=-1).topk(k, dim=-1)
            index, order = index.sort(dim=-1)
            scores, order = scores.gather(-1, order).sort(dim=-1, descending=True, stable=True)
            nearest[first : first + step] = index.gather(-1, order)
    return out
