"""Stage 7, followers: what `trainer` does about loggers. It starts a process for each, and no more.

Before it: the settings of a run. After it: `follow`, in those processes. Training waits for them
only at its end, for some seconds; nothing that goes wrong here reaches it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from types import TracebackType

from pixcloud.config import PretrainConfig
from pixcloud.loggers.follow import end_process
from pixcloud.loggers.kept import account
from pixcloud.loggers.target import Target, target_of
from pixcloud.ranges import logger_names
from pixcloud.run_folder import RunFolder

# Seconds for ending, beside those of the drain.
GRACE = 3.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Followers:
    """Within its block the loggers of a run follow it.

    Args:
        config: of the run.
        run: its folder, which `RunFolder.start` has made.
        step: from which training goes on.

    Example:
        >>> with Followers(config, run, step=0):  # doctest: +SKIP
        ...     trainer.fit(batches, stop)
    """

    def __init__(self, config: PretrainConfig, run: RunFolder, step: int) -> None:
        self.config, self.run, self.step = config, run, step
        self.started: list[tuple[Target, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Followers:
        # Of several processes, the one that writes the run folder.
        for name in logger_names(self.config.log) if self.run.world.first else ():
            try:
                target = target_of(self.config, name, self.run.path, self.step)
                self.started.append((target, start_follower(target)))
            except Exception as error:
                self._say(f"{name}: not started ({error}); metrics.jsonl is complete without it")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for _, process in self.started:
                with contextlib.suppress(OSError):
                    process.terminate()
            end = time.monotonic() + self.config.wandb.drain + GRACE
            for _, process in self.started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, end - time.monotonic()))
        finally:
            for _, process in self.started:
                if process.poll() is None:
                    end_process(process.pid)
                    process.wait()
        for target, _ in self.started:
            self._say(_account(target))

    def _say(self, line: str) -> None:
        with contextlib.suppress(Exception):
            self.run.say(line)


def _account(target: Target) -> str:
    try:
        return account(target)
    except Exception as error:
        return f"{target.name}: {error}"


def start_follower(target: Target) -> subprocess.Popen[bytes]:
    """The process that brings a run to a target, for as long as this one lives."""
    target.folder.mkdir(parents=True, exist_ok=True)
    with open(target.folder / f"{target.name}.log", "ab") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "pixcloud.loggers.follow"),
                target.to_json(),
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,
        )
