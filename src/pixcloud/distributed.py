"""Stage 0, processes: what one of W processes needs of the others; the one place that knows ranks.

Each process holds B / W pairs of a batch of B. Whatever is defined over the whole batch (losses,
batch statistics, logged means) goes through a `World`: sums, rows side by side, moments, and
decisions that all processes take alike. With one process, `ALONE`, everything is the identity and
nothing is communicated.

A total loss is the sum of one part per process. The gradient of a sum or of gathered rows is then
the sum of the gradients of all processes, and nothing is scaled by W: that is what makes gradients
exact (`sum_with_gradient`, `gather_with_gradient`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from pixcloud.errors import PixCloudError

T = TypeVar("T")
# Newer names of the same; the older ones warn there.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
# Of so many processes it is cheaper to gather the moments of all, in one exchange, than to add them
# up in two: there are dozens of layers, and each waits for its own (docs/distributed.md).
FEW = 512


@dataclass(frozen=True)
class World:
    """The processes of a run, as seen from one of them.

    rank: of this one, 0 to size - 1; size: W; local_size: processes on this machine, of which this
    is number local_rank.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The part of `count` things, in order and without overlap, that is this process's.

        Sizes differ by at most one.

        >>> [World(rank, 3).share(8) for rank in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        each, more = divmod(count, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of the tensors of all processes; without gradient."""
        if self.size == 1:
            return x
        total = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of all processes in the order of ranks: (b, ...) -> (W b, ...); without gradient."""
        if self.size == 1:
            return x
        rows = x.new_empty(self.size * x.shape[0], *x.shape[1:])
        _all_gather(rows, x.detach().contiguous())
        return rows

    def gather_blocks(self, blocks: list[torch.Tensor], count: int, size: int) -> torch.Tensor:
        """Rows of all processes in one tensor (count, D), on all of them.

        Args:
            blocks: this process's share (see `share`) of the blocks of rows, on the CPU.
            count: rows of all processes.
            size: rows of a block; the last one is what remains.
        """
        if self.size == 1:
            return torch.cat(blocks)
        width = self.largest([block.shape[1] for block in blocks[:1]] or [0])[0]
        whole = torch.empty(count, width)
        for rank in range(self.size):
            part = World(rank, self.size).share(-(-count // size))
            rows = whole[part.start * size : part.stop * size]
            if rank == self.rank and blocks:
                torch.cat(blocks, out=rows)
            if len(rows):
                dist.broadcast(rows, src=rank)
        return whole

    def sum_with_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """As `sum`; the gradient of x is the sum of the gradients of all processes."""
        return x if self.size == 1 else _Sum.apply(x, self)

    def gather_with_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """As `gather`; the gradient of x is the sum, over the processes, of that of its rows."""
        return x if self.size == 1 else _Gather.apply(x, self)

    def moments(
        self, mean: torch.Tensor, var: torch.Tensor, count: float
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Mean and biased variance (C,) of all processes' values, in double precision.

        Args:
            mean: (C,) of this process's values.
            var: (C,) of them, biased.
            count: how many they are.

        Returns:
            mean, variance and count of all of them; equal on every process.
        """
        if self.size == 1:
            return mean, var, count
        mean, var = mean.double(), var.double()
        # The variance of all is what is within the processes and what is between them: no large
        # squares are subtracted from each other.
        if self.size <= FEW:
            own = torch.cat([mean, var, mean.new_full((1,), count)])
            means, within, counts = self.gather(own[None]).split([len(mean), len(mean), 1], dim=1)
            total = counts.sum()
            everyone = (means * counts).sum(0) / total
            spread = (counts * (within + (means - everyone).square())).sum(0) / total
        else:
            sums = self.sum(torch.cat([mean * count, mean.new_full((1,), count)]))
            total = sums[-1]
            everyone = sums[:-1] / total
            spread = self.sum(count * (var + (mean - everyone).square())) / total
        return everyone, spread, float(total)

    def largest(self, values: Sequence[int]) -> list[int]:
        """The largest of each number over all processes."""
        if self.size == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(together, dist.ReduceOp.MAX)
        return together.tolist()

    def same(self, value: str) -> bool:
        """Whether all processes have the same value."""
        return self.largest([self.decide(lambda: value) != value]) == [0]

    def decide(self, make: Callable[[], T]) -> T:
        """What `make` returns on the first process, on all of them; it runs there alone.

        Raises:
            PixCloudError: the one that it raised, on all of them.
        """
        if self.size == 1:
            return make()
        outcome: list[Any] = [None, None]
        fault: BaseException | None = None
        if self.first:
            try:
                outcome[0] = make()
            except PixCloudError as error:
                outcome[1] = fault = error
            # A fault of ours: the others must not wait for an answer that never comes.
            except BaseException as error:
                fault = error
                outcome[1] = PixCloudError(f"process 0: {type(error).__name__}: {error}")
        dist.broadcast_object_list(outcome, src=0)
        if fault is not None:
            raise fault
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def agree(self, make: Callable[[], T]) -> T:
        """What `make` returns on each process, if it raises on none.

        Raises:
            PixCloudError: that of the lowest rank where it raised, on all of them.
        """
        if self.size == 1:
            return make()
        result, fault = None, None
        try:
            result = make()
        except PixCloudError as error:
            fault = error
        faults: list[PixCloudError | None] = [None] * self.size
        dist.all_gather_object(faults, fault)
        for other in faults:
            if other is not None:
                raise fault if other is faults[self.rank] and fault is not None else other
        return result  # type: ignore[return-value]

    def broadcast_tensors(self, tensors: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        """The first process's tensors on all; the others give None and receive them on the CPU."""
        if self.size == 1:
            assert tensors is not None
            return tensors
        kinds = self.decide(lambda: {k: (v.shape, v.dtype) for k, v in (tensors or {}).items()})
        received = {}
        for name, (shape, dtype) in kinds.items():
            value = tensors[name].contiguous() if tensors else torch.empty(shape, dtype=dtype)
            if value.numel():
                dist.broadcast(value, src=0)
            received[name] = value
        return received


ALONE = World()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, world: World) -> torch.Tensor:
        ctx.world = world
        return world.sum(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.world.sum(grads[0]), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, world: World) -> torch.Tensor:
        ctx.rows = len(x)
        return world.gather(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        own = grads[0].new_empty(ctx.rows, *grads[0].shape[1:])
        _reduce_scatter(own, grads[0].contiguous())
        return own, None
