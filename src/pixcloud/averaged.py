"""Stage 6, the averaged encoder: weights after each step -> their running mean, which may teach.

Before it: a point encoder and its head (stages 4 and 5). After it: `pixcloud.objective`, which has
it follow, compares with its projections, and gives it to be probed and exported.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from pixcloud.encoders.base import PointEncoder
from pixcloud.heads import ProjectionHead


class AveragedEncoder(nn.Module):
    """Exponential moving average of an encoder and its head (Mean Teacher, arXiv:1703.01780).

    After step n the average keeps min(decay, n / (n + 9)) of itself and takes the rest from the new
    weights: it starts as an average over few steps, since the first weights are random.

    Batch statistics: one that teaches makes its own, from the batches that it sees; otherwise the
    running ones are averaged as weights are.

    Args:
        encoder: to copy; the average begins as it is.
        head: likewise.
        decay: below 1.
        teaches: whether `project` is called in training.

    Example:
        >>> from pixcloud.encoders import build_encoder
        >>> encoder = build_encoder("pointnet", embed_dim=16, widths=[8])
        >>> averaged = AveragedEncoder(encoder, ProjectionHead(16, 8, 4), 0.99, False)
        >>> any(p.requires_grad for p in averaged.parameters())
        False
    """

    steps: torch.Tensor

    def __init__(
        self, encoder: PointEncoder, head: ProjectionHead, decay: float, teaches: bool
    ) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.head = copy.deepcopy(head).requires_grad_(False)
        self.decay, self.teaches = decay, teaches
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def project(self, points: torch.Tensor) -> torch.Tensor:
        """Clouds (B, N, 3) to projections (B, P), without gradient."""
        return self.head(self.encoder(points).pooled)

    @torch.no_grad()
    def follow(self, encoder: PointEncoder, head: ProjectionHead) -> None:
        """Move towards the weights that a step has made."""
        self.steps += 1
        count = int(self.steps)
        rest = 1 - min(self.decay, count / (count + 9))
        for own, new in ((self.encoder, encoder), (self.head, head)):
            torch._foreach_lerp_(list(own.parameters()), list(new.parameters()), rest)
            if self.teaches:
                continue
            for mean, now in zip(own.buffers(), new.buffers(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, rest)
                else:
                    mean.copy_(now)
