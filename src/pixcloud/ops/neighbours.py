"""Stage 4, k nearest neighbours: x (B, N, C) -> indices (B, N, k); used by the graph encoders.

Distances are squared Euclidean. The distance matrix is never whole: queries go in blocks, so that
memory grows with N and not with N squared.
"""

from __future__ import annotations

import torch

# Entries of one block of the distance matrix: 4 Mi, which is 16 MiB in fp32.
BLOCK_ENTRIES = 1 << 22


def knn(x: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the k nearest points of each point within its own cloud, itself among them.

    As in DGCNN (Wang et al. 2019, arXiv:1801.07829), whose neighbourhoods include the centre.

    Args:
        x: (B, N, C) points or features; no gradient flows through the choice.
        k: neighbours per point, 1 <= k <= N.

    Returns:
        (B, N, k) int64, nearest first. Points at equal distance may come in any order, but in
        the same one on every run.

    Raises:
        ValueError: if k is not between 1 and N, or x is not (B, N, C).

    Example:
        >>> knn(torch.tensor([[[0.0], [1.0], [5.0]]]), 2)[0].tolist()
        [[0, 1], [1, 0], [2, 1]]
    """
    if x.dim() != 3:
        raise ValueError(f"x must have the axes (B, N, C), got shape {tuple(x.shape)}")
    num_points = x.shape[1]
    if not 1 <= k <= num_points:
        raise ValueError(f"k = {k} neighbours of a cloud of {num_points} points: 1 <= k <= N")
    # Half precision would round away the differences between neighbours, so autocast stays out.
    with torch.autocast(x.device.type, enabled=False):
        return _blockwise(x.detach(), k)


def _blockwise(x: torch.Tensor, k: int) -> torch.Tensor:
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()
    # Distances do not change with the origin, but their rounding does: |x|^2 + |y|^2 - 2 x.y loses
    # all digits far from it.
    x = x - x.mean(dim=1, keepdim=True)
    step = max(1, BLOCK_ENTRIES // x.shape[1])
    rows = []
    for cloud in x:
        half_norm = cloud.square().sum(-1) / 2
        # argmax of x.y - |y|^2 / 2 is argmin of |x - y|^2: one product and one pass fewer.
        rows.append(
            torch.cat(
                [
                    torch.addmm(half_norm, q, cloud.T, beta=-1).topk(k, dim=-1).indices
                    for q in cloud.split(step)
                ]
            )
        )
    return torch.stack(rows)
