"""The supervised loop: which weights it takes, when it ends, and that it repeats itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from small_clouds import one_thread  # noqa: F401 (a fixture of the module)
from torch import nn

from pixcloud.config import OptimConfig
from pixcloud.errors import ConfigError, TrainingError
from pixcloud.evaluate.supervised import FitRecord, batches_of, fit
from pixcloud.evaluate.training_settings import (
    AugmentSettings,
    FewShotSettings,
    FinetuneSettings,
    FitSettings,
    check_optim,
)
from pixcloud.schedule import learning_rate


class One(nn.Module):
    """A single weight; with dropout before it if `dropout` is set."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.drop = nn.Dropout(dropout)


@dataclass
class Scripted:
    """Gradient -1 at every step; the score of each epoch is given; keeps what it was asked."""

    scores: list[float] | None
    size: int = 7
    seen: list[list[int]] = field(default_factory=list)
    modes: list[bool] = field(default_factory=list)
    at: int = 0

    def loss(self, model: One, places: np.ndarray, epoch: int) -> torch.Tensor:
        self.seen.append(places.tolist())
        self.modes.append(model.training)
        return -(model.weight + model.drop(torch.ones(3)).sum().detach() * model.weight).sum()

    def score(self, model: One) -> tuple[float, ...] | None:
        self.modes.append(model.training)
        assert not torch.is_grad_enabled()
        self.at += 1
        return None if self.scores is None else (self.scores[self.at - 1],)


SGD = OptimConfig(name="sgd", lr=0.1, momentum=0.0, weight_decay=0.0)


def run(task: Scripted, seed: int = 0, dropout: float = 0.0, **settings: int) -> tuple:
    model = One(dropout)
    record = fit(model, task, FitSettings(**{"batch_size": 4, **settings}), SGD, seed=seed)
    return model, record


@pytest.mark.parametrize("size", range(2, 30))
@pytest.mark.parametrize("batch", [2, 3, 8])
def test_batches_hold_each_sample_once_and_none_is_alone(size: int, batch: int) -> None:
    order = np.random.default_rng(size).permutation(size)
    batches = batches_of(size, batch, order)
    np.testing.assert_array_equal(np.concatenate(batches), order)
    lengths = [len(b) for b in batches]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 2
    assert max(lengths) <= batch + 1


def test_the_rate_follows_the_schedule_and_never_is_zero() -> None:
    """The loss is -4 w, so that the weight is four times the sum of all rates."""
    model, record = run(Scripted(None), epochs=3)
    rates = [learning_rate(SGD, step, 2, 3) for step in range(6)]
    assert min(rates) > 0
    assert model.weight.item() == pytest.approx(4 * sum(rates), rel=1e-6)
    assert record == FitRecord(epoch=3, epochs=3, score=None, losses=record.losses)


def test_the_best_epoch_is_taken_and_patience_ends_it() -> None:
    whole, _ = run(Scripted([0.1, 0.5, 0.9, 0.9, 0.2, 0.3, 0.4, 0.4]), epochs=8, patience=0)
    task = Scripted([0.1, 0.5, 0.9, 0.9, 0.2, 0.3, 0.4, 0.4])
    model, record = run(task, epochs=8, patience=3)
    assert (record.epoch, record.epochs, record.score) == (3, 6, (0.9,))  # the first of equals
    assert model.weight.item() == whole.weight.item()
    rates = [learning_rate(SGD, step, 2, 8) for step in range(6)]  # of the first three epochs
    assert model.weight.item() == pytest.approx(4 * sum(rates), rel=1e-6)
    assert not model.training
    assert task.modes == [True, True, False] * 6


def test_orders_differ_between_epochs_and_seeds_and_repeat() -> None:
    first, again, other = (Scripted(None) for _ in range(3))
    state = torch.get_rng_state()
    weights = [
        run(task, seed, dropout=0.5, epochs=2)[0].weight.item()
        for task, seed in ((first, 3), (again, 3), (other, 4))
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert first.seen == again.seen != other.seen
    assert weights[0] == weights[1] != weights[2]
    assert first.seen[:2] != first.seen[2:]
    assert sorted(np.concatenate(first.seen[:2]).tolist()) == list(range(7))


def test_a_loss_that_is_not_finite_is_told() -> None:
    class Broken(Scripted):
        def loss(self, model: One, places: np.ndarray, epoch: int) -> torch.Tensor:
            return model.weight.sum() * float("inf")

    with pytest.raises(TrainingError, match=r"in epoch 1: set a smaller --optim\.lr"):
        run(Broken(None))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FitSettings(epochs=0), "fit.epochs is 0: expected at least 1"),
        (lambda: FitSettings(batch_size=1), "fit.batch_size is 1: expected at least 2"),
        (lambda: FitSettings(patience=-1), "fit.patience is -1"),
        (lambda: FitSettings(label_smoothing=1.0), "fit.label_smoothing is 1.0"),
        (lambda: AugmentSettings(scale_low=0.0), "augment.scale_low is 0.0"),
        (lambda: AugmentSettings(scale_high=0.5), "augment.scale_high is 0.5: expected at least"),
        (lambda: AugmentSettings(rotation=361.0), "augment.rotation is 361.0"),
        (lambda: AugmentSettings(jitter=float("nan")), "augment.jitter = nan: a finite number"),
        (lambda: FinetuneSettings(fractions=(0.0,)), "fractions is 0.0: expected shares above 0"),
        (lambda: FinetuneSettings(fractions=(5.0,)), "5 % is|finetune.fractions is 5.0"),
        (lambda: FinetuneSettings(fractions=()), "one or more different shares"),
        (lambda: FinetuneSettings(fractions=(0.1, 0.1)), "one or more different shares"),
        (lambda: FinetuneSettings(validation_share=1.0), "finetune.validation_share is 1.0"),
        (lambda: FinetuneSettings(votes=0), "finetune.votes is 0"),
        (lambda: FinetuneSettings(head="deep"), "finetune.head = 'deep': one of 'mlp', 'linear'"),
        (lambda: FewShotSettings(ways=1), "fewshot.ways is 1: expected >= 2"),
        (lambda: FewShotSettings(trials=1), "fewshot.trials is 1"),
        (lambda: FewShotSettings(c=0.0), "fewshot.c is 0.0"),
        (lambda: check_optim(OptimConfig(lr=0.0)), "optim.lr is 0.0: expected more than 0"),
        (lambda: check_optim(OptimConfig(name="lamb")), "optim.name = 'lamb'"),
    ],
)
def test_settings_out_of_range_are_named(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
