"""Stage 4, batch normalisation: statistics of a batch that lies on one process or on several.

Operators that compute the statistics of their own BN layer take its running ones from here, and
its `World`: whose processes hold the rest of the batch. `synchronize` gives a module's BN layers
that world; all others are `ALONE`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from pixcloud.distributed import ALONE, World


def running_statistics(bn: nn.BatchNorm1d) -> tuple[torch.Tensor, torch.Tensor]:
    """Running mean and variance (C,), which evaluation uses."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    return bn.running_mean, bn.running_var


@torch.no_grad()
def update_running(bn: nn.BatchNorm1d, mean: torch.Tensor, var: torch.Tensor, count: float) -> None:
    """Move the running statistics of `bn` towards those of a batch, as its own forward would.

    Args:
        bn: the layer.
        mean: (C,) of the batch.
        var: (C,), biased.
        count: values per channel, over all processes.
    """
    running_mean, running_var = running_statistics(bn)
    assert bn.momentum is not None
    assert bn.num_batches_tracked is not None
    unbiased = var * (count / max(count - 1, 1))
    bn.num_batches_tracked += 1
    running_mean.lerp_(mean.to(running_mean.dtype), bn.momentum)
    running_var.lerp_(unbiased.to(running_var.dtype), bn.momentum)


def world_of(bn: nn.Module) -> World:
    """The processes that share the batch which `bn` normalises."""
    world: World = getattr(bn, "world", ALONE)
    return world


class SynchronizedBatchNorm(nn.BatchNorm1d):
    """BN over the channels (B, C, ...) of a batch that lies on several processes, on any device.

    Values and gradients are those of one process with the whole batch (Peng et al. 2018,
    arXiv:1711.07240), as in torch's own layer, which serves GPUs only. State dicts are those of the
    layer that it replaces.
    """

    world: World = ALONE

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"(B, C, ...) is expected, got {tuple(input.shape)}")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.world.size == 1:
            return super().forward(input)
        self._check_input_dim(input)
        weight, bias = self.weight, self.bias
        if weight is None:
            weight, bias = (input.new_full((self.num_features,), f) for f in (1.0, 0.0))
        y, mean, var, count = _Synchronized.apply(input, weight, bias, self.eps, self.world)
        update_running(self, mean, var, float(count))
        return y


class _Synchronized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
        world: World,
    ) -> tuple[torch.Tensor, ...]:
        # What torch's own layer calls: var_mean takes 25 times as long on processors.
        local_mean, local_var = torch.ops.aten.batch_norm_update_stats(
            x.to(weight.dtype), None, None, 0.0
        )
        count = x.numel() // x.shape[1]
        mean, var, total = world.moments(local_mean, local_var, count)
        ctx.world, ctx.eps, ctx.count = world, eps, total
        rounded = mean.to(weight.dtype), var.to(weight.dtype)
        ctx.save_for_backward(x, weight, *rounded)
        y = F.batch_norm(x, *rounded, weight, bias, False, 0.0, eps)
        counted = torch.tensor(total, dtype=torch.float64)
        ctx.mark_non_differentiable(mean, var, counted)
        return y, mean, var, counted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        # With the statistics as constants: torch's own pass for evaluation, and this process's sums
        # of gradients, and of them times the normalised values.
        grad_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            *(grads[0], x, weight, mean, var, None, None, False, ctx.eps, [True] * 3)
        )
        inverse = torch.rsqrt(var + ctx.eps)
        sums = ctx.world.sum(torch.stack([of_bias, of_weight]).double())
        each, slope = (weight * inverse / ctx.count * sums).to(weight.dtype)
        shape = [1, -1] + [1] * (x.dim() - 2)
        normalised = F.batch_norm(x, mean, var, None, None, False, 0.0, ctx.eps)
        grad_x.sub_(each.view(shape)).addcmul_(slope.view(shape), normalised, value=-1)
        return grad_x, of_weight, of_bias, None, None


def synchronize(module: nn.Module, world: World) -> None:
    """Let all BN layers within a module take their statistics over the processes of a world.

    Weights and statistics stay the same tensors, under the same names.
    """
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, _BatchNorm):
                continue
            twin = layer
            if not isinstance(layer, SynchronizedBatchNorm):
                twin = SynchronizedBatchNorm(
                    *(layer.num_features, layer.eps, layer.momentum),
                    affine=layer.affine,
                    track_running_stats=layer.track_running_stats,
                    device="meta",
                )
                twin.training = layer.training
                twin._parameters, twin._buffers = layer._parameters, layer._buffers
                setattr(parent, name, twin)
            twin.world = world  # type: ignore[assignment]
