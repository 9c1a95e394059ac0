"""Stage 4, memory that serves again: large buffers of one step are those of the next one.

The system clears each page that it hands out, at a tenth of a step's time if all of its buffers are
new. So blocks stay with the process when nobody uses them any more, up to a limit, and a part of a
block may serve while the rest is free. Used by `pixcloud.ops.buffers_cpu`.
"""

from __future__ import annotations

import collections
import os
import threading
from dataclasses import dataclass

import numpy as np

UNIT = 1 << 12  # bytes; parts of blocks begin and end at multiples of it
SMALLEST = 1 << 18  # bytes of the smallest part that is worth keeping apart


@dataclass(frozen=True)
class Part:
    """Bytes from `start` to `stop` of a block."""

    block: np.ndarray
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class KeptMemory:
    """Blocks of memory, kept while they are free.

    Args:
        most: bytes that are kept while they are free; whole blocks beyond go back to the system.

    Example:
        >>> memory = KeptMemory(most=1 << 24)
        >>> first = memory.array(1 << 20)
        >>> place = first.ctypes.data
        >>> del first
        >>> memory.array(1 << 19).ctypes.data == place
        True
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):  # a lock that another thread held then stays locked
            os.register_at_fork(after_in_child=self._new_lock)
        self._free: list[Part] = []  # the oldest first
        # Arrays end at any time, within `array` too: what they leave waits here for the next call.
        self._left: collections.deque[Part] = collections.deque()

    def _new_lock(self) -> None:
        self._lock = threading.Lock()

    def array(self, size: int) -> np.ndarray:
        """Uninitialised bytes (size,), the caller's until no array looks at them any more."""
        size = -(-size // UNIT) * UNIT
        with self._lock:
            self._settle()
            part = self._taken(size)
        if part is None:
            part = Part(np.empty(size, np.uint8), 0, size)
        return np.asarray(_Owner(part, self))[:size]

    def free_bytes(self) -> int:
        """Bytes that nobody uses."""
        with self._lock:
            self._settle()
            return self._sum()

    def clear(self) -> None:
        """Give all that is free back to the system."""
        with self._lock:
            self._settle()
            self._give_back(self._sum())

    def leave(self, part: Part) -> None:
        """Take back a part; its array is not used any more."""
        self._left.append(part)
        # The collector may call this while the lock is held, by this very thread: never wait here.
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _sum(self) -> int:
        return sum(map(len, self._free))

    def _settle(self) -> None:
        """Add what was left to what is free, and give back what is too much."""
        while self._left:
            self._merge(self._left.popleft())
        self._give_back(self._sum() - self.most)

    def _merge(self, part: Part) -> None:
        """Add a free part, joined with its free neighbours in the block."""
        start, stop = part.start, part.stop
        apart = []
        for other in self._free:
            if other.block is part.block and other.stop == start:
                start = other.start
            elif other.block is part.block and other.start == stop:
                stop = other.stop
            else:
                apart.append(other)
        self._free = [*apart, Part(part.block, start, stop)]

    def _taken(self, size: int) -> Part | None:
        """The smallest free part of at least `size` bytes, less what is worth keeping of it."""
        fitting = [part for part in self._free if len(part) >= size]
        if not fitting:
            self._give_back(size)  # sizes have changed: as much as the new block takes
            return None
        part = min(fitting, key=len)
        self._free = [other for other in self._free if other is not part]
        if len(part) - size < SMALLEST:
            return part
        self._free.append(Part(part.block, part.start + size, part.stop))
        return Part(part.block, part.start, part.start + size)

    def _give_back(self, size: int) -> None:
        """Give back free blocks, the oldest first, until they make up `size` bytes.

        A block of which a part is in use cannot go: what is free of it stays.
        """
        for part in [part for part in self._free if len(part) == len(part.block)]:
            if size <= 0:
                return
            size -= len(part)
            self._free = [other for other in self._free if other is not part]


class _Owner:
    """Whom arrays, and the tensors made of them, keep as long as they look at its memory."""

    def __init__(self, part: Part, memory: KeptMemory) -> None:
        self._part, self._memory = part, memory
        self.__array_interface__ = part.block[part.start : part.stop].__array_interface__

    def __del__(self) -> None:
        self._memory.leave(self._part)
