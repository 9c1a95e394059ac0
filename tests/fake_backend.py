"""Loggers that misbehave in known ways, for sessions that are told of them as module:class."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixcloud.config import PretrainConfig
from pixcloud.loggers.kept import Kept
from pixcloud.loggers.lines import NOWHERE, Record
from pixcloud.loggers.target import Target


class Honest:
    """A service that is a file: one JSON object per line, which outlives every process."""

    where = "the file"

    def __init__(self, target: Target, config: PretrainConfig) -> None:
        self.path = Path(target.run) / "service.jsonl"

    def got(self) -> list[dict[str, Any]]:
        return [json.loads(x) for x in self.path.read_text().splitlines()] if self.exists() else []

    def exists(self) -> bool:
        return self.path.exists()

    def open(self, kept: Kept) -> int:
        return self.arrived()

    def show(self, pairs: Sequence[Any]) -> None:
        pass

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            with open(self.path, "a") as stream:
                stream.write(json.dumps({"place": record.place, **record.numbers}) + "\n")

    def evaluate(self, rows: Sequence[Any], step: int) -> None:
        pass

    def arrived(self) -> int:
        got = self.got()
        return int(got[-1]["place"]) if got else NOWHERE

    def rewind(self, place: int) -> int:
        return self.arrived()

    def finish(self) -> int:
        return self.arrived()


class HangsOnce(Honest):
    """The first attempt never gets an answer."""

    def open(self, kept: Kept) -> int:
        mark = self.path.with_name("hung")
        if not mark.exists():
            mark.write_text(str(os.getpid()))
            time.sleep(600)
        return super().open(kept)


class DiesOften(Honest):
    """Each attempt is killed after two lines."""

    def write(self, records: Sequence[Record]) -> None:
        for number, record in enumerate(records):
            if number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            super().write([record])


class TakesNothing(Honest):
    """It says that all is well, and keeps nothing."""

    def write(self, records: Sequence[Record]) -> None:
        pass
