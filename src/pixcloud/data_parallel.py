"""Stage 7, the objective as it is trained: on its device, in its precision, gradients averaged."""

from __future__ import annotations

import contextlib
import inspect
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pixcloud.distributed import World

# Products and convolutions in this type, where the weights stay in fp32.
PRECISIONS = {"32": None, "bf16": torch.bfloat16}


class DataParallel:
    """A module that every process holds, trained on its share of each batch.

    Args:
        module: whose outputs are a dict of losses; it goes to the device in place.
        device: cpu or cuda; there each process has the GPU of its local rank.
        precision: a key of `PRECISIONS`.
        world: with more than one process, gradients become the mean over all of them.

    Example:
        >>> from pixcloud.distributed import ALONE
        >>> parallel = DataParallel(nn.Linear(3, 2), "cpu", "32", ALONE)
        >>> parallel.device
        device(type='cpu')
    """

    def __init__(self, module: nn.Module, device: str, precision: str, world: World) -> None:
        self.device = torch.device(device)
        if device == "cuda":
            # `pixcloud.launch` has made this the GPU of the local rank.
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.dtype = PRECISIONS[precision]
        self.module: Any = module.to(self.device)
        self.wrapped: Any = module
        if world.size > 1:
            # Statistics are equal everywhere, and every output reaches the loss.
            alone: dict[str, Any] = {_buffers_setting(): False, "find_unused_parameters": False}
            places = [self.device] if device == "cuda" else None
            self.wrapped = DistributedDataParallel(
                module, device_ids=places, gradient_as_bucket_view=True, **alone
            )

    def precision(self) -> AbstractContextManager[Any]:
        """Products within the block are in the type of `PRECISIONS`."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """The module's outputs, from a backward pass through which gradients are averaged."""
        with self.precision():
            return self.wrapped(*inputs)

    def gathering(self, last: bool) -> AbstractContextManager[Any]:
        """Before the last of several backward passes nothing is averaged; in it all of them are."""
        if last or self.wrapped is self.module:
            return contextlib.nullcontext()
        no_sync: AbstractContextManager[Any] = self.wrapped.no_sync()
        return no_sync


def _buffers_setting() -> str:
    """What torch calls the setting that sends buffers around in every forward pass."""
    known = inspect.signature(DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
