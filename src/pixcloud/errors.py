"""Errors that a user can mend: one line naming the file or key, what was expected, what to do.

Every error that bad input can cause is one of these classes; the command line prints the message
and ends with exit code 2, without a traceback. Anything else that escapes is a fault of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What to do about a file that is broken.
AGAIN = "fetch or write the file again"


class PixCloudError(Exception):
    """Base of all errors that the user can mend."""


class ConfigError(PixCloudError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(PixCloudError):
    """A data set is missing, empty, incomplete or of the wrong shape."""


class NothingToFindError(DataError):
    """No cloud has another one of its class, so that none can be found by a cloud."""


class MissingSplitError(DataError):
    """A data set has no such split at all."""


class FileFormatError(DataError):
    """One file cannot be read as what its name says."""


class CheckpointError(PixCloudError):
    """A run folder or checkpoint is missing, damaged or belongs to another run."""


class DamagedCheckpointError(CheckpointError):
    """A file of a checkpoint is missing or is not what was written; an earlier one may be whole."""


class ResultsError(PixCloudError):
    """A results file cannot be written."""


class WeightsError(PixCloudError):
    """A weight file does not fit the architecture that it is loaded into."""


class StoreError(PixCloudError):
    """A store of vectors is missing, damaged, of other vectors, or cannot be written."""


class NotFiniteError(PixCloudError, ValueError):
    """Points or features hold NaN or infinite values."""


class LostProcessError(PixCloudError):
    """Another process of the run has ended or cannot be reached."""


class TrainingError(PixCloudError):
    """Training cannot go on, for example because the loss is no longer finite."""


class LoggerError(PixCloudError):
    """A logger does not have all of a run; the run folder does."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause naming the known name closest to `name`, or all known names if none is close.

    >>> nearest("epoch", ["epochs", "lr"])
    "the nearest known one is 'epochs'"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"the nearest known one is '{close[0]}'"
    return "known ones are " + ", ".join(repr(k) for k in known)


def some(names: Iterable[object], limit: int = 5) -> str:
    """The first few of `names`, comma-separated, with a count of the rest.

    >>> some(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    listed = [str(name) for name in names]
    if len(listed) <= limit:
        return ", ".join(listed)
    return ", ".join(listed[:limit]) + f" and {len(listed) - limit} more"
