"""Stage 9, outcomes: the score of each cloud, trial or shape of one evaluation, for paired tests.

Before it: the protocols, which hang them on their rows. `pixcloud.evaluate.results` writes them
beside its file where that is asked for; `pixcloud.evaluate.side_by_side` compares them.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixcloud.atomic import write_bytes
from pixcloud.errors import ResultsError
from pixcloud.evaluate.feature_cache import array_sha256
from pixcloud.evaluate.metrics import mcnemar_exact, mean_interval, sign_flip_test
from pixcloud.types import LabelledClouds

FOLDER = "outcomes"
_KEEPING: ContextVar[bool] = ContextVar("outcomes are kept", default=False)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """scores (U,) of the units that count as independent; units: what they are, to the letter.

    Two evaluations with equal `units` are of the same samples in the same order. right_or_wrong:
    whether the metric knows nothing else of a unit; shares may be 0 and 1 by chance.
    """

    scores: np.ndarray
    units: str
    right_or_wrong: bool = False


@dataclass(frozen=True)
class Paired:
    """gain: mean of first - second; ci95 of it; p: two-sided; test: how it was computed."""

    gain: float
    ci95: tuple[float, float]
    p: float
    test: str


def units_of(clouds: LabelledClouds) -> str:
    """The clouds of a split, each of which is a unit: its name and a hash of their points."""
    return f"{clouds.name} {clouds.split} {array_sha256(clouds.points)[:16]}"


@contextmanager
def keeping_outcomes() -> Iterator[None]:
    """Rows that are appended meanwhile leave their outcomes in a folder beside the file."""
    token = _KEEPING.set(True)
    try:
        yield
    finally:
        _KEEPING.reset(token)


def keep_outcomes(folder: Path, outcomes: Outcomes | None) -> dict[str, str]:
    """Write outcomes, if they are to be kept; what a row says of them.

    Raises:
        ResultsError: if they cannot be written.
    """
    if outcomes is None or not _KEEPING.get():
        return {}
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        scores=np.asarray(outcomes.scores, np.float64),
        units=np.array(outcomes.units),
        right_or_wrong=np.array(outcomes.right_or_wrong),
    )
    name = f"{FOLDER}/{hashlib.sha256(_content(outcomes)).hexdigest()[:16]}.npz"
    try:
        write_bytes(folder / name, stream.getvalue())
    except OSError as error:
        raise ResultsError(
            f"{folder / name}: not written ({error.strerror or error}); make room, or give another "
            "place by --out"
        ) from error
    return {"outcomes": name}


def read_outcomes(path: Path) -> Outcomes | None:
    """What `keep_outcomes` wrote; None where it is gone or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            kind = bool(stored["right_or_wrong"])
            return Outcomes(stored["scores"], str(stored["units"]), kind)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def compare_outcomes(first: Outcomes, second: Outcomes) -> Paired | None:
    """The paired test of two contenders on the same units; None where they are not the same.

    Of metrics of right and wrong, McNemar's exact test; of shares of at most 16 units, all choices
    of the signs of their differences; of more, Student's paired test. The interval of the mean
    difference is Student's.

    Example:
        >>> right, wrong = (Outcomes(np.full(6, each), "clouds", True) for each in (1.0, 0.0))
        >>> compare_outcomes(right, wrong)
        Paired(gain=1.0, ci95=(1.0, 1.0), p=0.03125, test='McNemar exact')
        >>> compare_outcomes(right, Outcomes(np.zeros(6), "other clouds")) is None
        True
    """
    a, b = first.scores, second.scores
    if first.units != second.units or len(a) != len(b) or len(a) < 2:
        return None
    gain = float(np.mean(a - b))
    spread, interval = mean_interval((a - b).tolist())
    if first.right_or_wrong and second.right_or_wrong:
        p = mcnemar_exact(a.astype(int), b.astype(int), np.ones(len(a), int))
        return Paired(gain, interval, p, "McNemar exact")
    if len(a) <= 16:
        return Paired(gain, interval, sign_flip_test(a.tolist(), b.tolist()), "sign flips")
    return Paired(gain, interval, _paired_t(gain, spread, len(a)), "paired t")


def _paired_t(mean: float, spread: float, n: int) -> float:
    from scipy.special import stdtr

    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / (spread / np.sqrt(n))))


def _content(outcomes: Outcomes) -> bytes:
    kind = f"{outcomes.units} {outcomes.right_or_wrong} "
    return kind.encode() + np.asarray(outcomes.scores, np.float64).tobytes()
