"""Stage 9, features: clouds (S, N, 3) float32 -> frozen pooled features (S, D) float32, kept.

Before it: a point encoder (stage 4) and labelled clouds (stage 2). After it:
`pixcloud.evaluate.svm`. Embedding a data set is the slow part of a probe and a pure function of
(weights, clouds, settings), so its result is kept on disk under a hash of these.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pixcloud.atomic import write_bytes
from pixcloud.encoders.base import unit_sphere
from pixcloud.errors import DataError
from pixcloud.export import weights_sha256

# Goes up whenever the same weights, clouds and settings would give other features than before.
FEATURE_FORMAT = 1
CACHE_BYTES = 4 << 30  # beyond this the feature files not used for longest are removed

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(kw_only=True, frozen=True)
class CachedFeatures:
    """values (S, D) float32; hit: they were read from `path` rather than computed."""

    values: np.ndarray
    hit: bool
    path: Path


def embed_clouds(
    encoder: nn.Module,
    points: np.ndarray,
    *,
    num_points: int = 1024,
    batch_size: int = 128,
    normalize: bool = True,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Pooled features of many clouds in evaluation mode, without gradients.

    Args:
        encoder: returns PointFeatures; its mode and place are as before afterwards.
        points: (S, N, 3) float; N at least `num_points`.
        num_points: the first so many points of each cloud are taken.
        batch_size: clouds at a time; the last batch is what remains.
        normalize: centre what was taken of each cloud and scale it to the unit sphere.
        device: where to compute; None computes where the encoder is.
        progress: called with (clouds done, S) after each batch.

    Returns:
        (S, D) float32 on the CPU.

    Raises:
        DataError: for another shape, too few points, or coordinates or features not finite.

    Example:
        >>> from pixcloud.encoders import build_encoder
        >>> clouds = np.random.default_rng(0).random((3, 64, 3), np.float32)
        >>> embed_clouds(build_encoder("pointnet", embed_dim=16), clouds, num_points=32).shape
        (3, 16)
    """
    points = first_points(points, num_points)
    batches = []
    with _evaluating(encoder, device) as weight:
        for start in range(0, len(points), batch_size):
            clouds = np.ascontiguousarray(points[start : start + batch_size])
            batch = torch.from_numpy(clouds).to(device=weight.device, dtype=weight.dtype)
            pooled = encoder(unit_sphere(batch) if normalize else batch).pooled
            batches.append(pooled.float().cpu().numpy())
            if progress is not None:
                progress(start + len(clouds), len(points))
    # A single batch keeps the encoder's memory order through concatenate; C order is promised.
    features = np.ascontiguousarray(np.concatenate(batches))
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise DataError(
            f"the features of {int(bad.sum())} of {len(features)} clouds hold NaN or infinity, the "
            f"first is number {int(bad.argmax())}: the encoder's weights have diverged"
        )
    return features


def cached_features(
    encoder: nn.Module,
    points: np.ndarray,
    *,
    num_points: int = 1024,
    batch_size: int = 128,
    normalize: bool = True,
    device: str | torch.device | None = None,
    folder: Path | None = None,
    say: Say | None = None,
    progress: Progress | None = None,
) -> CachedFeatures:
    """As `embed_clouds`, but read from disk where the same features were computed before.

    A damaged file is computed anew with a warning; a folder that cannot be written costs a warning.

    Args:
        encoder: as for `embed_clouds`, and so are the other arguments that it has.
        points: (S, N, 3) float.
        folder: of the feature files; by default `feature_folder()`.
        say: takes each warning, one line.

    Raises:
        DataError: as `embed_clouds`.
    """
    say = say or (lambda line: None)
    points = first_points(points, num_points)
    where = torch.device(device).type if device is not None else _weight(encoder).device.type
    key = _key(encoder, points, num_points, batch_size, normalize, where)
    path = (folder or feature_folder()) / f"{key}.safetensors"
    kept = _read(path, len(points), say)
    if kept is not None:
        return CachedFeatures(values=kept, hit=True, path=path)
    values = embed_clouds(
        encoder,
        points,
        num_points=num_points,
        batch_size=batch_size,
        normalize=normalize,
        device=device,
        progress=progress,
    )
    try:
        _write(path, values)
        _remove_oldest(path.parent, keep=path)
    except OSError as error:
        say(f"warning: the features are not kept: {path.parent} cannot be written ({error})")
    return CachedFeatures(values=values, hit=False, path=path)


def first_points(points: np.ndarray, num_points: int) -> np.ndarray:
    """The first points of each cloud: (S, N, 3) -> a view (S, num_points, 3).

    Raises:
        DataError: for another shape, too few points, or coordinates that are not finite.
    """
    points = np.asarray(points)
    if points.ndim != 3 or points.shape[2] != 3 or len(points) == 0:
        raise DataError(f"clouds must be (clouds, points, 3) and at least one, got {points.shape}")
    if points.shape[1] < num_points:
        raise DataError(
            f"the clouds have {points.shape[1]} points but num_points is {num_points}: "
            f"set num_points to {points.shape[1]} or fewer, or give denser clouds"
        )
    points = points[:, :num_points]
    bad = ~np.isfinite(points).all(axis=(1, 2))
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(points)} clouds hold NaN or infinite coordinates, the first "
            f"is number {int(bad.argmax())}: remove or replace these points"
        )
    return points


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


def _weight(encoder: nn.Module) -> torch.Tensor:
    """Any parameter or buffer, for the device and dtype; an encoder without is float32 on CPU."""
    for tensor in (*encoder.parameters(), *encoder.buffers()):
        if tensor.is_floating_point():
            return tensor
    return torch.zeros(())


@contextmanager
def _evaluating(encoder: nn.Module, device: str | torch.device | None) -> Iterator[torch.Tensor]:
    """Evaluation mode on `device` without gradients; then every module's own mode and place."""
    modes = [(module, module.training) for module in encoder.modules()]
    home = _weight(encoder).device
    try:
        encoder.eval()
        if device is not None:
            encoder.to(device)
        with torch.inference_mode():
            yield _weight(encoder)
    finally:
        # One by one: `encoder.train()` would wake batch norms that were frozen on purpose.
        for module, mode in modes:
            module.training = mode
        if device is not None:
            encoder.to(home)


def _key(
    encoder: nn.Module,
    points: np.ndarray,
    num_points: int,
    batch_size: int,
    normalize: bool,
    device: str,
) -> str:
    """Hash of all that the features depend on; settings such as k are no weights, so spec too."""
    kind = type(encoder)
    parts = {
        "format": FEATURE_FORMAT,
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "spec": getattr(encoder, "spec", None) or repr(encoder),
        "weights": weights_sha256(encoder),
        "clouds": array_sha256(points),
        "num_points": num_points,
        "batch_size": batch_size,
        "normalize": normalize,
        "device": device,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


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
