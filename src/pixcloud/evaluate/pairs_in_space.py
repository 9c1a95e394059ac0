"""Stage 9, pairs embedded: pairs on disk -> projections of clouds (S, P) and pictures (V, P).

Before it: `pixcloud.cross_modal` and the pairs (stage 2). After it: `pixcloud.evaluate.retrieval`.
One loop serves training and the command. Clouds and pictures are as in training, without
augmentation; files are read in threads, batch by batch, so that memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from pixcloud.cross_modal import CrossModal
from pixcloud.data.files import read_cloud, read_picture
from pixcloud.data.shapenet import Pair
from pixcloud.distributed import ALONE, World
from pixcloud.errors import DataError, FileFormatError
from pixcloud.machine import available_cores

T = TypeVar("T")


@dataclass(kw_only=True)
class PairsInSpace:
    """clouds (S, P) float32; pictures (V, P) float32; shapes (V,) int64: whose picture it is."""

    clouds: np.ndarray
    pictures: np.ndarray
    shapes: np.ndarray


def embed_pairs(
    model: CrossModal,
    pairs: Sequence[Pair],
    *,
    views: str = "all",
    num_points: int = 0,
    batch_size: int = 128,
    world: World = ALONE,
) -> PairsInSpace:
    """Projections of unit length of the clouds and pictures of some pairs.

    Several processes share the batches, each of which is the one that a single process would make.

    Args:
        model: both towers; its mode is as before afterwards.
        pairs: S of them.
        views: "all" pictures of each shape, the "first" one, or the "mean" of all, scaled back to
            unit length.
        num_points: the first so many points of each cloud; 0 takes the model's.
        batch_size: clouds or pictures at a time.
        world: the processes that share the work; all of them call this, with the same pairs.

    Raises:
        FileFormatError: for a file that cannot be read, or a cloud with too few points.
        DataError: if there are fewer than two pairs, or projections are not finite.
    """
    if len(pairs) < 2:
        raise DataError(f"{len(pairs)} pairs: retrieval needs at least two; hold out or give more")
    points = num_points or model.num_points
    clouds = _embed(
        [pair.cloud for pair in pairs],
        lambda path: _read_points(path, points),
        lambda batch: model.embed_points(batch),
        batch_size,
        world,
    )
    names = [
        (str(Path(pair.folder) / name), shape)
        for shape, pair in enumerate(pairs)
        for name in (pair.pictures[:1] if views == "first" else pair.pictures)
    ]
    pictures = _embed(
        [path for path, _ in names],
        lambda path: read_picture(path, size=model.picture_size),
        lambda batch: model.embed_images(batch),
        batch_size,
        world,
    )
    shapes = np.array([shape for _, shape in names])
    if views == "mean":
        pictures = _means(pictures, shapes, len(pairs))
        shapes = np.arange(len(pairs))
    for what, vectors in (("clouds", clouds), ("pictures", pictures)):
        if not np.isfinite(vectors).all():
            raise DataError(f"projections of {what} hold NaN or infinity: the weights diverged")
    return PairsInSpace(clouds=clouds, pictures=pictures, shapes=shapes)


def _means(vectors: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Means (count, P) of the vectors of each group, of unit length; zeros stay zeros."""
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, groups, vectors)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return (sums / np.where(length > 0, length, 1)).astype(np.float32)


def _read_points(path: str, num_points: int) -> np.ndarray:
    points = read_cloud(path).points
    if len(points) < num_points:
        raise FileFormatError(
            f"{path}: {len(points)} points, and retrieval takes {num_points} of each cloud; give "
            f"larger clouds, or set retrieve.num_points to {len(points)} or fewer"
        )
    return points[:num_points]


def _embed(
    paths: list[str],
    read: Callable[[str], np.ndarray],
    embed: Callable[[torch.Tensor], torch.Tensor],
    batch_size: int,
    world: World,
) -> np.ndarray:
    """(len(paths), P) float32 on the CPU, on every process."""
    starts = range(0, len(paths), batch_size)
    own = [paths[start : start + batch_size] for start in starts[world.share(len(starts))]]

    def work() -> list[torch.Tensor]:
        with ThreadPoolExecutor(max_workers=min(8, available_cores())) as readers:
            return [embed(batch).float().cpu() for batch in _batches(own, read, readers)]

    # All processes hear of it when one of them cannot read a file.
    blocks = world.agree(work)
    return np.ascontiguousarray(world.gather_blocks(blocks, len(paths), batch_size).numpy())


def _batches(
    own: list[list[str]], read: Callable[[str], np.ndarray], readers: ThreadPoolExecutor
) -> Iterator[torch.Tensor]:
    """Stacked batches; the next one is read while one is embedded."""
    waiting = [readers.submit(read, path) for path in own[0]] if own else []
    for place in range(len(own)):
        following = own[place + 1] if place + 1 < len(own) else []
        coming = [readers.submit(read, path) for path in following]
        yield torch.from_numpy(np.stack([future.result() for future in waiting]))
        waiting = coming
