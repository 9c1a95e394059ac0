"""Stage 7, backends: what `session` asks of the library that speaks to a service.

Implemented by `tensorboard_files` and `wandb_run`. Every call may block, raise or crash: it runs in
a process of its own, which is ended when it shows no progress.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from pixcloud.config import PretrainConfig
from pixcloud.evaluate.results import ResultRow
from pixcloud.loggers.kept import Kept
from pixcloud.loggers.lines import Record
from pixcloud.loggers.pictures import ShownPair
from pixcloud.loggers.target import Target


class Backend(Protocol):
    """One connection to one service.

    where: a link or folder to look at, once it is open.
    """

    where: str

    def __init__(self, target: Target, config: PretrainConfig) -> None: ...

    def open(self, kept: Kept) -> int:
        """Connect, and go on behind what the service has; returns the last place that it has.

        Rows that it does not have any more are taken out of `kept`.
        """

    def show(self, pairs: Sequence[ShownPair]) -> None:
        """Pictures of a few pairs."""

    def write(self, records: Sequence[Record]) -> None:
        """Lines, in order; each is behind those before it."""

    def evaluate(self, rows: Sequence[ResultRow], step: int) -> None:
        """Results of evaluations, seen when the run was at `step`."""

    def arrived(self) -> int:
        """The last place that the service surely has; may be an old answer, but no guess."""

    def rewind(self, place: int) -> int:
        """The run went back to `place`; returns the last place that needs no sending again."""

    def finish(self) -> int:
        """Bring over what is under way and close; returns the last place that the service has."""


def open_backend(target: Target, config: PretrainConfig) -> Backend:
    """The backend that a target names as module:class."""
    module, name = target.backend.split(":")
    backend: Any = getattr(importlib.import_module(module), name)
    made: Backend = backend(target, config)
    return made


def row_name(row: ResultRow) -> str:
    """What a result is called beside others, such as "svm C=0.01/modelnet40/accuracy/run".

    Slashes within a part become dashes.
    """
    parts = (row.protocol, f"{row.dataset} {row.split}", row.metric, row.encoder)
    return "/".join(part.replace("/", "-").strip() for part in parts)
