"""Stage 7, lines: `metrics.jsonl` -> records with a place in the run, and names for their numbers.

Before it: `run_folder`, which writes the file. After it: `session`. Places only grow, so that one
alone says what has been sent: also after a kill, and after a resumed run has cut the file back to
its last checkpoint and written the same steps again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A step has room for its own line, that of the epoch it ends, another one, and one chart.
PER_STEP = 4
RANKS = {"step": 0, "epoch": 1}
OTHER, CHART = 2, 3
NOWHERE = -1  # the place before the first line

TAGS = {
    "step": {
        "loss": "loss/total",
        "intra": "loss/intra",
        "cross": "loss/cross",
        "lr": "train/learning_rate",
        "pairs_per_s": "train/pairs_per_s",
        "memory_mib": "train/memory_mib",
    },
    "epoch": {
        "probe_validation": "evaluation/probe_validation",
        "picture_to_cloud_recall_1": "evaluation/picture_to_cloud_recall_1",
        "cloud_to_picture_recall_1": "evaluation/cloud_to_picture_recall_1",
        "picture_to_cloud_map": "evaluation/picture_to_cloud_map",
        "cloud_to_picture_map": "evaluation/cloud_to_picture_map",
    },
}
AXES = ("kind", "step", "epoch")


@dataclass(frozen=True)
class Record:
    """One line of `metrics.jsonl`: its place in the run, its step, and its numbers by tag."""

    place: int
    step: int
    epoch: int
    numbers: dict[str, float]


def record_of(values: dict[str, Any]) -> Record:
    """A line as a record; numbers without a name of their own are called kind/key.

    >>> record_of({"kind": "epoch", "step": 6, "epoch": 1, "seconds": 2.0})
    Record(place=25, step=6, epoch=1, numbers={'epoch/seconds': 2.0})
    """
    kind, step = str(values.get("kind", "other")), int(values["step"])
    tags = TAGS.get(kind, {})
    numbers = {
        tags.get(key, f"{kind}/{key}"): float(value)
        for key, value in values.items()
        if key not in AXES and isinstance(value, int | float) and not isinstance(value, bool)
    }
    place = PER_STEP * step + RANKS.get(kind, OTHER)
    return Record(place, step, int(values.get("epoch", 0)), numbers)


class Tail:
    """Reads whole lines as they are added to a file of JSON objects.

    A line that is no object with a step, such as one that a full disk cut short, is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset, self._file = 0, (0, 0)

    def read(self) -> tuple[list[Record], bool]:
        """Records since the last call, and whether the file was replaced: then all are new."""
        try:
            with open(self.path, "rb") as stream:
                status = _status(stream.fileno())
                replaced = self._file != (0, 0) and (
                    status[:2] != self._file or status[2] < self._offset
                )
                if replaced:
                    self._offset = 0
                self._file = status[:2]
                stream.seek(self._offset)
                content = stream.read()
        except FileNotFoundError:
            return [], False
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return records(whole), replaced


def records(content: bytes) -> list[Record]:
    """The records in some whole lines."""
    found = []
    for line in content.splitlines():
        try:
            found.append(record_of(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _status(handle: int) -> tuple[int, int, int]:
    import os

    status = os.fstat(handle)
    return status.st_dev, status.st_ino, status.st_size
