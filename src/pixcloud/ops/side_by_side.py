"""Stage 4, features of several layers side by side without a copy: (B, N, C_l) -> (B, N, sum C_l).

Each layer writes into its slice of one memory; joining them is then a matter of autograd alone.

Shape legend: B clouds, N points, C_l channels of layer l.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from pixcloud.ops.buffers_cpu import empty
from pixcloud.ops.edge_conv import has_kernels


class SideBySide:
    """Memory for the outputs of layers, and their join.

    Where layers have no kernels that could write into it, or did not, the join is a copy.

    Args:
        batch: B.
        num_points: N.
        widths: C_l of each layer.
        like: tensor of the type and device of the outputs.

    Example:
        >>> memory = SideBySide(1, 2, [1, 2], torch.zeros(1))
        >>> outputs = [part.fill_(n) for n, part in enumerate(memory.parts)]
        >>> memory.join(outputs).tolist()
        [[[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]]
    """

    def __init__(
        self, batch: int, num_points: int, widths: Sequence[int], like: torch.Tensor
    ) -> None:
        self.parts: list[torch.Tensor | None] = [None for _ in widths]
        self.widths = list(widths)
        if has_kernels(like):
            self._whole = empty(batch, num_points, sum(widths), like=like)
            ends = list(itertools.accumulate(widths))
            numbers = self._whole.numpy()
            # Tensors of their own, not views: autograd must not take them for one another.
            self.parts = [
                torch.from_numpy(numbers[..., end - width : end])
                for width, end in zip(widths, ends, strict=True)
            ]

    def join(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Outputs (B, N, C_l) of the layers to (B, N, sum C_l)."""
        for part, output in zip(self.parts, outputs, strict=True):
            if part is None or part.data_ptr() != output.data_ptr():
                return torch.cat(list(outputs), dim=-1)
        joined: torch.Tensor = _Join.apply([self._whole], self.widths, *outputs)
        return joined


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, whole: list[torch.Tensor], widths: list[int], *outputs: torch.Tensor
    ) -> torch.Tensor:
        ctx.widths = widths
        # Layers have saved their slices of it as tensors of their own: only through this one does
        # autograd see, and refuse, that somebody changed their numbers in place.
        ctx.save_for_backward(whole[0])
        return whole[0]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _ = ctx.saved_tensors
        *firsts, last = grads[0].split(ctx.widths, dim=-1)
        # Each of the first layers gets a second gradient, from the layer that follows it: autograd
        # adds that in place to a tensor of its own, but makes a new one of a slice.
        own = [empty(*part.shape, like=part).copy_(part) for part in firsts]
        return (None, None, *own, last)
