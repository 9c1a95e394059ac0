"""Stage 4, operators in the form that `torch.export` records: the same shapes as the operators.

The operators of this folder look at values and run kernels of their own, which a graph of torch's
operators cannot hold. While torch.export records, they hand over to the forms below, which do it
in evaluation, for any number of clouds and points, with torch's operators alone. Only farthest
points stay an operator by themselves, since each one depends on all before it;
`pixcloud.share.onnx_points` says what they are in ONNX.

These forms keep whole what the operators never do: the distances (B, M, N) and the edges
(B, N, k, C). Of points at equal distance it is left to `topk` which are neighbours.

Shape legend: B clouds, N points, M queries, k neighbours, C and D channels.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F

SLOPE = 0.2


def recording() -> bool:
    """Whether torch.export is recording what runs now."""
    return torch.compiler.is_exporting()


def half_products(x: torch.Tensor) -> bool:
    """Whether autocast asks for products of bf16 numbers, of what lies where x is."""
    kind = x.device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


def full_precision(x: torch.Tensor) -> AbstractContextManager[Any]:
    """Within it autocast is off for the device of x.

    Nothing is recorded of it: a graph has its precisions in its nodes, and each such context would
    be recorded, and translated, as a module of its own.
    """
    if recording():
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def nearest(x: torch.Tensor, queries: torch.Tensor | None, k: int) -> torch.Tensor:
    """Neighbours (B, M, k) among x (B, N, C) of queries (B, M, C), or of x itself."""
    centre = x.mean(dim=1, keepdim=True)
    x = x - centre
    queries = x if queries is None else queries - centre
    half_norm = x.square().sum(-1) / 2
    return (queries @ x.mT - half_norm[:, None]).topk(k, dim=-1).indices


def neighbour_rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows of each cloud: x (B, N, C), index (B, M, k) -> (B, M, k, C)."""
    batch, num_points, channels = x.shape
    first = torch.arange(batch, device=x.device)[:, None, None] * num_points
    flat = x.reshape(batch * num_points, channels).index_select(0, (index + first).flatten())
    return flat.view(*index.shape, channels)


def gathered(
    u: torch.Tensor, index: torch.Tensor, sign: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`gather_reduce`: extreme and sum of u (B, N, C) over the neighbours (B, N, k)."""
    edges = neighbour_rows(u, index)
    return (edges * sign).amax(dim=2) * sign, edges.sum(dim=2)


def pair_extreme(
    p: torch.Tensor, q: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, sign: torch.Tensor
) -> torch.Tensor:
    """`edge_pair_extreme`: (B, N, D) of p, q (B, N, C), index (B, N, k) and a weight (D, C)."""
    edges = F.leaky_relu(neighbour_rows(p, index) + q[:, :, None], SLOPE)
    return F.linear(edges, weight * sign[:, None]).amax(dim=2) * sign


def linear_extreme(x: torch.Tensor, weight: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """The maximum (B, D) of x W^T over the points where sign is +1, the minimum where it is -1."""
    return F.linear(x, weight * sign[:, None]).amax(dim=1) * sign


@torch.library.custom_op("pixcloud::farthest_points", mutates_args=())
def farthest(x: torch.Tensor, m: int, start: int) -> torch.Tensor:
    """`farthest_points` as one operator of a recorded graph: x (B, N, C) -> (B, m)."""
    from pixcloud.ops.sampling import by_device

    return by_device(x, m, start)


@farthest.register_fake
def _(x: torch.Tensor, m: int, start: int) -> torch.Tensor:
    return x.new_empty(x.shape[0], m, dtype=torch.int64)
