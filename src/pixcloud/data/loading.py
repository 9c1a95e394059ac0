"""Stage 3, loading: pairs on disk -> PairBatch, in an order that (seed, epoch) alone decides."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from pixcloud.config import DataConfig, ViewConfig
from pixcloud.data.files import read_cloud, read_picture
from pixcloud.data.shapenet import Pair
from pixcloud.data.views import ORDER_STREAM, draw_pair, generator
from pixcloud.distributed import ALONE, World
from pixcloud.errors import ConfigError, FileFormatError, PixCloudError, some
from pixcloud.machine import available_cores
from pixcloud.signals import ignore_interrupts
from pixcloud.types import PairBatch, PairSample


class PairDataset(Dataset[PairSample | PixCloudError]):
    """Reads the sample (epoch, index): the cloud once, each of its pictures once.

    A sample that cannot be read becomes its error, so that the words of it arrive unchanged from
    whichever process read it; `pair_batches` raises it.

    Args:
        pairs: sorted.
        data: sizes.
        views: ranges of the augmentation.
        seed: of the run.
    """

    def __init__(self, pairs: list[Pair], data: DataConfig, views: ViewConfig, seed: int) -> None:
        self.pairs = pairs
        self.data = data
        self.views = views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> PairSample | PixCloudError:
        try:
            return self.read(*key)
        except PixCloudError as error:
            return error

    def read(self, epoch: int, index: int) -> PairSample:
        """One sample.

        Raises:
            FileFormatError: if its cloud or picture is broken, or the cloud too small.
        """
        pair = self.pairs[index]
        stored = read_cloud(Path(pair.cloud)).points
        if len(stored) < self.data.num_points:
            raise FileFormatError(
                f"{pair.cloud}: {len(stored)} points, and data.num_points asks for "
                f"{self.data.num_points}; lower it to {len(stored)} or give larger clouds"
            )
        draws = draw_pair(
            self.views,
            seed=self.seed,
            epoch=epoch,
            index=index,
            stored_points=len(stored),
            num_points=self.data.num_points,
            pictures=len(pair.pictures),
        )
        choice = draws.pop("choice")
        pictures = [
            read_picture(Path(pair.folder) / pair.pictures[place], size=self.data.picture_size)
            for place in choice.flat
        ]
        picture = np.stack(pictures) if choice.ndim else pictures[0]
        return PairSample(index, stored[draws.pop("subset")], picture, draws)


class PairOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) from `start_batch` of the whole run to its end.

    Each epoch is a permutation of its own; what does not fill a batch at its end is left out of
    that epoch. One iterator runs through all epochs, so that reading ahead does not stop between.

    Args:
        size: pairs in the data set.
        batch_size: B.
        accumulate: batches per step of the optimiser; an epoch has whole steps only.
        epochs: passes.
        seed: of the run.
        start_batch: batches of the run that are done already.
        world: the processes; each reads its share of every batch.
        micro_batch: pairs that all processes hold at a time, of which each takes its share; 0 is
            the whole batch. The shares of one are together in what a process reads.

    Raises:
        ConfigError: if the data set does not fill one batch, or a batch cannot be shared evenly.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        epochs: int,
        seed: int,
        *,
        accumulate: int = 1,
        start_batch: int = 0,
        world: World = ALONE,
        micro_batch: int = 0,
    ) -> None:
        if size < 2 * accumulate:
            raise ConfigError(
                f"too few samples for a batch: {size} pairs, and a batch needs at least 2"
            )
        if size < batch_size * accumulate:
            raise ConfigError(
                f"too few samples for a batch: {size} pairs, and trainer.batch_size x "
                f"trainer.accumulate = {batch_size} x {accumulate}; set the batch size to at most "
                f"{size // accumulate} or give more pairs"
            )
        self.size, self.batch_size, self.epochs, self.seed = size, batch_size, epochs, seed
        self.start_batch, self.world = start_batch, world
        self.micro_batch = micro_batch or batch_size
        check_shares(batch_size, self.micro_batch, world.size)
        self.batches_per_epoch = size // (batch_size * accumulate) * accumulate

    def __len__(self) -> int:
        return self.batches_per_epoch * self.epochs - self.start_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first_epoch, skip = divmod(self.start_batch, self.batches_per_epoch)
        for epoch in range(first_epoch, self.epochs):
            order = epoch_order(self.seed, epoch, self.size)
            for batch in range(skip, self.batches_per_epoch):
                part = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                own = part.reshape(-1, self.micro_batch)[:, self.world.share(self.micro_batch)]
                yield [(epoch, int(index)) for index in own.flat]
            skip = 0


def check_shares(batch_size: int, micro_batch: int, processes: int) -> None:
    """Check that every process gets equally many pairs of every batch and micro-batch.

    Raises:
        ConfigError: naming sizes that work.
    """
    if micro_batch > batch_size or batch_size % micro_batch:
        parts = [size for size in range(2, batch_size + 1) if batch_size % size == 0]
        raise ConfigError(
            f"trainer.micro_batch = {micro_batch}: it must divide trainer.batch_size = "
            f"{batch_size}; sizes that do: {some(parts, 12)}"
        )
    key = "batch_size" if micro_batch == batch_size else "micro_batch"
    if micro_batch % processes:
        below = micro_batch // processes * processes
        fitting = [str(size) for size in (below, below + processes) if size >= 2]
        counts = [str(n) for n in range(1, micro_batch + 1) if micro_batch % n == 0]
        raise ConfigError(
            f"trainer.{key} = {micro_batch} cannot be shared evenly by {processes} processes; set "
            f"it to {' or '.join(fitting)}, or start {some(counts, 12)} processes"
        )


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The permutation (size,) of one epoch: a function of (seed, epoch, size) alone."""
    return generator(seed, epoch, 0, ORDER_STREAM).permutation(size)


