"""Stage 6, earlier pairs: projections (B, V, P) of each step -> those of the last M pairs.

Used by `pixcloud.objective`, whose losses take them as further negatives.
"""

from __future__ import annotations

import torch
from torch import nn


class EarlierPairs(nn.Module):
    """Cross-batch memory (Wang et al. 2020, arXiv:1912.06798): projections of the last M pairs.

    They are as the encoder made them, and so a little out of date. They are buffers: a checkpoint
    has them, and a step that is taken back takes them back.

    Args:
        size: M.
        vectors: V, projections of each pair.
        dim: P.

    Example:
        >>> earlier = EarlierPairs(3, 1, 2)
        >>> earlier.add(torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]]]))
        >>> earlier.add(torch.tensor([[[3.0, 0.0]], [[4.0, 0.0]]]))
        >>> earlier.rows()[:, 0, 0].tolist()
        [4.0, 2.0, 3.0]
    """

    vectors: torch.Tensor
    added: torch.Tensor

    def __init__(self, size: int, vectors: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, vectors, dim))
        self.register_buffer("added", torch.zeros((), dtype=torch.int64))

    def rows(self) -> torch.Tensor:
        """Projections (m, V, P) of the m <= M pairs that are there, without gradient."""
        return self.vectors[: int(self.added.clamp(max=len(self.vectors)))]

    @torch.no_grad()
    def add(self, z: torch.Tensor) -> None:
        """Put projections (B, V, P) in the place of the oldest ones."""
        size, last = len(self.vectors), z.detach()[-len(self.vectors) :]
        first = int(self.added) + len(z) - len(last)
        places = torch.arange(first, first + len(last), device=z.device) % size
        self.vectors[places] = last.to(self.vectors.dtype)
        self.added += len(z)
