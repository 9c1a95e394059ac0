"""Stage 4, farthest points: x (B, N, C) -> indices (B, m); used by encoders that thin clouds out.

On processors kernels of `pixcloud.ops.sampling_cpu` do the work; elsewhere, the torch operators
below.
"""

from __future__ import annotations

import torch

from pixcloud.ops import recorded
from pixcloud.ops.finite import safe_to_square


def farthest_points(x: torch.Tensor, m: int, start: int = 0) -> torch.Tensor:
    """Farthest point sampling: each point is the one farthest from all those before it.

    As in PointNet++ (Qi et al. 2017, arXiv:1706.02413), exact. Of points at equal distance the one
    of lowest index is taken; so a cloud with fewer than m different points repeats one of them.

    Args:
        x: (B, N, C) points; no gradient flows through the choice. Distances are computed in fp64
            for fp64, else in fp32.
        m: points to choose, 1 <= m <= N.
        start: index of the first point, the same in all clouds.

    Returns:
        (B, m) int64, in the order of choice.

    Raises:
        ValueError: if m is not between 1 and N, start not an index, or x not (B, N, C).
        NotFiniteError: for NaN or infinite values; it names the first sample that holds them.

    Example:
        >>> farthest_points(torch.tensor([[[0.0], [1.0], [5.0], [2.0]]]), 3).tolist()
        [[0, 2, 3]]
    """
    if x.dim() != 3 or not x.shape[2]:
        raise ValueError(f"x must have the axes (B, N, C), got shape {tuple(x.shape)}")
    num_points = x.shape[1]
    if not 1 <= m <= num_points:
        raise ValueError(f"m = {m} of a cloud of {num_points} points: 1 <= m <= N")
    if not 0 <= start < num_points:
        raise ValueError(f"start = {start} in a cloud of {num_points} points: 0 <= start < N")
    if recorded.recording():
        return recorded.farthest(x, m, start)
    return by_device(x, m, start)


def by_device(x: torch.Tensor, m: int, start: int) -> torch.Tensor:
    """`farthest_points` of checked numbers m and start."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        (points,) = safe_to_square(x.detach().to(kind))
        if points.device.type == "cpu":
            # Numba takes a second to import, which users of other devices need not pay.
            from pixcloud.ops.sampling_cpu import farthest

            return farthest(points, m, start)
        return step_by_step(points, m, start)


def step_by_step(x: torch.Tensor, m: int, start: int) -> torch.Tensor:
    """`farthest_points` of checked input with torch's operators, on any device."""
    clouds = torch.arange(x.shape[0], device=x.device)
    chosen = torch.full((x.shape[0], m), start, dtype=torch.int64, device=x.device)
    distance = x.new_full(x.shape[:2], torch.inf)
    for n in range(1, m):
        last = x[clouds, chosen[:, n - 1]][:, None]
        distance = torch.minimum(distance, (x - last).square().sum(-1))
        # The first of equal maxima.
        chosen[:, n] = distance.argmax(dim=1)
    return chosen
