"""Processes that this program starts: they end with it, whatever happens."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import psutil

import pixcloud


class Children:
    """Starts processes; at the end of its block those that are left are killed, by their ids.

    Args:
        cache: folder that stands for the user's cache.
    """

    def __init__(self, cache: Path) -> None:
        self.environment = {
            **os.environ,
            "PIXCLOUD_CACHE": str(cache),
            # The package of this program, wherever the other one starts.
            "PYTHONPATH": str(Path(pixcloud.__file__).resolve().parents[1]),
        }
        self._started: list[subprocess.Popen[bytes]] = []
        self._others: list[psutil.Process] = []

    def start(self, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start `python WORDS` with both outputs added to the file `log`."""
        with log.open("ab") as stream:
            child = subprocess.Popen(
                [sys.executable, *words],
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,  # Ctrl-C reaches this program alone
            )
        self._started.append(child)
        return child

    def finish(self, words: Sequence[str], log: Path, timeout: float = 300) -> tuple[int, str]:
        """Run `python WORDS` to its end: exit code, and what it wrote."""
        before = log.stat().st_size if log.exists() else 0
        code = self.start(words, log).wait(timeout)
        return code, log.read_bytes()[before:].decode(errors="replace")

    def watch(self, processes: Iterable[psutil.Process]) -> None:
        """End these, too: descendants of a child that may outlive it."""
        self._others = [process for process in self._others if alive(process)]
        self._others += [process for process in processes if process not in self._others]

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self._started:
            if child.poll() is None:
                with contextlib.suppress(psutil.Error):
                    self.watch(psutil.Process(child.pid).children(recursive=True))
                child.kill()
                child.wait()
        for process in self._others:
            if alive(process):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        seconds_until_gone(self._others, 10)


def alive(process: psutil.Process) -> bool:
    """Whether the very process still runs; one that waits to be collected does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def seconds_until_gone(processes: Sequence[psutil.Process], limit: float) -> float | None:
    """How long it took until none of them runs; None if some still do after `limit` seconds."""
    start = time.monotonic()
    while any(map(alive, processes)):
        if time.monotonic() - start > limit:
            return None
        time.sleep(0.02)
    return time.monotonic() - start
