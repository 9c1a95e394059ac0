"""Stage 4, memory of the processor kernels: large tensors, and flat views of rows for the kernels.

A fresh tensor of 64 MiB costs 55 ms on its first pass where the system hands out pages of 4 KiB, a
quarter of a large product's time; numpy asks for huge pages, and the same pass takes 10 ms or more.
So a step's large buffers stay with the process and serve in the next step (`kept_memory`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from pixcloud.ops.kept_memory import KeptMemory

# Bytes of one vector in `pixcloud.ops.lanes_cpu`: channels are padded to whole vectors.
LANE_BYTES = 64
# Bytes of the smallest buffer whose memory is kept for later.
SMALLEST = 1 << 20
MEMORY = KeptMemory(most=1 << 29)
NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def lanes(dtype: torch.dtype) -> int:
    """Numbers in a vector of the kernels: 16 of fp32, 8 of fp64."""
    return LANE_BYTES // dtype.itemsize


def padded(channels: int, dtype: torch.dtype, vectors: int = 1) -> int:
    """Channels, rounded up to whole vectors, or to whole runs of some vectors.

    Example:
        >>> padded(20, torch.float32), padded(33, torch.float32, vectors=2)
        (32, 64)
    """
    whole = vectors * lanes(dtype)
    return -(-channels // whole) * whole


def empty(*shape: int, like: torch.Tensor) -> torch.Tensor:
    """Uninitialised tensor of the type of `like`, in memory that is free again where there is some.

    Example:
        >>> empty(3, 5, like=torch.zeros(1)).data_ptr() % 64
        0
    """
    return torch.from_numpy(room(shape, np.dtype(NUMPY[like.dtype])))


def room(shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """Uninitialised array; one that is large is in memory that is free again, if there is some.

    It starts at a line of the cache: vectors that lie in two lines cost twice.
    """
    size = math.prod(shape) * kind.itemsize
    if size < SMALLEST:
        memory = np.empty(size + LANE_BYTES, np.uint8)
    else:
        memory = MEMORY.array(size + LANE_BYTES)
    start = -memory.ctypes.data % LANE_BYTES
    return memory[start : start + size].view(kind).reshape(shape)


def flat_rows(x: torch.Tensor, vectors: int = 1) -> tuple[np.ndarray, int]:
    """Rows of x (B, N, C), each of whole (runs of) vectors: a flat array, and the step of the rows.

    A slice of channels of a larger tensor is taken as it lies; only other layouts are copied.
    """
    batch, num_points, channels = x.shape
    short = padded(channels, x.dtype, vectors) - channels
    step = x.stride(1) if num_points > 1 else x.stride(0)
    uniform = x.stride(2) == 1 and step >= channels
    uniform = uniform and (batch == 1 or x.stride(0) == num_points * step)
    if short or not uniform:
        x = F.pad(x, (0, short)).contiguous()
        step = channels + short
    length = (batch * num_points - 1) * step + channels + short
    flat: np.ndarray = x.detach().as_strided((length,), (1,)).numpy()
    return flat, step


def flat(x: torch.Tensor) -> np.ndarray:
    """Flat array of a contiguous tensor, sharing its memory."""
    numbers: np.ndarray = x.detach().view(-1).numpy()
    return numbers
