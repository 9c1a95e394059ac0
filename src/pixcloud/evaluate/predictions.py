"""Stage 9, predictions: what a probe returns, kept in a file for paired tests later.

Before it: `pixcloud.evaluate.probe`. After it: `pixcloud.evaluate.metrics` (`mcnemar_exact`).
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixcloud.atomic import write_bytes
from pixcloud.errors import DataError
from pixcloud.evaluate.results import ResultRow, format_table

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(kw_only=True)
class ProbeResult:
    """rows of results; predictions: (encoder, protocol) -> (T,) int64; labels (T,) of test."""

    rows: list[ResultRow]
    labels: np.ndarray
    predictions: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    title: str = "Linear probe"

    def __rich__(self) -> Table:
        return format_table(self.rows, title=self.title)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=140, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def save_predictions(path: Path, result: ProbeResult) -> None:
    """Write predictions and labels as an .npz without pickles, whole or not at all.

    Keys: `labels` (T,), `names` (P, 2) of (encoder, protocol), `predictions` (P, T).
    """
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        labels=result.labels,
        names=np.array(list(result.predictions), dtype=np.str_).reshape(-1, 2),
        predictions=np.array(list(result.predictions.values())).reshape(-1, len(result.labels)),
    )
    write_bytes(path, stream.getvalue())


def load_predictions(path: Path) -> ProbeResult:
    """Predictions and labels that `save_predictions` wrote; no rows.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = [(str(encoder), str(protocol)) for encoder, protocol in stored["names"]]
            predictions = dict(zip(names, stored["predictions"], strict=True))
            return ProbeResult(rows=[], labels=stored["labels"], predictions=predictions)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a file of predictions ({error}); probe again") from error
