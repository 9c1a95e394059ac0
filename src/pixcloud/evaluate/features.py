"""Stage 9, features: clouds (S, N, 3) float32 -> frozen pooled features (S, D) float32, kept.

Before it: a point encoder (stage 4) and labelled clouds (stage 2). After it:
`pixcloud.evaluate.svm`. Embedding a data set is the slow part of a probe and a pure function of
(weights, clouds, settings), so its result is kept on disk (`pixcloud.evaluate.feature_cache`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pixcloud.distributed import ALONE, World
from pixcloud.encoders.base import PointEncoder, unit_sphere
from pixcloud.encoders.code import source_sha256
from pixcloud.errors import ConfigError, DataError
from pixcloud.evaluate.descriptor import ShapeDescriptor
from pixcloud.evaluate.feature_cache import CachedFeatures, array_sha256, kept_features
from pixcloud.export import weights_sha256

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


def embed_clouds(
    encoder: nn.Module,
    points: np.ndarray,
    *,
    num_points: int = 1024,
    batch_size: int = 128,
    normalize: bool = True,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    world: World = ALONE,
) -> np.ndarray:
    """Pooled features of many clouds in evaluation mode, without gradients.

    Several processes share the batches, each of which is the one that a single process would make:
    every cloud is embedded once, and its features do not depend on how many processes there are.

    Args:
        encoder: returns PointFeatures; its mode and place are as before afterwards.
        points: (S, N, 3) float; N at least `num_points`.
        num_points: the first so many points of each cloud are taken.
        batch_size: clouds at a time; the last batch is what remains.
        normalize: centre what was taken of each cloud and scale it to the unit sphere.
        device: where to compute; None computes where the encoder is.
        progress: called with (clouds done, S) after each batch.
        world: the processes that share the work; all of them call this, with the same clouds.

    Returns:
        (S, D) float32 on the CPU, on every process.

    Raises:
        DataError: for another shape, too few points, or coordinates or features not finite.
        ConfigError: if the encoder needs more points than `num_points`.

    Example:
        >>> from pixcloud.encoders import build_encoder
        >>> clouds = np.random.default_rng(0).random((3, 64, 3), np.float32)
        >>> embed_clouds(build_encoder("pointnet", embed_dim=16), clouds, num_points=32).shape
        (3, 16)
    """
    points = first_points(points, num_points)
    require_points(encoder, num_points, "num_points")
    batches, starts = [], range(0, len(points), batch_size)
    own = world.share(len(starts))
    with _evaluating(encoder, device) as weight:
        for start in starts[own]:
            clouds = np.ascontiguousarray(points[start : start + batch_size])
            batch = torch.from_numpy(clouds).to(device=weight.device, dtype=weight.dtype)
            pooled = encoder(unit_sphere(batch) if normalize else batch).pooled
            batches.append(pooled.float().cpu())
            if progress is not None:
                done = world.size * (start + len(clouds) - starts[own][0])
                progress(min(done, len(points)), len(points))
    features = world.gather_blocks(batches, len(points), batch_size).numpy()
    # A single batch keeps the encoder's memory order; C order is promised.
    features = np.ascontiguousarray(features)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise DataError(
            f"the features of {int(bad.sum())} of {len(features)} clouds hold NaN or infinity, the "
            f"first is number {int(bad.argmax())}: the encoder's weights have diverged"
        )
    return features


@contextmanager
def _bar(progress: Progress | None) -> Iterator[Progress | None]:
    """What is given; else a progress bar where a terminal is there, which goes when it is done."""
    from rich.console import Console

    console = Console(stderr=True)
    if progress is not None or not console.is_terminal:
        yield progress
        return
    from rich.progress import Progress as Bar

    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("features")
        yield lambda done, count: bar.update(task, completed=done, total=count)


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
    world: World = ALONE,
) -> CachedFeatures:
    """As `embed_clouds`, but read from disk where the same features were computed before.

    A damaged file is computed anew with a warning; a folder that cannot be written costs a warning.

    Args:
        encoder: as for `embed_clouds`, and so are the other arguments that it has.
        points: (S, N, 3) float.
        folder: of the feature files; by default `feature_folder()`.
        say: takes each warning, one line.
        progress: as for `embed_clouds`; None shows a bar on a terminal.
        world: as for `embed_clouds`; the first process's disk counts.

    Raises:
        DataError: as `embed_clouds`.
    """
    say = say or (lambda line: None)
    points = first_points(points, num_points)
    kind = type(encoder)
    settings: dict[str, Any] = {
        "num_points": num_points,
        "batch_size": batch_size,
        "normalize": normalize,
    }
    parts = {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        # Settings such as k are no weights.
        "spec": getattr(encoder, "spec", None) or repr(encoder),
        "weights": weights_sha256(encoder),
        "clouds": array_sha256(points),
        "device": torch.device(device or _weight(encoder).device).type,
        **settings,
    }
    if not kind.__module__.startswith("pixcloud."):
        parts["code"] = source_sha256(kind)  # its author may be at work on it

    def compute() -> np.ndarray:
        with _bar(progress) as shown:
            return embed_clouds(
                encoder, points, device=device, progress=shown, world=world, **settings
            )

    return kept_features(parts, len(points), compute, folder, say, world)


def cached_descriptors(
    descriptor: ShapeDescriptor,
    points: np.ndarray,
    *,
    num_points: int = 1024,
    folder: Path | None = None,
    say: Say | None = None,
) -> CachedFeatures:
    """As `cached_features`, for a hand-made descriptor of the first points of each cloud.

    Raises:
        DataError: for another shape, too few points, or coordinates that are not finite.
    """
    points = first_points(points, num_points)
    parts = {
        "class": "ShapeDescriptor",
        "weights": descriptor.sha256,
        "clouds": array_sha256(points),
    }
    return kept_features(
        parts, len(points), lambda: descriptor(points), folder, say or (lambda line: None)
    )


def require_points(encoder: nn.Module, num_points: int, key: str) -> None:
    """Check that clouds of so many points are enough for an encoder.

    Raises:
        ConfigError: naming the setting that gives their number, if they are not.
    """
    least = getattr(encoder, "min_points", 1)
    if num_points < least:
        words, setting = getattr(encoder, "min_points_of", PointEncoder.min_points_of)
        raise ConfigError(
            f"{key} = {num_points}: this encoder {words.format(least)}; set {key} to {least} or "
            f"more, or train one with a smaller encoder.settings.{setting}"
        )


def first_points(points: np.ndarray, num_points: int, key: str = "num_points") -> np.ndarray:
    """The first points of each cloud: (S, N, 3) -> a view (S, num_points, 3).

    `key` is the setting that messages name.

    Raises:
        DataError: for another shape, too few points, or coordinates that are not finite.
    """
    points = np.asarray(points)
    if points.ndim != 3 or points.shape[2] != 3 or len(points) == 0:
        raise DataError(f"clouds must be (clouds, points, 3) and at least one, got {points.shape}")
    if points.shape[1] < num_points:
        raise DataError(
            f"the clouds have {points.shape[1]} points but {key} is {num_points}: "
            f"set {key} to {points.shape[1]} or fewer, or give denser clouds"
        )
    points = points[:, :num_points]
    bad = ~np.isfinite(points).all(axis=(1, 2))
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(points)} clouds hold NaN or infinite coordinates, the first "
            f"is number {int(bad.argmax())}: remove or replace these points"
        )
    return points


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
