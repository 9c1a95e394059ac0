"""Stage 7, pre-training: a config -> a run folder with metrics, checkpoints and an encoder.

`pretrain` reads from top to bottom. A run is a function of its config: every draw of the data is a
function of (seed, epoch, index, view), weights are drawn after seeding, and a checkpoint holds
whatever else a later step depends on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.fabric import Fabric

from pixcloud.checkpoint import (
    Checkpoint,
    Progress,
    generator_states,
    last_good,
    restore_generators,
    save_checkpoint,
)
from pixcloud.config import PretrainConfig, validate
from pixcloud.data.loading import PairDataset, PairOrder, pair_batches, to_device
from pixcloud.data.shapenet import complete_pairs, gaps, pairs_sha256
from pixcloud.data.sources import open_pair_index
from pixcloud.data.views import augment_clouds, augment_pictures
from pixcloud.encoders import build_encoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.errors import CheckpointError, PixCloudError, TrainingError
from pixcloud.evaluate.features import require_points
from pixcloud.export import save_encoder
from pixcloud.loggers.followers import Followers
from pixcloud.loggers.target import require_packages
from pixcloud.machine_settings import resolve
from pixcloud.objective import CrossModalObjective
from pixcloud.optimizer import build_optimizer, match_layout
from pixcloud.progress import Clock, TrainingProgress
from pixcloud.run_folder import RunFolder
from pixcloud.schedule import learning_rate
from pixcloud.selection import Selection
from pixcloud.signals import Interrupted, StopRequest
from pixcloud.types import PairBatch

LOSSES = ("loss", "intra", "cross")
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}


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
    config, notes = resolve(config)
    run = RunFolder(config)
    index = open_pair_index(config.data.source)
    pairs = complete_pairs(index, config.data.unpaired)
    dataset = PairDataset(pairs, config.data, config.views, config.seed)
    order = PairOrder(
        len(pairs),
        config.trainer.batch_size,
        config.trainer.epochs,
        config.seed,
        accumulate=config.trainer.accumulate,
    )
    selection = Selection(config)
    torch.set_num_threads(config.trainer.threads)
    if config.trainer.precision == "32":  # else CUDA rounds convolutions to TF32's 10 bits
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    trainer = Trainer(config, run, order.batches_per_epoch // config.trainer.accumulate, selection)
    trainer.restore(pairs_sha256(pairs))
    order.start_batch = trainer.progress.step * config.trainer.accumulate
    # Closing it ends the reading processes, whatever happens here.
    with contextlib.closing(pair_batches(dataset, order, config.data.workers)) as batches:
        # Broken files mostly show in the first batch; a run folder is made only once it was read.
        first = list(itertools.islice(batches, 1))
        run.start(trainer.progress.step)
        for gap in gaps(index):
            run.say(gap)
        trainer.announce(len(pairs), notes)
        with Followers(config, run, trainer.progress.step), StopRequest() as stop:
            trainer.fit(itertools.chain(first, batches), stop)
    return PretrainResult(
        run=run.path, steps=trainer.progress.step, losses=trainer.progress.last_epoch
    )


def build_objective(config: PretrainConfig) -> CrossModalObjective:
    """Both encoders with their heads, weights drawn from the seed.

    Raises:
        ConfigError: for settings that an encoder refuses, or clouds too small for it.
    """
    torch.manual_seed(config.seed)
    point_encoder = build_encoder(config.encoder.name, **config.encoder.settings)
    require_points(point_encoder, config.data.num_points, "data.num_points")
    image_encoder = ImageEncoder(config.image.name, frozen=config.image.frozen)
    return CrossModalObjective(point_encoder, image_encoder, **dataclasses.asdict(config.objective))


class Trainer:
    """The loop and its state.

    Args:
        config: resolved.
        run: where everything is written.
        steps_per_epoch: optimiser steps in one epoch.
        selection: probes during training.
    """

    def __init__(
        self, config: PretrainConfig, run: RunFolder, steps_per_epoch: int, selection: Selection
    ) -> None:
        self.config, self.run, self.selection = config, run, selection
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = steps_per_epoch * config.trainer.epochs
        self.progress = Progress()
        self.fabric = Fabric(
            accelerator=config.trainer.device,
            devices=1,
            precision=PRECISIONS[config.trainer.precision],  # type: ignore[arg-type]
        )
        self.objective = build_objective(config)
        selection.check(self.objective.point_encoder)
        optimizer = build_optimizer(config.optim, self.objective)
        self.model, self.optimizer = self.fabric.setup(self.objective, optimizer)

    def restore(self, pairs: str) -> None:
        """Go back to the last good checkpoint of the run, if there is one.

        Args:
            pairs: hash of the names of the pairs.

        Raises:
            CheckpointError: if the run began with other pairs, or no checkpoint can be read.
        """
        self.progress.pairs = pairs
        saved = last_good(self.run.checkpoints, self.run.say) if self.config.resume else None
        if saved is None:
            return
        if saved.state.get("pairs", pairs) != pairs:
            raise CheckpointError(
                f"{self.run.path}: the pairs in {self.config.data.source} are not those that the "
                "run began with; put them back as they were, or start a new run"
            )
        try:
            self.objective.load_state_dict(saved.model)
            self.optimizer.load_state_dict(saved.optimizer)
        except (
            RuntimeError,
            ValueError,
            KeyError,
        ) as error:
            raise CheckpointError(
                f"{self.run.checkpoints}: of a run with other settings than these; give its own, "
                "or start over in another --run folder"
            ) from error
        match_layout(self.optimizer)
        restore_generators(saved.generators)
        self.progress = Progress(**{**saved.state, "pairs": pairs})

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        checkpoint = Checkpoint(
            model=self.objective.state_dict(),
            optimizer=self.optimizer.state_dict(),
            state=dataclasses.asdict(self.progress),
            generators=generator_states(self.config.trainer.device),
        )
        save_checkpoint(self.run.checkpoints, checkpoint, self.config.trainer.keep_checkpoints)

    def announce(self, pairs: int, notes: list[str]) -> None:
        """Say what is about to run."""
        trainer, encoder = self.config.trainer, self.config.encoder
        count = sum(p.numel() for p in self.objective.point_encoder.parameters())
        where = f"from step {self.progress.step}" if self.progress.step else "from scratch"
        tower = self.objective.image_encoder.memory_format
        for note in notes:
            self.run.say(note)
        self.run.say(
            f"pre-training {encoder.name} ({count / 1e6:.2f} M weights) with "
            f"{self.config.image.name} on {pairs} pairs: {trainer.epochs} epochs of "
            f"{self.steps_per_epoch} steps, {where}; {trainer.device}, precision "
            f"{trainer.precision}, picture tower {tower}, {trainer.threads} threads; run folder "
            f"{self.run.path}"
        )

    def fit(self, batches: Iterator[PairBatch], stop: StopRequest) -> None:
        """Train to the end, or until a signal asks to stop."""
        trainer, progress = self.config.trainer, self.progress
        self.model.train()
        clock = Clock(progress.step)
        with TrainingProgress(self.total_steps, progress.step, trainer.progress) as bar:
            while progress.step < self.total_steps:
                lr = self.train_step(self.read(batches))
                bar.advance(progress.step)
                if progress.step % trainer.log_every == 0 or progress.step == self.total_steps:
                    self.log_interval(lr, clock, bar)
                end_of_epoch = progress.step % self.steps_per_epoch == 0
                if end_of_epoch:
                    self.end_epoch(clock)
                every = trainer.checkpoint_every
                if stop.number or (progress.step % every == 0 if every else end_of_epoch):
                    progress.seconds += clock.lap()
                    self.save()
                if stop.number:
                    raise Interrupted(
                        stop.number,
                        f"stopped at step {progress.step} of {self.total_steps}; the state is "
                        f"saved, go on with: pixcloud pretrain --run {self.run.path} --resume true",
                    )
        self.finish()

    def read(self, batches: Iterator[PairBatch]) -> list[PairBatch]:
        """The batches of one step.

        Raises:
            PixCloudError: if a file is broken; the state is saved, for going on once it is mended.
        """
        try:
            return list(itertools.islice(batches, self.config.trainer.accumulate))
        except PixCloudError as error:
            self.save()
            raise type(error)(
                f"{error}; the state of step {self.progress.step} is saved: then go on with "
                f"pixcloud pretrain --run {self.run.path} --resume true"
            ) from error

    def train_step(self, batches: list[PairBatch]) -> float:
        """One step of the optimiser over its batches; returns its learning rate."""
        config, progress = self.config, self.progress
        lr = learning_rate(config.optim, progress.step, self.steps_per_epoch, config.trainer.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        for batch in batches:
            batch = to_device(batch, self.fabric.device)
            view1, view2 = augment_clouds(batch.points, batch.draws)
            losses = self.model(view1, view2, augment_pictures(batch.pictures, batch.draws))
            self.count(losses, batch)
            self.fabric.backward(losses["loss"] / config.trainer.accumulate)
        if config.optim.clip_norm:
            norm = self.fabric.clip_gradients(
                *(self.model, self.optimizer),
                max_norm=config.optim.clip_norm,
                error_if_nonfinite=False,
            )
            self.require_finite([float(norm or 0.0)], "norm of the gradients", batch)
        self.optimizer.step()
        progress.step += 1
        return lr

    def count(self, losses: dict[str, torch.Tensor], batch: PairBatch) -> None:
        """Add the losses of a batch to the running sums."""
        values = [losses[name].item() for name in LOSSES] + [1.0]
        self.require_finite(values, "loss", batch)
        for sums in (self.progress.interval, self.progress.epoch):
            for place, value in enumerate(values):
                sums[place] += value

    def require_finite(self, values: list[float], what: str, batch: PairBatch) -> None:
        """Raise a TrainingError unless all values are finite."""
        if not all(map(math.isfinite, values)):
            raise TrainingError(
                f"the {what} is not finite at step {self.progress.step} (pairs "
                f"{batch.sample_index.tolist()}); lower optim.lr or set optim.clip_norm and "
                "start a new run"
            )

    def log_interval(self, lr: float, clock: Clock, bar: TrainingProgress) -> None:
        """Write the means since the last line of this kind."""
        means = _means(self.progress.interval)
        self.progress.interval = [0.0] * 4
        trainer = self.config.trainer
        epoch = (self.progress.step - 1) // self.steps_per_epoch
        rate = clock.rate(self.progress.step) * trainer.batch_size * trainer.accumulate
        memory = psutil.Process().memory_info().rss / 2**20
        self.run.log(
            kind="step",
            step=self.progress.step,
            epoch=epoch,
            **means,
            lr=lr,
            pairs_per_s=round(rate, 2),
            memory_mib=round(memory),
        )
        bar.update(self.progress.step, epoch, {**means, "rate": rate})

    def end_epoch(self, clock: Clock) -> None:
        """Write the means of the epoch, probe if it is time, and say both."""
        progress = self.progress
        epoch = progress.step // self.steps_per_epoch - 1
        progress.last_epoch = _means(progress.epoch)
        progress.epoch = [0.0] * 4
        line: dict[str, Any] = {"kind": "epoch", "step": progress.step, "epoch": epoch}
        line.update(progress.last_epoch)
        accuracy = self.selection.probe(self.objective.point_encoder, epoch)
        said = ""
        if accuracy is not None:
            line["probe_validation"] = accuracy
            said = f", validation accuracy {100 * accuracy:.1f} %"
            if accuracy > progress.best.get("accuracy", -1.0):
                progress.best = {"accuracy": accuracy, "epoch": epoch}
                self.export({"epoch": epoch, "probe_validation": accuracy})
        self.model.train()
        seconds = progress.seconds + clock.elapsed()
        self.run.log(**line, seconds=round(seconds, 2))
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
        """Write the point encoder and its head as they are now."""
        origin = {
            "method": "CrossPoint",
            "recipe": self.config.recipe,
            "seed": self.config.seed,
            "source": self.config.data.source,
            **origin,
        }
        save_encoder(
            self.run.encoder, self.objective.point_encoder, self.objective.point_head, origin
        )


def _means(sums: list[float]) -> dict[str, float]:
    return {name: sums[place] / sums[-1] for place, name in enumerate(LOSSES)}
