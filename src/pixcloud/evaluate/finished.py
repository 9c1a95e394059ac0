"""Stage 9, finished parts: what a fraction or a trial of one evaluation gave -> kept until the end.

Before it: `pixcloud.evaluate.evaluation`, which says where they are kept. `finetune`, `few_shot`
and `segment` write them as they go, and read what a call that was killed has left. A part is a
small .npz file, whole or absent.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.atomic import write_bytes
from pixcloud.errors import ResultsError

FOLDER = "unfinished"
_PLACE: ContextVar[Path | None] = ContextVar("folder of finished parts", default=None)


@contextmanager
def keeping_finished(results: Path, request: str) -> Iterator[None]:
    """Parts that are finished meanwhile stay beside the results file, until the block ends well.

    Args:
        results: the file that the rows go to in the end.
        request: a hash of all that the rows depend on.
    """
    folder = results.parent / FOLDER / request[:16]
    token = _PLACE.set(folder)
    try:
        yield
    finally:
        _PLACE.reset(token)
    forget_finished(results, request)


def forget_finished(results: Path, request: str) -> None:
    """Remove the parts of a request whose rows are in the file."""
    folder = results.parent / FOLDER / request[:16]
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def read_finished(part: str, say: Callable[[str], None] = print) -> dict[str, np.ndarray] | None:
    """What `write_finished` kept of a part; None where it is to be done."""
    path = _path(part)
    if path is None or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    say(f"{part}: done before, by a call that did not end")
    return found


def write_finished(part: str, values: Mapping[str, Any]) -> None:
    """Keep what a part gave, where parts are kept.

    Args:
        part: its name within the evaluation, which does not depend on where the encoder lies.
        values: name -> array or number.

    Raises:
        ResultsError: if it cannot be written.
    """
    path = _path(part)
    if path is None:
        return
    stream = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items()}
    np.savez_compressed(stream, **arrays)
    try:
        write_bytes(path, stream.getvalue())
    except OSError as error:
        raise ResultsError(
            f"{path}: not written ({error.strerror or error}); make room, or give another place by "
            "--out"
        ) from error


def _path(part: str) -> Path | None:
    folder = _PLACE.get()
    name = hashlib.sha256(part.encode()).hexdigest()[:16]
    return None if folder is None else folder / f"{name}.npz"
