"""Stage 9, features kept on disk: what they depend on -> (S, D) float32, computed once.

Used by `pixcloud.evaluate.features`, which knows how to compute them. A file is named by the hash
of all that its content depends on, and holds a hash of the content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.atomic import write_bytes
from pixcloud.distributed import ALONE, World

# Goes up whenever the same weights, clouds and settings would give other features than before.
FEATURE_FORMAT = 1
CACHE_BYTES = 4 << 30  # beyond this the feature files not used for longest are removed

Say = Callable[[str], None]


@dataclass(kw_only=True, frozen=True)
class CachedFeatures:
    """values (S, D) float32; hit: they were read from `path` rather than computed."""

    values: np.ndarray
    hit: bool
    path: Path


def kept_features(
    parts: Mapping[str, Any],
    clouds: int,
    compute: Callable[[], np.ndarray],
    folder: Path | None,
    say: Say,
    world: World = ALONE,
) -> CachedFeatures:
    """Features read from disk where they are there, else computed and kept.

    A damaged file is computed anew with a warning; a folder that cannot be written costs a warning.

    Args:
        parts: all that the features depend on, as JSON values.
        clouds: S.
        compute: makes them.
        folder: of the feature files; None takes `feature_folder()`.
        say: takes each warning, one line.
        world: the processes that compute them together. The first one reads and writes; what is
            read is in no other's values.
    """
    text = json.dumps({"format": FEATURE_FORMAT, **parts}, sort_keys=True, default=str)
    name = hashlib.sha256(text.encode()).hexdigest()
    path = (folder or feature_folder()) / f"{name}.safetensors"
    kept = _read(path, clouds, say) if world.first else None
    if world.decide(lambda: kept is not None):
        values = kept if kept is not None else np.empty((0, 0), np.float32)
        return CachedFeatures(values=values, hit=True, path=path)
    values = compute()
    if not world.first:
        return CachedFeatures(values=values, hit=False, path=path)
    try:
        _write(path, values)
        _remove_oldest(path.parent, keep=path)
    except OSError as error:
        say(f"warning: the features are not kept: {path.parent} cannot be written ({error})")
    return CachedFeatures(values=values, hit=False, path=path)


def feature_folder() -> Path:
    """Where features are kept: `features` in $PIXCLOUD_CACHE, or in ~/.cache/pixcloud."""
    root = os.environ.get("PIXCLOUD_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "pixcloud") / "features"


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 over the dtype, shape and bytes of an array.

    >>> array_sha256(np.zeros(4)) == array_sha256(np.zeros((2, 2)))
    False
    """
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape};".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _write(path: Path, values: np.ndarray) -> None:
    from safetensors.numpy import save

    values = np.ascontiguousarray(values)  # `save` takes the memory as it lies
    write_bytes(path, save({"features": values}, metadata={"sha256": array_sha256(values)}))


def _read(path: Path, clouds: int, say: Say) -> np.ndarray | None:
    """Features kept in `path`, or None where there are none or they are not as written."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as stored:
            values = stored.get_tensor("features")
            written = (stored.metadata() or {}).get("sha256")
        if array_sha256(values) != written or len(values) != clouds:
            raise ValueError("its content is not what was written")
        os.utime(path)  # the time of last use, for _remove_oldest
    except (OSError, SafetensorError, ValueError) as error:
        say(f"warning: {path} is damaged ({error}); the features are computed anew")
        return None
    return values


def _remove_oldest(folder: Path, keep: Path, limit: int = CACHE_BYTES) -> None:
    """Bound the space of the feature files: each new encoder of a long run leaves one."""
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= limit:
            return
        if path != keep:
            total -= path.stat().st_size
            path.unlink(missing_ok=True)
