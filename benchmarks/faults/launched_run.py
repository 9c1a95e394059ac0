"""A run that torchrun launches, seen from outside: its processes, its steps and its starts."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.faults.children import Children, alive, seconds_until_gone
from benchmarks.faults.tiny_run import checkpoints, starts

POLL = 0.005
# Workers that lost their launcher have so long to end.
GONE_WITHIN = 60.0
# Imports of all processes on a busy machine, and the first step.
BACK_WITHIN = 180.0


@dataclass(frozen=True)
class Start:
    """from_step: where it went on; lost: steps that were logged before and are run again; missed:
    whether there was a newer finished checkpoint when the fault struck."""

    from_step: int
    lost: int
    missed: bool


class LaunchedRun:
    """Starts the launcher, finds what it started, follows the steps.

    Args:
        children: where processes are started.
        arguments: of `python -m`, for the training.
        run: its run folder.
        log: file for what all of them say.
        processes: training processes.
        restarts: how many deaths of workers the launcher takes.

    Attributes:
        reached: the greatest step that was logged since the last start.
        begun: every start of it that train.log holds.
    """

    def __init__(
        self,
        children: Children,
        arguments: list[str],
        run: Path,
        log: Path,
        *,
        processes: int,
        restarts: int,
    ) -> None:
        self.children, self.arguments, self.run, self.log = children, arguments, run, log
        self.processes, self.restarts = processes, restarts
        self.reached = self.newest_at_death = 0
        self.begun: list[Start] = []
        self._size = 0

    def start(self) -> None:
        """Start the launcher; it begins the run, or goes on with it."""
        options = [
            *("--standalone", "--nproc-per-node", str(self.processes)),
            *("--max-restarts", str(self.restarts)),
        ]
        # Without the dashes the launcher would take --run for one of its own options.
        command = ["-m", "torch.distributed.run", *options, "-m", "--", *self.arguments]
        self.launcher: subprocess.Popen[bytes] = self.children.start(command, self.log)
        self.process = psutil.Process(self.launcher.pid)

    def trainers(self) -> list[psutil.Process]:
        """Training processes that run now: the launcher's children."""
        return [p for p in self._living(recursive=False) if _is_training(p)]

    def readers(self) -> list[psutil.Process]:
        """Processes that read data for them."""
        trainers = self.trainers()
        return [p for p in self._living(recursive=True) if p not in trainers and _is_training(p)]

    def _living(self, *, recursive: bool) -> list[psutil.Process]:
        try:
            found = self.process.children(recursive=recursive)
        except psutil.NoSuchProcess:
            return []
        return [process for process in found if alive(process)]

    def look(self) -> None:
        """Read on in train.log and metrics.jsonl."""
        log = self.run / "train.log"
        size = log.stat().st_size if log.exists() else 0
        if size != self._size:
            self._size = size
            for step in starts(self.run)[len(self.begun) :]:
                # What was logged after that step was taken out of metrics.jsonl before.
                self.begun.append(
                    Start(step, self.reached - step, missed=step < self.newest_at_death)
                )
                self.reached = step
        self.reached = max(self.reached, last_step(self.run / "metrics.jsonl"))

    def watch_for(self, seconds: float) -> None:
        """Look again and again for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.look()
            time.sleep(min(left, POLL))

    def wait_until(self, ready: Callable[[], bool], limit: float) -> bool:
        """Look again and again until `ready`; False if the launcher ended or time is up."""
        end = time.monotonic() + limit
        while True:
            self.look()
            if ready():
                return True
            if self.launcher.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(POLL)

    def newest_checkpoint(self) -> int:
        """Step of the newest finished checkpoint; 0 if there is none."""
        found = checkpoints(self.run)
        return int(found[-1].name.removeprefix("step-")) if found else 0

    def kill(self, victim: psutil.Process) -> str:
        """SIGKILL to a process of ours; in words why it did not fire, else empty."""
        is_launcher = victim.pid == self.launcher.pid
        ours = is_launcher or victim in self._living(recursive=True)
        if not ours or not alive(victim):
            return f"process {victim.pid} was not there to be killed"
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return f"process {victim.pid} ended just before"
        self.newest_at_death = self.newest_checkpoint()
        if is_launcher:
            code = self.launcher.wait(10)
            return "" if code == -signal.SIGKILL else f"the launcher ended with {code}"
        return "" if seconds_until_gone([victim], 10) is not None else "it lived on"


def _is_training(process: psutil.Process) -> bool:
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    return "pixcloud.cli" in line and "pretrain" in line


def last_step(path: Path) -> int:
    """The step of the last whole line of metrics.jsonl; 0 if there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(stream.seek(0, 2) - 2000, 0))
            whole = stream.read().split(b"\n")[:-1]
        return int(json.loads(whole[-1])["step"])
    except (FileNotFoundError, IndexError, ValueError, KeyError):
        return 0
