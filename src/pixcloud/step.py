"""Stage 7, one step of the optimiser: PairBatches of this process -> losses, and new weights.

A batch that is too large for memory goes through in micro-batches with a loss over all of it
(gradient caching, Gao et al. 2021, arXiv:2101.06983): projections of all micro-batches first,
without gradients; the loss and its gradients with respect to them; then each micro-batch again,
with those gradients. BN normalises over each micro-batch; with statistics that do not depend on the
batch, the result is that of the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pixcloud.checkpoint import generator_states, restore_generators
from pixcloud.config import PretrainConfig
from pixcloud.data.loading import to_device
from pixcloud.data.views import augment_clouds, augment_pictures
from pixcloud.data_parallel import DataParallel
from pixcloud.distributed import World
from pixcloud.objective import CrossModalObjective
from pixcloud.types import PairBatch

LOSSES = ("loss", "intra", "cross")
Views = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Step:
    """Forward, backward and update.

    Args:
        config: resolved.
        objective: the module itself.
        parallel: the objective as it is wrapped for training.
        optimizer: of all its weights.
        world: the processes that share each batch.
    """

    def __init__(
        self,
        config: PretrainConfig,
        objective: CrossModalObjective,
        parallel: DataParallel,
        optimizer: torch.optim.Optimizer,
        world: World,
    ) -> None:
        self.config, self.parallel, self.world = config, parallel, world
        self.objective, self.optimizer = objective, optimizer
        self.micro_batch = (config.trainer.micro_batch or config.trainer.batch_size) // world.size

    def __call__(self, batches: list[PairBatch], lr: float) -> tuple[torch.Tensor, bool]:
        """Take one step over batches whose gradients are averaged.

        Returns:
            This process's parts (len(batches), 3) of the losses, in the order of `LOSSES`; and
            whether the gradient was finite. If it was not, nothing has changed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        before = self._statistics()
        rows = []
        for number, batch in enumerate(batches):
            last = number + 1 == len(batches)
            losses = self._backward(to_device(batch, self.parallel.device), last)
            rows.append(torch.stack([losses[name].detach().double() for name in LOSSES]))
        parts = torch.stack(rows).cpu()
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        # Gradients are summed over the processes, so that all of them decide alike.
        norm = get_total_norm(gradients)
        if not torch.isfinite(norm):
            for buffer, value in before:
                buffer.copy_(value)
            self.optimizer.zero_grad()
            return parts, False
        if self.config.optim.clip_norm:
            weights = [p for p in self.objective.parameters() if p.grad is not None]
            clip_grads_with_norm_(weights, self.config.optim.clip_norm, norm)
        self.optimizer.step()
        self.objective.after_step()
        return parts, True

    def _statistics(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Buffers, such as BN's running statistics, and copies of them."""
        return [(b, b.clone()) for b in self.objective.buffers() if b is not None]

    def _backward(self, batch: PairBatch, last: bool) -> dict[str, torch.Tensor]:
        """Gradients of one batch, added to those that are there, and its losses."""
        # Gradients are averaged over the processes, and the loss is the sum of their parts.
        share = self.world.size / self.config.trainer.accumulate
        if len(batch.points) <= self.micro_batch:
            with self.parallel.gathering(last):
                losses: dict[str, torch.Tensor] = self.parallel(*self._views(batch))
                (losses["loss"] * share).backward()
            return losses
        parts = list(_parts(batch, self.micro_batch))
        z, states = self._projections(parts)
        z.requires_grad_()
        # Learned temperatures get their gradient in the second pass too, where it is gathered.
        learned = self.objective.log_temperature
        given = None if learned is None else learned.detach().clone().requires_grad_()
        losses = self.objective.losses(z, given, parts=len(parts))
        losses["loss"].backward()
        assert z.grad is not None
        pulls = [] if given is None or given.grad is None else [given.grad]
        for number, (part, state) in enumerate(zip(parts, states, strict=True)):
            restore_generators(state)
            upstream = z.grad[number * self.micro_batch :][: self.micro_batch]
            shares = [pull / len(parts) for pull in pulls]
            with self.parallel.gathering(last and number + 1 == len(parts)):
                surrogate = self.parallel(*self._views(part), upstream, *shares)
                (surrogate["loss"] * share).backward()
        return losses

    @torch.no_grad()
    def _projections(
        self, parts: list[PairBatch]
    ) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
        """Projections (B, 3, P) of all micro-batches, and random states before each.

        Running statistics stay as they are: the second pass moves them.
        """
        before, rows, states = self._statistics(), [], []
        for part in parts:
            states.append(generator_states(self.config.trainer.device))
            with self.parallel.precision():
                z = self.objective.project(*self._views(part))
            rows.append(z.float() if z.dtype in (torch.bfloat16, torch.float16) else z)
        for buffer, value in before:
            buffer.copy_(value)
        return torch.cat(rows), states

    def _views(self, batch: PairBatch) -> Views:
        view1, view2 = augment_clouds(batch.points, batch.draws)
        return view1, view2, augment_pictures(batch.pictures, batch.draws)


def _parts(batch: PairBatch, size: int) -> Iterator[PairBatch]:
    """Consecutive parts of a batch."""
    for low in range(0, len(batch.points), size):
        part = slice(low, low + size)
        yield PairBatch(
            batch.sample_index[part],
            batch.points[part],
            batch.pictures[part],
            {name: draw[part] for name, draw in batch.draws.items()},
        )
