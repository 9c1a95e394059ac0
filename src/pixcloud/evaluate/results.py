"""Stage 9, results: one evaluation -> one line of `results.jsonl`, and lines -> a table.

Before it: the protocols, such as `pixcloud.evaluate.probe`. After it: `pixcloud.report` (stage 10).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixcloud._version import __version__
from pixcloud.errors import FileFormatError, ResultsError, some

if TYPE_CHECKING:
    from rich.table import Table

    from pixcloud.evaluate.outcomes import Outcomes

RESULTS = "results.jsonl"
SYNTHETIC = "synthetic"  # names of the embedded data begin with it


@dataclass(kw_only=True, frozen=True)
class ResultRow:
    """One number of one evaluation.

    protocol: such as "svm C=0.01 (published)"; dataset and split that were scored; metric: such as
    "accuracy"; value: a share in [0, 1] for accuracies; ci95: (low, high) or None; n: samples
    scored; seed: of the evaluation; encoder: its name for the reader; encoder_sha256: of its
    weights, or of a descriptor's settings; settings: JSON values that the number depends on;
    seconds: that this evaluation took; extra: keys of a row that this version does not know.
    outcomes: the scores that the value is the mean of, which are no part of the line.
    """

    protocol: str
    dataset: str
    split: str
    metric: str
    value: float
    ci95: tuple[float, float] | None
    n: int
    seed: int
    encoder: str
    encoder_sha256: str
    settings: dict[str, Any]
    seconds: float
    pixcloud_version: str = __version__
    extra: dict[str, Any] = field(default_factory=dict)
    outcomes: Outcomes | None = field(default=None, compare=False, repr=False)


def table_of(protocol: str) -> str:
    """What protocols must have in common to stand in one table or chart: "" for accuracies.

    The two ways of few-shot differ in what they learn from and are scored on, and both differ from
    accuracies over all classes; part segmentation has two ways of taking the best part, and
    retrieval chance levels of its own.

    >>> table_of("svm C=0.01 (published)")
    ''
    >>> table_of("few-shot 5-way 10-shot (CrossPoint: frozen)")
    'CrossPoint: frozen'
    >>> table_of("part segmentation, all weights, 5 % of shapes (any part)")
    'any part'
    """
    if protocol == "retrieval":
        return protocol
    apart = protocol.startswith(("few-shot ", "part segmentation"))
    return protocol.partition("(")[2].removesuffix(")") if apart else ""


_NOTES: ContextVar[dict[str, Any] | None] = ContextVar("notes of rows", default=None)


@contextmanager
def noting(**notes: Any) -> Iterator[None]:
    """Rows that are appended meanwhile have these keys too, such as what asked for them.

    Args:
        notes: JSON values; they are in a row's `extra` when it is read.
    """
    token = _NOTES.set({**(_NOTES.get() or {}), **notes})
    try:
        yield
    finally:
        _NOTES.reset(token)


_KEYS = tuple(f.name for f in dataclasses.fields(ResultRow) if f.name not in ("extra", "outcomes"))


def append_rows(path: Path, rows: Sequence[ResultRow]) -> None:
    """Append rows to a results file, all of them or none, also while others append to it.

    One write to a file opened for appending, then synced. A last line that a kill cut off is
    removed, with a word to the reader: in the middle of a file it would be a broken line.

    Raises:
        ValueError: if a number in a row is not finite; JSON has no such numbers.
        ResultsError: if the file cannot be written; what it held stays.
    """
    if not rows:
        return
    from pixcloud.evaluate.outcomes import keep_outcomes

    text = "".join(_to_line(row, keep_outcomes(path.parent, row.outcomes)) for row in rows)
    try:
        _append(path, text)
    except OSError as error:
        raise ResultsError(
            f"{path}: the results were not written ({error.strerror or error}); make room, or give "
            "another place"
        ) from error


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        alone = _lock(handle)
        size = os.fstat(handle).st_size
        if tail := _last_line(handle, size):
            if alone and _is_cut(tail):
                size -= len(tail)
                os.ftruncate(handle, size)
                print(f"{path}: a last line that was cut off is removed", file=sys.stderr)
            else:
                text = "\n" + text
        content = text.encode()
        written = os.write(handle, content)
        if written != len(content):  # a full disk: nothing half-written stays
            os.ftruncate(handle, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Wait until no other process of ours appends; False where a system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return False
    with contextlib.suppress(OSError):  # some network file systems have none
        fcntl.flock(handle, fcntl.LOCK_EX)
        return True
    return False


def _last_line(handle: int, size: int) -> bytes:
    """What follows the last end of a line: nothing, unless a kill cut a line off."""
    tail, start = b"", size
    while start > 0 and b"\n" not in tail:
        start = max(0, start - 4096)
        os.lseek(handle, start, os.SEEK_SET)  # appending ignores this place
        tail = os.read(handle, size - start)
    return tail.rpartition(b"\n")[2]


def _is_cut(line: bytes) -> bool:
    """Whether a line without an end is the beginning of a row."""
    if not line.startswith(b"{"):
        return False
    try:
        json.loads(line)
    except ValueError:  # of UTF-8 too
        return True
    return False


def read_rows(path: Path) -> list[ResultRow]:
    """All rows of a results file, in order.

    A last line that a kill cut off is left out, with a word to the reader.

    Raises:
        FileFormatError: if the file is missing, or naming the first line that is no row.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise FileFormatError(f"{path}: missing; an evaluation writes it") from error
    if _is_cut(lines[-1]):
        _say_once(f"{path}, line {len(lines)}: cut off, perhaps by a kill; it is left out")
        lines.pop()
    return [
        _from_line(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


@functools.cache
def _say_once(words: str) -> None:
    """A file is read many times in one evaluation."""
    print(words, file=sys.stderr)


def format_table(rows: Sequence[ResultRow], title: str = "Results") -> Table:
    """Rows as a table for the terminal; its title says where numbers come from synthetic data.

    What all rows share (data, number of samples, seed) stands once, below the table.

    Example:
        >>> format_table([]).title
        'Results'
    """
    from rich.table import Table

    table = Table(title=title + synthetic_mark(rows))
    origins = [f"{row.dataset} {row.split}, {row.n:,} samples, seed {row.seed}" for row in rows]
    shared = len(set(origins)) == 1
    if shared:
        table.caption = origins[0]
    for name in ("encoder", "protocol", "metric"):
        table.add_column(name)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    if not shared:
        table.add_column("data")
    for row, origin in zip(rows, origins, strict=True):
        interval = f"{100 * row.ci95[0]:.1f} to {100 * row.ci95[1]:.1f}" if row.ci95 else ""
        metric = row.metric.replace("_", " ")
        cells = [row.encoder, row.protocol, metric, f"{100 * row.value:.1f}", interval]
        table.add_row(*cells, *([] if shared else [origin]))
    return table


def synthetic_mark(rows: Sequence[ResultRow]) -> str:
    """What the title of a table says of rows of synthetic data; nothing where there are none."""
    invented = sum(row.dataset.startswith(SYNTHETIC) for row in rows)
    if not invented:
        return ""
    return " (synthetic data)" if invented == len(rows) else " (partly synthetic data)"


def _to_line(row: ResultRow, more: dict[str, str]) -> str:
    values = {key: getattr(row, key) for key in _KEYS} | row.extra | more | (_NOTES.get() or {})
    return json.dumps(values, allow_nan=False, ensure_ascii=False) + "\n"


def _from_line(line: bytes, place: str) -> ResultRow:
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{place}: not text in UTF-8 ({error})") from error
    except json.JSONDecodeError as error:
        raise FileFormatError(
            f"{place}: broken, perhaps cut off ({error.msg}, column {error.colno}); remove the line"
        ) from error
    if not isinstance(values, dict):
        raise FileFormatError(f"{place}: expected an object, found {type(values).__name__}")
    if missing := [key for key in _KEYS if key not in values]:
        raise FileFormatError(f"{place}: no row of results; missing: {some(missing)}")
    known = {key: values.pop(key) for key in _KEYS}
    known["ci95"] = _interval(known["ci95"], place)
    if not _is_number(known["value"]) or not isinstance(known["settings"], dict):
        raise FileFormatError(f"{place}: value must be a number and settings an object")
    return ResultRow(**known, extra=values)


def _interval(ends: Any, place: str) -> tuple[float, float] | None:
    if ends is None:
        return None
    if isinstance(ends, list) and len(ends) == 2 and all(_is_number(end) for end in ends):
        return ends[0], ends[1]
    raise FileFormatError(f"{place}: ci95 must be [low, high] or null, found {ends}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
