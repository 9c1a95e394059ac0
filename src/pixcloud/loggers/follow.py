"""Stage 7, following: a run folder -> sessions that bring its lines to a service.

Started by `followers` beside training: `python -m pixcloud.loggers.follow TARGET PARENT`; or run by
`upload` in the foreground. It holds no library of a service, so that none can hang it: a session
that is silent for too long is killed and tried again after a growing pause. It ends when training
has ended, or is gone, and all is there or the time for that is over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from pixcloud.loggers.kept import Kept, read_kept, write_kept
from pixcloud.loggers.lines import PER_STEP
from pixcloud.loggers.target import Target, from_json

try:
    import fcntl
except ImportError:  # no such locks on Windows; there, two at once are the user's to avoid
    fcntl = None  # type: ignore[assignment]

# Seconds before the second attempt; then twice as many each time, up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 15.0, 600.0
LOOK_SECONDS = 0.25
SAVE_SECONDS = 2.0


class Follower:
    """Brings a run to one target.

    Args:
        target: where to.
        parent: process whose end is that of training; None to bring over what is there and end.
        patience: seconds for all attempts once training has ended.
        persistent: try again in that time, instead of once.
    """

    def __init__(
        self, target: Target, *, parent: int | None, patience: float, persistent: bool = False
    ) -> None:
        self.target, self.parent = target, parent
        self.patience, self.persistent = patience, persistent
        self.kept = Kept()
        self.end: float | None = None  # when it must be done; None while training goes on
        self.saved = 0.0
        if parent is None:
            self.stop()

    def stop(self, *_: Any) -> None:
        """Training has ended: bring over the rest."""
        if self.end is None:
            self.end = time.monotonic() + self.patience

    def ending(self) -> bool:
        """Whether training has ended, or is gone."""
        if self.end is None and os.getppid() != self.parent:
            self.stop()
        return self.end is not None

    def left(self) -> float:
        """Seconds that remain; endless while training goes on."""
        return self.end - time.monotonic() if self.end is not None else float("inf")

    def go(self) -> bool:
        """Bring over all; returns whether the service has it."""
        self.kept = read_kept(self.target)
        if self.target.resumed is not None:  # what came after it is run and logged again
            self.kept.place = min(self.kept.place, PER_STEP * (self.target.resumed + 1) - 1)
        pause = FIRST_PAUSE
        while True:
            before = self.kept.place
            reason = self.unreachable() or self.attempt()
            self.kept.error = reason
            self.save()
            if not reason:
                return True
            sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {reason}\n")
            if self.ending() and not (self.persistent and self.left() > pause):
                return False
            if self.kept.place > before:
                pause = FIRST_PAUSE
            self.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def wait(self, seconds: float) -> None:
        """Pause, or until training ends."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and (self.persistent or not self.ending()):
            time.sleep(LOOK_SECONDS)

    def unreachable(self) -> str:
        """Why the server does not answer at all; a cheap question before an expensive attempt."""
        server = self.target.server
        if not server:
            return ""
        seconds = max(0.1, min(10.0, self.target.timeout, self.left()))
        try:
            urllib.request.urlopen(server, timeout=seconds).close()
        except urllib.error.HTTPError:
            return ""  # an answer
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if "certificate" in str(reason).lower():
                return ""  # the service's own library may know of others
            return f"{server} does not answer: {reason}"
        except Exception as error:  # something answers, but it speaks no HTTP
            return f"{server} gives no sensible answer: {type(error).__name__}"
        return ""

    def attempt(self) -> str:
        """One session; returns why it failed, or nothing if the service has all."""
        words: queue.Queue[str | None] = queue.Queue()
        process = self.begin()
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def listen() -> None:
            for line in stdout:
                words.put(line)
            words.put(None)

        threading.Thread(target=listen, daemon=True).start()
        heard, self.kept.error = time.monotonic(), ""
        while True:
            if self.ending() and not stdin.closed:
                with contextlib.suppress(OSError):
                    stdin.close()
            with contextlib.suppress(queue.Empty):
                word = words.get(timeout=LOOK_SECONDS)
                if word is None:
                    break
                heard = time.monotonic()
                self.hear(word)
            if time.monotonic() - heard > self.target.timeout:
                end_process(process.pid)
                return f"no sign of life for {self.target.timeout:g} s"
            if self.left() < 0:
                end_process(process.pid)
                return self.kept.error or "there was no time for everything"
        code = process.wait()
        end_process(process.pid)
        if code == 0 and self.ending():
            return ""
        return self.kept.error or f"the session ended with code {code}"

    def begin(self) -> subprocess.Popen[str]:
        """Start a session."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "pixcloud.loggers.session"),
                *(self.target.to_json(), json.dumps(dataclasses.asdict(self.kept))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self, word: str) -> None:
        """Take over what a session says."""
        with contextlib.suppress(ValueError):
            values = json.loads(word)
            changed = any(getattr(self.kept, key, None) != value for key, value in values.items())
            self.kept.update(values)
            if changed and time.monotonic() - self.saved > SAVE_SECONDS:
                self.save()

    def save(self) -> None:
        """Keep how far it is; on a full disk what was kept before stays."""
        self.saved = time.monotonic()
        with contextlib.suppress(OSError):
            write_kept(self.target, self.kept)


def end_process(pid: int) -> None:
    """Kill a process and those that it started."""
    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.Error:
        return
    for member in family:
        with contextlib.suppress(psutil.Error):
            member.kill()


@contextmanager
def only_one(target: Target, go_on: Callable[[], bool]) -> Iterator[bool]:
    """Hold the place of the only process that brings this run there.

    Args:
        target: where to.
        go_on: asked while another one holds it.

    Yields:
        Whether it is held; if not, `go_on` said no.
    """
    target.folder.mkdir(parents=True, exist_ok=True)
    with open(target.folder / f"{target.name}.lock", "w") as stream:
        held = fcntl is None
        while not held:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except OSError:
                if not go_on():
                    break
                time.sleep(LOOK_SECONDS)
        yield held


def step_aside() -> None:
    """Leave the processors to training."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)
    # Where each terminal session is scheduled as one, niceness counts within it alone.
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as stream:
        stream.write("10")


def main() -> None:
    """Follow the run of the process that started this one."""
    target = from_json(sys.argv[1])
    step_aside()
    follower = Follower(target, parent=int(sys.argv[2]), patience=target.drain)
    signal.signal(signal.SIGTERM, follower.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with only_one(target, lambda: not follower.ending()) as held:
        if held:
            follower.go()


if __name__ == "__main__":
    main()
