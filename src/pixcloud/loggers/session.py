"""Stage 7, sessions: one attempt to bring a run's lines to a service, in a process of its own.

Started by `follow`, which ends it when it says nothing for too long: `python -m
pixcloud.loggers.session TARGET KEPT`. What the service has goes to standard output, one JSON object
per line; standard input stays open until it shall bring over the rest and end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from pixcloud.config_files import load_config
from pixcloud.errors import PixCloudError
from pixcloud.evaluate.results import RESULTS, ResultRow, read_rows
from pixcloud.loggers.backend import Backend, open_backend
from pixcloud.loggers.kept import Kept
from pixcloud.loggers.lines import NOWHERE, PER_STEP, Tail
from pixcloud.loggers.pictures import some_pairs
from pixcloud.loggers.target import Target, from_json

POLL_SECONDS = 1.0
AT_ONCE = 200  # lines between two signs of life


class Session:
    """One attempt.

    Args:
        target: where to.
        kept: what the service has.
        words: stream for what `follow` shall know.
        last: set when the rest shall be brought over.
    """

    def __init__(self, target: Target, kept: Kept, words: Any, last: threading.Event) -> None:
        self.target, self.kept, self.words, self.last = target, kept, words, last
        self.run = Path(target.run)
        self.sent = NOWHERE
        self.waiting_since = time.monotonic()

    def say(self, **values: Any) -> None:
        """Tell `follow`; if it has gone, so be it: the service knows what it has."""
        with contextlib.suppress(OSError, ValueError):
            self.words.write(json.dumps(values) + "\n")
            self.words.flush()

    def go(self) -> None:
        """Bring over all that there is and will be, until `last` is set."""
        config = load_config(self.run / "config.yaml")
        backend = open_backend(self.target, config)
        self.sent = self.kept.place = backend.open(self.kept)
        if self.sent == NOWHERE:
            self.kept.pictures, self.kept.rows = False, []
        self.say(where=backend.where, place=self.sent, error="")
        if not self.kept.pictures:
            try:
                backend.show(some_pairs(config))
            except Exception:  # the data may have gone; numbers matter more
                traceback.print_exc()
        tail = Tail(self.run / "metrics.jsonl")
        while True:
            finishing = self.last.is_set()  # before reading, so that the last word is read
            self.bring(backend, tail)
            self.bring_results(backend)
            if finishing:
                break
            self.note(backend.arrived())
            self.last.wait(POLL_SECONDS)
        self.note(backend.finish())
        if self.kept.place < self.sent:
            raise TimeoutError("the server does not have everything yet")

    def bring(self, backend: Backend, tail: Tail) -> None:
        """Send new lines, some at a time."""
        found, replaced = tail.read()
        if replaced and found and found[-1].place < self.sent:
            self.sent = backend.rewind(found[-1].place)
            self.say(place=self.sent)
        fresh = [record for record in found if record.place > self.sent]
        for start in range(0, len(fresh), AT_ONCE):
            part = fresh[start : start + AT_ONCE]
            backend.write(part)
            self.sent = part[-1].place
            self.note(backend.arrived())

    def note(self, place: int) -> None:
        """Tell how far the service is; give up if it took nothing for too long."""
        now = time.monotonic()
        if place != self.kept.place or place >= self.sent:
            self.waiting_since = now
        self.kept.place = place
        arrived = {"pictures": True, "rows": self.kept.rows} if place >= self.sent else {}
        self.say(place=place, **arrived)
        if now - self.waiting_since > self.target.timeout:
            raise TimeoutError(f"the server took nothing for {self.target.timeout:g} s")

    def bring_results(self, backend: Backend) -> None:
        """Send results of evaluations that are new."""
        rows = _results(self.run / RESULTS)
        if len(rows) > len(self.kept.rows):
            step = max(self.sent, 0) // PER_STEP
            backend.evaluate(rows[len(self.kept.rows) :], step)
            self.kept.rows += [step] * (len(rows) - len(self.kept.rows))


def _results(path: Path) -> list[ResultRow]:
    try:
        return read_rows(path) if path.exists() else []
    except (PixCloudError, OSError):  # it may be half written; the next look sees it whole
        return []


def main() -> None:
    """Read the arguments, and watch standard input beside the work."""
    target, kept = from_json(sys.argv[1]), Kept(**json.loads(sys.argv[2]))
    words = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    last = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        last.set()
        # Also if `follow` was killed this ends, however long the library would wait.
        time.sleep(max(2 * target.drain, target.timeout))
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()
    session = Session(target, kept, words, last)
    code = 0
    try:
        session.go()
    except BaseException as error:
        traceback.print_exc()
        reason = " ".join(str(error).split()) or type(error).__name__
        session.say(error=reason[:300])
        code = 1
    # A library's own ending may wait for a server that is not there.
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
