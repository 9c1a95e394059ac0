"""Stage 7, kept: how far each logger is, in `RUN/logs/NAME.json`, and what it has missed.

Written by `follow`, after each word of a `session` that the service has something; read by all
others. It may lag behind the service, never run ahead of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixcloud.atomic import write_bytes
from pixcloud.loggers.lines import NOWHERE, records
from pixcloud.loggers.target import Target


@dataclass(kw_only=True)
class Kept:
    """What one destination holds of a run.

    place: of the last line that it surely has; pictures: whether it has the pairs; rows: for each
    row of results that it has, the step at which it was sent; where: a link or folder to look at;
    error: why the last attempt failed; run_id: by which the service knows the run.
    """

    place: int = NOWHERE
    pictures: bool = False
    rows: list[int] = field(default_factory=list)
    where: str = ""
    error: str = ""
    run_id: str = ""

    def update(self, values: dict[str, Any]) -> None:
        """Take over the values of those fields that are named."""
        for item in dataclasses.fields(self):
            if item.name in values:
                setattr(self, item.name, values[item.name])


def _file(target: Target) -> Path:
    return target.folder / f"{target.name}.json"


def _load(target: Target) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(_file(target).read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(content.get("destinations"), dict):
            return content
    return {"run_id": secrets.token_hex(4), "destinations": {}}


def read_kept(target: Target) -> Kept:
    """How far a logger is; at the beginning if it never ran, or its file is damaged."""
    content = _load(target)
    kept = Kept()
    kept.update(content["destinations"].get(target.destination) or {})
    kept.run_id = kept.run_id or str(content["run_id"])
    return kept


def write_kept(target: Target, kept: Kept) -> None:
    """Write it, whole or not at all; the other destinations of this logger stay."""
    content = _load(target)
    content["run_id"] = content["run_id"] if content["destinations"] else kept.run_id
    content["destinations"][target.destination] = dataclasses.asdict(kept)
    write_bytes(_file(target), (json.dumps(content, indent=1) + "\n").encode())


def forget(target: Target) -> None:
    """Begin anew at this destination, under another id."""
    write_kept(target, Kept(run_id=secrets.token_hex(4)))


def missing(target: Target, kept: Kept) -> tuple[int, int]:
    """How many lines of `metrics.jsonl` the destination does not have, and how many there are."""
    try:
        content = (Path(target.run) / "metrics.jsonl").read_bytes()
    except OSError:
        return 0, 0
    found = records(content[: content.rfind(b"\n") + 1])
    return sum(record.place > kept.place for record in found), len(found)


def account(target: Target) -> str:
    """One line for the person at the terminal: what is there, what is not, what to do."""
    kept = read_kept(target)
    left, total = missing(target, kept)
    send = f"pixcloud log {target.run} --to {target.name}"
    if left:
        why = f" ({kept.error})" if kept.error else ""
        return (
            f"{target.name}: {left} of {total} lines are not there yet{why}; metrics.jsonl keeps "
            f"them, send them with: {send}"
        )
    where = kept.where or target.server or str(target.folder)
    later = f"; send it to a server with: {send}" if target.mode == "offline" else ""
    return f"{target.name}: all {total} lines are in {where}{later}"
