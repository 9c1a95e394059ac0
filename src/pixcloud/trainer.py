"""Stage 7, pre-training: a config -> a run folder with metrics, checkpoints and an encoder.

`pretrain` reads from top to bottom. A run is a function of its config: every draw of the data is a
function of (seed, epoch, index, view), weights are drawn after seeding, and a checkpoint holds
whatever else a later step depends on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from pixcloud.building import build_objective, export_objective
from pixcloud.checkpoint import (
    Checkpoint,
    Progress,
    generator_states,
    last_good,
    save_checkpoint,
    shared_checkpoint,
    take_up,
)
from pixcloud.config import PretrainConfig, validate
from pixcloud.data.loading import PairDataset, PairOrder, pair_batches
from pixcloud.data.shapenet import complete_pairs, gaps, pairs_sha256, split_pairs
from pixcloud.data.sources import open_pair_index
from pixcloud.data_parallel import DataParallel
from pixcloud.distributed import ALONE, World
from pixcloud.errors import CheckpointError, DataError, PixCloudError, TrainingError
from pixcloud.held_out import HeldOut
from pixcloud.launch import find_place, in_processes, processes, restarted
from pixcloud.loggers.followers import Followers
from pixcloud.loggers.target import require_packages
from pixcloud.loss_sums import LossSums, mean_losses
from pixcloud.machine_settings import resolve
from pixcloud.ops.batch_norm import synchronize
from pixcloud.optimizer import build_optimizer
from pixcloud.progress import Clock, TrainingProgress
from pixcloud.run_folder import RunFolder
from pixcloud.schedule import learning_rate
from pixcloud.selection import Selection
from pixcloud.signals import Interrupted, StopRequest
from pixcloud.step import Step
from pixcloud.types import PairBatch

# Steps in a row that may be skipped: after so many the weights are lost.
MOST_SKIPPED = 20


@dataclass(kw_only=True)
class PretrainResult:
    """Where a run lies, the optimiser steps it has, and the losses of its last epoch."""

    run: Path
    steps: int
    losses: dict[str, float]


def pretrain(config: PretrainConfig) -> PretrainResult:
    """Pre-train a point encoder on pairs of clouds and pictures (CrossPoint, arXiv:2203.00680).

    Args:
        config: see `pixcloud.config.PretrainConfig`; `pretrain_config` makes one from a recipe.

    Returns:
        The run folder and the losses of the last epoch.

    Raises:
        PixCloudError: for data, settings or a run folder that the user can mend.
        Interrupted: after Ctrl-C or SIGTERM, when the state is saved.

    Example:
        >>> from pixcloud.config import pretrain_config
        >>> config = pretrain_config("demo", run="runs/first", trainer={"epochs": 2})
        >>> result = pretrain(config)  # doctest: +SKIP
    """
    validate(config)
    require_packages(config.log)
    trainer = config.trainer
    if trainer.devices * trainer.nodes > 1 and find_place() is None:
        shared = trainer.devices, trainer.nodes, trainer.rendezvous
        result = in_processes("pixcloud.trainer:pretrain", config, *shared)
        return PretrainResult(**{**result, "run": Path(result.get("run", config.run))})
    if restarted():
        config = dataclasses.replace(config, resume=True)
    config, notes = resolve(config)
    with processes(config.trainer.device, config.trainer.heartbeat) as world:
        return _pretrain(config, notes, world)


def _pretrain(config: PretrainConfig, notes: list[str], world: World) -> PretrainResult:
    """The part of one process in a run."""
    # Measured on each machine, it must not differ between them.
    precision = world.decide(lambda: config.trainer.precision)
    config = dataclasses.replace(
        config, trainer=dataclasses.replace(config.trainer, precision=precision)
    )
    run = world.agree(lambda: RunFolder(config, world))
    index = world.agree(lambda: open_pair_index(config.data.source))
    complete = world.agree(lambda: complete_pairs(index, config.data.unpaired))
    pairs, aside = split_pairs(complete, config.data.held_out)
    dataset = PairDataset(pairs, config.data, config.views, config.seed)
    order = PairOrder(
        *(len(pairs), config.trainer.batch_size, config.trainer.epochs, config.seed),
        accumulate=config.trainer.accumulate,
        world=world,
        micro_batch=config.trainer.micro_batch,
    )
    selection = world.agree(lambda: Selection(config, world))
    held_out = world.agree(lambda: HeldOut(config, aside, world))
    torch.set_num_threads(config.trainer.threads)
    if config.trainer.precision == "32":  # else CUDA rounds convolutions to TF32's 10 bits
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    steps = order.batches_per_epoch // config.trainer.accumulate
    trainer = Trainer(config, run, steps, selection, held_out, world)
    if not world.same(names := pairs_sha256(pairs)):
        raise DataError(
            f"{config.data.source}: the machines of this run hold different pairs there; give all "
            "of them the same files"
        )
    trainer.restore(names)
    order.start_batch = trainer.progress.step * config.trainer.accumulate
    # Closing it ends the reading processes, whatever happens here.
    with contextlib.closing(pair_batches(dataset, order, config.data.workers)) as batches:
        # Broken files mostly show in the first batch; a run folder is made only once it was read.
        first = world.agree(lambda: list(itertools.islice(batches, 1)))
        world.agree(lambda: run.start(trainer.progress.step))
        for gap in gaps(index):
            run.say(gap)
        trainer.announce(len(pairs), notes)
        with Followers(config, run, trainer.progress.step), StopRequest() as stop:
            trainer.fit(itertools.chain(first, batches), stop)
    return PretrainResult(
        run=run.path, steps=trainer.progress.step, losses=trainer.progress.last_epoch
    )


class Trainer:
    """The loop and its state.

    Args:
        config: resolved.
        run: where everything is written.
        steps_per_epoch: optimiser steps in one epoch.
        selection: probes during training.
        held_out: retrieval during training.
        world: the processes that share each batch.
    """

    def __init__(
        self,
        config: PretrainConfig,
        run: RunFolder,
        steps_per_epoch: int,
        selection: Selection,
        held_out: HeldOut,
        world: World = ALONE,
    ) -> None:
        self.config, self.run, self.selection, self.world = config, run, selection, world
        self.held_out = held_out
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = steps_per_epoch * config.trainer.epochs
        self.progress = Progress()
        self.sums = LossSums(world)
        self.skipped = 0
        self.objective = world.agree(lambda: build_objective(config))
        selection.check(self.objective.point_encoder)
        if world.size > 1:
            self.objective.world = world
            synchronize(self.objective, world)
        precision = config.trainer.precision
        parallel = DataParallel(self.objective, config.trainer.device, precision, world)
        self.optimizer = build_optimizer(config.optim, self.objective)
        self.step = Step(config, self.objective, parallel, self.optimizer, world)

    def restore(self, pairs: str) -> None:
        """Go back to the last good checkpoint of the run, if there is one.

        Only the first process reads it: the others may be on machines without its disk.

        Args:
            pairs: hash of the names of the pairs.

        Raises:
            CheckpointError: if the run began with other pairs, or no checkpoint can be read.
        """
        self.progress.pairs = pairs
        if not self.config.resume:
            return
        saved = shared_checkpoint(lambda: last_good(self.run.checkpoints, self.run.say), self.world)
        if saved is None:
            return
        if saved.state.get("pairs", pairs) != pairs:
            raise CheckpointError(
                f"{self.run.path}: the pairs in {self.config.data.source} are not those that the "
                "run began with; put them back as they were, or start a new run"
            )
        take_up(saved, self.objective, self.optimizer, self.run.checkpoints)
        self.progress = Progress(**{**saved.state, "pairs": pairs})

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        self.sums.reduce(self.progress)
        checkpoint = Checkpoint(
            model=self.objective.state_dict(),
            optimizer=self.optimizer.state_dict(),
            state=dataclasses.asdict(self.progress),
            generators=generator_states(self.config.trainer.device),
        )
        keep = self.config.trainer.keep_checkpoints
        self.world.decide(lambda: save_checkpoint(self.run.checkpoints, checkpoint, keep))

    def announce(self, pairs: int, notes: list[str]) -> None:
        """Say what is about to run."""
        trainer, encoder = self.config.trainer, self.config.encoder
        count = sum(p.numel() for p in self.objective.point_encoder.parameters())
        where = f"from step {self.progress.step}" if self.progress.step else "from scratch"
        tower = self.objective.image_encoder.memory_format
        shared = f"{self.world.size} processes of " if self.world.size > 1 else ""
        for note in notes:
            self.run.say(note)
        self.run.say(
            f"pre-training {encoder.name} ({count / 1e6:.2f} M weights) with "
            f"{self.config.image.name} on {pairs} pairs: {trainer.epochs} epochs of "
            f"{self.steps_per_epoch} steps, {where}; {trainer.device}, precision "
            f"{trainer.precision}, picture tower {tower}, {shared}{trainer.threads} threads; run "
            f"folder {self.run.path}"
        )

    def fit(self, batches: Iterator[PairBatch], stop: StopRequest) -> None:
        """Train to the end, or until a signal asks to stop."""
        trainer, progress = self.config.trainer, self.progress
        self.objective.train()
        clock = Clock(progress.step)
        shown = trainer.progress and self.world.first
        with TrainingProgress(self.total_steps, progress.step, shown) as bar:
            read = self.read(batches)
            self.world.agree(functools.partial(_required, read))
            while progress.step < self.total_steps:
                lr = self.train_step(_required(read))
                bar.advance(progress.step)
                if progress.step % trainer.log_every == 0 or progress.step == self.total_steps:
                    self.log_interval(lr, clock, bar)
                end_of_epoch = progress.step % self.steps_per_epoch == 0
                if end_of_epoch:
                    self.end_epoch(clock)
                read = self.read(batches)
                # Every process hears of it when one is asked to stop or cannot read.
                number, broken = self.world.largest([stop.number, isinstance(read, Exception)])
                every = trainer.checkpoint_every
                if number or broken or (progress.step % every == 0 if every else end_of_epoch):
                    progress.seconds += clock.lap()
                    self.save()
                if broken:
                    self.world.agree(functools.partial(_required, read))
                if number:
                    raise Interrupted(number, self.how_to_go_on())
        self.finish()

    def how_to_go_on(self) -> str:
        """What to tell who stopped the run."""
        return (
            f"stopped at step {self.progress.step} of {self.total_steps}; the state is saved, go "
            f"on with: pixcloud pretrain --run {self.run.path} --resume true"
        )

    def read(self, batches: Iterator[PairBatch]) -> list[PairBatch] | PixCloudError:
        """The batches of the next step, none after the last, or why they cannot be read."""
        if self.progress.step == self.total_steps:
            return []
        try:
            return list(itertools.islice(batches, self.config.trainer.accumulate))
        except PixCloudError as error:
            return type(error)(
                f"{error}; the state of step {self.progress.step} is saved: then go on with "
                f"pixcloud pretrain --run {self.run.path} --resume true"
            )

    def train_step(self, batches: list[PairBatch]) -> float:
        """One step of the optimiser over its batches; returns its learning rate."""
        config, progress = self.config, self.progress
        lr = learning_rate(config.optim, progress.step, self.steps_per_epoch, config.trainer.epochs)
        parts, finite = self.step(batches, lr)
        progress.step += 1
        if finite:
            self.sums.add(parts)
            self.skipped = 0
        else:
            self.skip(batches)
        return lr

    def skip(self, batches: list[PairBatch]) -> None:
        """A step whose gradient was not finite, and which changed nothing.

        Raises:
            TrainingError: naming its pairs, unless `trainer.on_nonfinite` is skip; or if too many
                in a row were skipped.
        """
        own = torch.cat([batch.sample_index for batch in batches])
        places = sorted(self.world.gather(own).tolist())
        what = (
            f"the loss or its gradient is not finite at step {self.progress.step} (pairs {places})"
        )
        self.skipped += 1
        advice = "lower optim.lr or set optim.clip_norm and start a new run"
        if self.config.trainer.on_nonfinite == "stop":
            raise TrainingError(
                f"{what}; {advice}, or go on past it with trainer.on_nonfinite skip"
            )
        if self.skipped == MOST_SKIPPED:
            raise TrainingError(f"{what}, as in {MOST_SKIPPED - 1} steps before; {advice}")
        self.write(kind="skipped", step=self.progress.step, pairs=places)
        self.world.agree(lambda: self.run.say(f"{what}; skipped"))

    def write(self, **values: Any) -> None:
        """One line of metrics; if it cannot be written, all processes hear of it."""
        self.world.decide(lambda: self.run.log(**values))

    def log_interval(self, lr: float, clock: Clock, bar: TrainingProgress) -> None:
        """Write the means since the last line of this kind."""
        self.sums.reduce(self.progress)
        if not self.progress.interval[-1]:
            return  # all its steps were skipped, and each has a line of its own
        means = mean_losses(self.progress.interval)
        self.progress.interval = [0.0] * 4
        trainer = self.config.trainer
        epoch = (self.progress.step - 1) // self.steps_per_epoch
        rate = clock.rate(self.progress.step) * trainer.batch_size * trainer.accumulate
        memory = round(psutil.Process().memory_info().rss / 2**20)
        line = {"step": self.progress.step, "epoch": epoch, **means, "lr": lr}
        line.update(self.objective.measured())
        self.write(
            **{"kind": "step", **line},
            pairs_per_s=round(rate, 2),
            memory_mib=self.world.largest([memory])[0],
        )
        self.run.trace(f"step {self.progress.step}: {rate:.1f} pairs/s, {memory} MiB here")
        bar.update(self.progress.step, epoch, {**means, "rate": rate})

    def end_epoch(self, clock: Clock) -> None:
        """Write the means of the epoch, probe if it is time, and say both."""
        self.sums.reduce(self.progress)
        progress = self.progress
        epoch = progress.step // self.steps_per_epoch - 1
        progress.last_epoch = mean_losses(progress.epoch)
        progress.epoch = [0.0] * 4
        line: dict[str, Any] = {"kind": "epoch", "step": progress.step, "epoch": epoch}
        line.update(progress.last_epoch)
        accuracy = self.selection.probe(self.objective.exported[0], epoch)
        said = ""
        if accuracy is not None:
            line["probe_validation"] = accuracy
            said = f", validation accuracy {100 * accuracy:.1f} %"
            if accuracy >= progress.best.get("accuracy", -1.0):  # small sets soon say 100 % of all
                progress.best = {"accuracy": accuracy, "epoch": epoch}
                self.export({"epoch": epoch, "probe_validation": accuracy})
        if recalls := self.held_out.recall(self.objective, epoch):
            line.update(recalls)
            said += self.held_out.words(recalls)
        self.objective.train()
        seconds = progress.seconds + clock.elapsed()
        self.write(**line, seconds=round(seconds, 2))
        self.run.say(
            f"epoch {epoch + 1}/{self.config.trainer.epochs}: intra "
            f"{progress.last_epoch['intra']:.4f}, cross {progress.last_epoch['cross']:.4f}{said}, "
            f"{seconds:.0f} s"
        )

    def finish(self) -> None:
        """Export the encoder, unless a probe has chosen one already."""
        best = self.progress.best
        if not best:
            self.export({"epoch": self.config.trainer.epochs - 1})
            self.run.say(f"done; the encoder is in {self.run.encoder}")
        else:
            self.run.say(
                f"done; the encoder of epoch {best['epoch'] + 1}, which had the best validation "
                f"accuracy ({100 * best['accuracy']:.1f} %), is in {self.run.encoder}"
            )

    def export(self, origin: dict[str, Any]) -> None:
        """Write both encoders and their heads as they are now."""
        origin = {"pairs_sha256": self.progress.pairs, **origin}
        folder, both, config = self.run.encoder, self.objective, self.config
        self.world.decide(lambda: export_objective(folder, both, config, origin))


def _required(read: list[PairBatch] | PixCloudError) -> list[PairBatch]:
    if isinstance(read, PixCloudError):
        raise read
    return read