def collate_pairs(samples: list[PairSample | PixCloudError]) -> PairBatch | PixCloudError:
    """Stack samples along a new leading axis B; the first error, where there is one."""
    for sample in samples:
        if isinstance(sample, PixCloudError):
            return sample
    return _stack(samples)  # type: ignore[arg-type]


def _stack(samples: list[PairSample]) -> PairBatch:
    draws = {
        name: torch.from_numpy(np.stack([sample.draws[name] for sample in samples]))
        for name in samples[0].draws
    }
    return PairBatch(
        sample_index=torch.tensor([sample.sample_index for sample in samples]),
        points=torch.from_numpy(np.stack([sample.points for sample in samples])),
        pictures=torch.from_numpy(np.stack([sample.picture for sample in samples])),
        draws=draws,
    )


def to_device(batch: PairBatch, device: torch.device) -> PairBatch:
    """The batch on `device`."""
    move = {"device": device, "non_blocking": True}
    return PairBatch(
        batch.sample_index,
        batch.points.to(**move),  # type: ignore[call-overload]
        batch.pictures.to(**move),  # type: ignore[call-overload]
        {name: draw.to(**move) for name, draw in batch.draws.items()},  # type: ignore[call-overload]
    )


def resolve_workers(workers: int) -> int:
    """Reading processes: -1 becomes one per core but one, at least 1 and at most 8."""
    if workers >= 0:
        return workers
    return min(max(available_cores() - 1, 1), 8)


def pair_batches(
    dataset: PairDataset, order: PairOrder, workers: int
) -> Generator[PairBatch, None, None]:
    """The batches of the rest of the run; they do not depend on `workers`.

    Raises:
        FileFormatError: for a sample that cannot be read.
    """
    workers = resolve_workers(workers)
    loader = DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate_pairs,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_interrupts,
        # Its own generator: the loader draws a seed at every start, and a resumed run starts it
        # more often than one that was never cut.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, PixCloudError):
            raise batch
        yield batch
