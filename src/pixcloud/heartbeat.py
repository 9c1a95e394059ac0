"""Stage 0, watching: a dead, stopped or stuck process is noticed without any collective.

A thread in each process writes to the launcher's store, every few seconds, that it is there and
how much processor time it has had. It reads the beat of the next process in a ring, so that the
load of the store grows with the number of processes only; the first process also reads all, to see
whether anybody works. Whoever finds something wrong writes it down for all, and every process ends
itself: waiting in a collective, it could do nothing else. A launcher brings the run back from its
last checkpoint, and `--resume true` does by hand.

Working is using the processor, in this process or its children: one that fits an SVM for an hour
while others wait for it is alive; when all wait, one of them is stuck.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import Any

import psutil

from pixcloud.distributed import World
from pixcloud.machine import STARTER

# Of its limit: how often a process beats, and after how long without a beat it counts as dead. The
# rest is for the others to read of it. That nobody works is told later than who is silent: a
# stopped process shows as both.
INTERVAL, PATIENCE, IDLE_PATIENCE = 1 / 12, 3 / 4, 11 / 12
# Share of one core that counts as work; a progress bar alone takes less.
WORK = 0.05
ENDED = "ended"


class Heartbeat:
    """Watches the processes of a world within its block.

    Without a store, from `share` on, it watches the launcher alone.

    Args:
        world: the processes.
        limit: seconds within which a lost process is noticed; 0 does not watch.
    """

    def __init__(self, world: World, limit: float) -> None:
        self.world, self.limit = world, limit
        self.store: Any = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self._ring = _Change()
        self._work = _Change()
        self._works: list[float] = []

    def share(self, store: Any) -> None:
        """Beat, and watch the others, through torch's Store of the launcher."""
        if self.limit:
            # A connection of its own: the main thread may wait on the other one.
            self.store = store.clone()

    def __enter__(self) -> Heartbeat:
        if self.limit:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self.limit)

    def _watch(self) -> None:
        beat = 0
        # At once for the first time: the launcher may have died while libraries were read.
        while not self._stop.wait(self.limit * INTERVAL if beat else 0):
            beat += 1
            if os.getppid() != STARTER:
                self._end("its launcher is gone")
            if self.store is None:
                continue
            try:
                self.store.set(f"beat/{self.world.rank}", f"{beat} {_processor_seconds():.2f}")
                reason = self._look()
            except RuntimeError as error:  # the store is gone, and with it the launcher's host
                if self._stop.is_set():
                    return
                self._end(f"its launcher cannot be reached ({str(error).splitlines()[0]})")
            if reason:
                self._end(reason)
        if self.store is not None:
            try:
                self.store.set(f"beat/{self.world.rank}", "done 0")
            except RuntimeError:  # the others have gone already
                return

    def _look(self) -> str:
        """What is wrong, or nothing."""
        if self.store.check([ENDED]):
            return str(self.store.get(ENDED).decode())
        next_rank = (self.world.rank + 1) % self.world.size
        silent = self._ring.since(self._beat(next_rank))
        if silent > self.limit * PATIENCE:
            return f"process {next_rank} has not been heard of for {silent:.0f} s"
        return self._idle() if self.world.first else ""

    def _beat(self, rank: int) -> str:
        key = f"beat/{rank}"
        return self.store.get(key).decode() if self.store.check([key]) else ""

    def _idle(self) -> str:
        """Whether no process has worked for too long; one that has ended well is no matter."""
        keys = [f"beat/{rank}" for rank in range(self.world.size)]
        if not self.store.check(keys):
            return ""
        works = [float(value.decode().split()[1]) for value in self.store.multi_get(keys)]
        if not self._works or self._worked(works):
            self._works = works
            self._work.reset()
        # The time of children that have ended is lost: work counts from what is left.
        self._works = [min(now, then) for now, then in zip(works, self._works, strict=True)]
        silent = self._work.since("")
        if silent > self.limit * IDLE_PATIENCE:
            return f"no process has worked for {silent:.0f} s: one of them is stuck"
        return ""

    def _worked(self, works: list[float]) -> bool:
        enough = WORK * self.limit * IDLE_PATIENCE
        return any(now - then > enough for now, then in zip(works, self._works, strict=True))

    def _end(self, reason: str) -> None:
        """Tell the others and the person, and end this process at once."""
        if self.store is not None:
            try:
                if not self.store.check([ENDED]):
                    self.store.set(ENDED, reason)
            except RuntimeError:
                reason = reason or "its launcher cannot be reached"
        if self._stop.is_set():
            return
        sys.stderr.write(
            f"pixcloud: process {self.world.rank} ends: {reason}; checkpoints stay as they are\n"
        )
        sys.stderr.flush()
        for child in psutil.Process().children(recursive=True):  # reading processes
            child.kill()
        os._exit(1)


class _Change:
    """For how long a value has been the same."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.reset()

    def reset(self) -> None:
        self.time = time.monotonic()

    def since(self, value: str) -> float:
        """Seconds since the value changed to this one; 0 when it just did, or when it is done."""
        if value != self.value or value.startswith("done"):
            self.value = value
            self.reset()
            return 0.0
        return time.monotonic() - self.time


def _processor_seconds() -> float:
    """Processor time of this process and of its children."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total
