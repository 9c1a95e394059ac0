"""Stage 9, the supervised loop: a model, a loss per batch and a score -> its best weights.

Used by `pixcloud.evaluate.finetune` and `few_shot`; whatever is trained on labels can share it
through `Task`. It knows no test split: its score comes from a validation part, or there is none.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from pixcloud.config import OptimConfig
from pixcloud.data.views import generator
from pixcloud.errors import TrainingError
from pixcloud.evaluate.augmentation import ORDER_STREAM
from pixcloud.evaluate.training_settings import FitSettings
from pixcloud.optimizer import build_optimizer
from pixcloud.schedule import learning_rate

Say = Callable[[str], None]
# Running batch statistics take in a tenth of each batch: after so many steps 99.5 % of them.
SETTLING_STEPS = 50


class Task(Protocol):
    """What is learned: the number of training samples, the loss of some, and a score.

    `loss(model, places, epoch)` gets the places (B,) of a batch and returns a scalar.
    `score(model)` is called in evaluation mode without gradients, and returns numbers of which
    the larger tuple is better, or None where there is nothing to choose by.
    """

    @property
    def size(self) -> int: ...

    def loss(self, model: nn.Module, places: np.ndarray, epoch: int) -> torch.Tensor: ...

    def score(self, model: nn.Module) -> tuple[float, ...] | None: ...


@dataclass(kw_only=True, frozen=True)
class FitRecord:
    """How a fit went.

    epoch: from 1, the one whose weights were taken; epochs: that were run; score: of the chosen
    epoch, or None without a validation part; losses: mean training loss of each epoch.
    """

    epoch: int
    epochs: int
    score: tuple[float, ...] | None
    losses: tuple[float, ...]

    def as_json(self) -> str:
        """As text, from which every number comes back to the last bit."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of_json(cls, text: str) -> FitRecord:
        """What `as_json` gave."""
        values = json.loads(text)
        for key in ("score", "losses"):
            values[key] = None if values[key] is None else tuple(values[key])
        return cls(**values)


def batches_of(size: int, batch_size: int, order: np.ndarray) -> list[np.ndarray]:
    """Cut an order into batches whose sizes differ by at most one, none of a single sample.

    Batch statistics of one sample are none; and a short last batch would count too much.

    >>> [len(batch) for batch in batches_of(9, 4, np.arange(9))]
    [3, 3, 3]
    """
    return np.array_split(order, max(1, min(math.ceil(size / batch_size), size // 2)))


def fit(
    model: nn.Module,
    task: Task,
    settings: FitSettings,
    optim: OptimConfig,
    *,
    seed: int,
    title: str = "",
    say: Say | None = None,
) -> FitRecord:
    """Train until the budget or the patience ends; the model ends with its best weights.

    The result is a function of (model, task, settings, seed): the order of each epoch and torch's
    generator (dropout) are set from the seed at its beginning, and torch's generator is given back
    as it was.

    Args:
        model: whose parameters with gradients are trained; it ends in evaluation mode.
        task: what is learned.
        settings: of the loop.
        optim: optimiser and learning rate.
        seed: of order and dropout.
        title: for the bar on a terminal.
        say: takes a line at the end.

    Raises:
        TrainingError: if the loss is not finite.
    """
    optimizer = build_optimizer(optim, model)
    steps = len(batches_of(task.size, settings.batch_size, np.arange(task.size)))
    follows = _keeps_statistics(model.train())
    best: tuple[int, tuple[float, ...], dict[str, torch.Tensor]] | None = None
    losses: list[float] = []
    with torch.random.fork_rng(), _bar(title, settings.epochs) as advance:
        for epoch in range(settings.epochs):
            losses.append(_train_epoch(model, task, settings, optim, optimizer, seed, epoch, steps))
            score = _score(model, task)
            advance(epoch + 1, losses[-1], score)
            if score is None:
                continue
            if best is None or score > best[1]:
                best = epoch, score, _copied(model)
            elif settings.patience and epoch - best[0] >= settings.patience:
                break
    if best is not None:
        model.load_state_dict(best[2])
    model.eval()
    record = FitRecord(
        epoch=len(losses) if best is None else best[0] + 1,
        epochs=len(losses),
        score=None if best is None else best[1],
        losses=tuple(losses),
    )
    if say is not None:
        say(_told(title, record))
        if follows and steps * len(losses) < SETTLING_STEPS:
            say(
                f"warning: {title}: {steps * len(losses)} steps are too few for running batch "
                "statistics to settle, and predictions may be near chance; set more --fit.epochs"
            )
    return record


def _train_epoch(
    model: nn.Module,
    task: Task,
    settings: FitSettings,
    optim: OptimConfig,
    optimizer: torch.optim.Optimizer,
    seed: int,
    epoch: int,
    steps: int,
) -> float:
    """One pass; returns the mean loss over its samples."""
    rng = generator(seed, epoch, 0, ORDER_STREAM)
    order = rng.permutation(task.size)
    torch.manual_seed(int(rng.integers(2**63)))
    model.train()
    total = 0.0
    for number, places in enumerate(batches_of(task.size, settings.batch_size, order)):
        rate = learning_rate(optim, epoch * steps + number, steps, settings.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = task.loss(model, places, epoch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in epoch {epoch + 1}: set a smaller --optim.lr, or "
                "--optim.clip_norm 1"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if optim.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        optimizer.step()
        total += value * len(places)
    return total / task.size


def _score(model: nn.Module, task: Task) -> tuple[float, ...] | None:
    model.eval()
    with torch.no_grad():
        return task.score(model)


def _keeps_statistics(model: nn.Module) -> bool:
    """Whether a layer in training mode follows the statistics of batches."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    return any(isinstance(module, kinds) and module.training for module in model.modules())


def _copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _told(title: str, record: FitRecord) -> str:
    end = f"loss {record.losses[-1]:.3f}"
    if record.score is None:
        return f"{title}: {record.epochs} epochs, {end}; no validation part, the last one is taken"
    return (
        f"{title}: {record.epochs} epochs, {end}; epoch {record.epoch} is best on the validation "
        f"part, {100 * record.score[0]:.1f} %"
    )


def _bar(title: str, epochs: int) -> Any:
    """A progress bar on a terminal, nothing elsewhere; gives what moves it."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        return nullcontext(lambda done, loss, score: None)
    return _Bar(console, title, epochs)


class _Bar:
    """The bar: epochs, training loss and validation score."""

    def __init__(self, console: Any, title: str, epochs: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total} epochs {task.fields[words]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task(title, total=epochs, words="")

    def __enter__(self) -> Callable[[int, float, tuple[float, ...] | None], None]:
        self._bar.start()
        return self._advance

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def _advance(self, done: int, loss: float, score: tuple[float, ...] | None) -> None:
        words = f"loss {loss:.3f}" + (f" validation {100 * score[0]:.1f} %" if score else "")
        self._bar.update(self._task, completed=done, words=words)
