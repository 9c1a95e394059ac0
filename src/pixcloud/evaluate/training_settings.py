"""Stage 9, settings of the protocols that train: what `pixcloud finetune` and `fewshot` may set.

Read by `pixcloud.evaluate.supervised`, `finetune` and `few_shot`. No torch, so that help is fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from pixcloud.config import OptimConfig
from pixcloud.errors import ConfigError
from pixcloud.evaluate.settings import LabelledConfig
from pixcloud.ranges import RANGES, check_types


@dataclass(kw_only=True, frozen=True)
class FitSettings:
    """The supervised loop.

    Args:
        epochs: passes over the training clouds; the published number is 300.
        batch_size: clouds per step; the batches of an epoch differ by one cloud at most.
        patience: epochs without a better validation score after which training ends; 0 never ends
            it early. Ending early forfeits the low rates at the end of a cosine, which help most
            where the validation part is small and its best score luck.
        label_smoothing: share of the target that is spread over all classes.

    Raises:
        ConfigError: if a value is out of range.
    """

    epochs: int = 100
    batch_size: int = 32
    patience: int = 50
    label_smoothing: float = 0.2

    def __post_init__(self) -> None:
        check_types(self, "fit.")
        _require(self.epochs >= 1, "fit.epochs", self.epochs, "at least 1")
        _require(self.batch_size >= 2, "fit.batch_size", self.batch_size, "at least 2")
        _require(self.patience >= 0, "fit.patience", self.patience, "0 or more")
        smoothing = self.label_smoothing
        _require(0 <= smoothing < 1, "fit.label_smoothing", smoothing, "a share from 0 to below 1")


@dataclass(kw_only=True, frozen=True)
class AugmentSettings:
    """Augmentation of labelled clouds, after they are centred and scaled to the unit sphere.

    The defaults are what DGCNN's classification trains with. Data that stand at any heading, such
    as scans and the embedded data, gain by `rotation` 360.

    Args:
        scale_low: smallest factor; each axis has its own.
        scale_high: largest factor.
        rotation: degrees of heading about the up axis (y) to draw from; 0 does not turn.
        shift: largest translation along each axis, in radii.
        jitter: standard deviation of each coordinate's noise, in radii.
        jitter_clip: largest noise.
        subset: draw the points from all that are stored rather than take the first.

    Raises:
        ConfigError: if a value is out of range.
    """

    scale_low: float = 2 / 3
    scale_high: float = 3 / 2
    rotation: float = 0.0
    shift: float = 0.2
    jitter: float = 0.0
    jitter_clip: float = 0.05
    subset: bool = False

    def __post_init__(self) -> None:
        check_types(self, "augment.")
        low, high = self.scale_low, self.scale_high
        _require(low > 0, "augment.scale_low", low, "a positive number")
        _require(high >= low, "augment.scale_high", high, f"at least augment.scale_low = {low:g}")
        _require(0 <= self.rotation <= 360, "augment.rotation", self.rotation, "0 to 360 degrees")
        for key in ("shift", "jitter", "jitter_clip"):
            value = getattr(self, key)
            _require(value >= 0, f"augment.{key}", value, "0 or more")


@dataclass(kw_only=True, frozen=True)
class FinetuneSettings:
    """What is trained, on which labels, and how it is tested.

    Args:
        num_points: points of each cloud.
        k: neighbours of each point, where the encoder looks at some; no weight depends on it. 0
            keeps the encoder's own.
        freeze: train the head alone; the encoder stays in evaluation mode.
        head: mlp is DGCNN's classifier of three layers with dropout; linear is one layer.
        dropout: of the mlp head.
        fractions: shares of the train labels, one result each; class by class, at least one cloud
            of each, and the smaller ones lie in the larger ones.
        validation_share: share of each class of those labels that chooses the epoch; a class of
            fewer than three clouds gives none. Where none gives any, as with 0, the last epoch is
            taken.
        votes: passes at test time whose probabilities are averaged: the cloud as it is, and
            augmented ones of `vote_scale` and `vote_rotation`; 1 gives no row of votes.
        vote_scale: voting scales each axis by a factor between 1 / vote_scale and vote_scale.
        vote_rotation: degrees of heading that voting draws from; as `augment.rotation` in training.
        save_predictions: write the predictions of every row beside the results.
        seed: of everything that is drawn.

    Raises:
        ConfigError: if a value is out of range.
    """

    num_points: int = 1024
    k: int = 0
    freeze: bool = False
    head: Literal["mlp", "linear"] = "mlp"
    dropout: float = 0.5
    fractions: tuple[float, ...] = (1.0,)
    validation_share: float = 0.2
    votes: int = 10
    vote_scale: float = 1.25
    vote_rotation: float = 0.0
    save_predictions: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "finetune.")
        _require(self.num_points >= 1, "finetune.num_points", self.num_points, "at least 1")
        _require(self.k >= 0, "finetune.k", self.k, "at least 1, or 0 for the encoder's own")
        _require(0 <= self.dropout < 1, "finetune.dropout", self.dropout, "0 to below 1")
        for share in self.fractions:
            fine = _number(share) and 0 < share <= 1
            _require(fine, "finetune.fractions", share, "shares above 0 and up to 1; 1 % is 0.01")
        several = len(self.fractions) > 0 and len(set(self.fractions)) == len(self.fractions)
        _require(several, "finetune.fractions", self.fractions, "one or more different shares")
        share = self.validation_share
        _require(0 <= share < 1, "finetune.validation_share", share, "0 to below 1")
        _require(self.votes >= 1, "finetune.votes", self.votes, "at least 1")
        _require(self.vote_scale >= 1, "finetune.vote_scale", self.vote_scale, "at least 1")
        turn = self.vote_rotation
        _require(0 <= turn <= 360, "finetune.vote_rotation", turn, "0 to 360 degrees")
        _require(self.seed >= 0, "finetune.seed", self.seed, "0 or more")


@dataclass
class FinetuneConfig:
    """Classification by fine-tuning.

    Args:
        encoder: a run, an exported or imported encoder, or a Hugging Face Hub id.
        data: labelled clouds with a train and a test split.
        finetune: what is trained, on which labels, and how it is tested.
        fit: the supervised loop.
        optim: optimiser and learning rate.
        augment: augmentation of the training clouds.
        baseline: scratch trains the same architecture from fresh weights too, all of them, with
            the same labels and budget, and tests the difference.
        save: folder for the fine-tuned classifier, which `pixcloud classify` and
            `pixcloud.load_classifier` read; wants a single fraction.
        out: file to append the results to; the run's results.jsonl where the encoder is a run,
            else results.jsonl beside the encoder, or here for one from the Hub.
    """

    encoder: str
    data: LabelledConfig = field(default_factory=LabelledConfig)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    baseline: Literal["none", "scratch"] = "none"
    save: str = ""
    out: str = ""


@dataclass(kw_only=True, frozen=True)
class FewShotSettings:
    """The trials of a few-shot protocol.

    Args:
        ways: N, classes of a trial.
        shots: K, support clouds per class, which are learned from.
        queries: clouds per class that are classified.
        trials: how many trials are drawn; both published protocols have ten.
        num_points: points of each cloud.
        batch_size: clouds embedded at a time, by `crosspoint`.
        c: C of the linear SVM, by `crosspoint`.
        cache: keep frozen features on disk, and use those kept.
        baseline: also score the same encoder untrained (`crosspoint`) or trained from scratch
            (`point-bert`), on the same trials, and test the difference.
        seed: of everything that is drawn.

    Raises:
        ConfigError: if a value is out of range.
    """

    ways: int = 5
    shots: int = 10
    queries: int = 20
    trials: int = 10
    num_points: int = 1024
    batch_size: int = 128
    c: float = 1.0
    cache: bool = True
    baseline: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "fewshot.")
        least = {"ways": 2, "shots": 1, "queries": 1, "trials": 2, "num_points": 1, "batch_size": 1}
        for key, low in least.items():
            _require(getattr(self, key) >= low, f"fewshot.{key}", getattr(self, key), f">= {low}")
        _require(self.c > 0, "fewshot.c", self.c, "a positive number")
        _require(self.seed >= 0, "fewshot.seed", self.seed, "0 or more")


@dataclass
class FewShotConfig:
    """A few-shot evaluation.

    Args:
        encoder: a run, an exported or imported encoder, or a Hugging Face Hub id.
        data: labelled clouds with a train and a test split.
        protocol: crosspoint draws support and queries from train and fits an SVM on frozen
            features; point-bert takes support from train and queries from test, and fine-tunes.
            Their numbers cannot be compared.
        fewshot: the trials.
        folds: file of trials that an earlier evaluation stored; they are read instead of drawn.
        fit: the supervised loop of point-bert, whose budget is spent whole: there is no
            validation part in so few clouds, and queries choose nothing.
        optim: optimiser and learning rate of point-bert.
        augment: augmentation of the support clouds by point-bert.
        out: file to append the results to; as for `pixcloud finetune`. The trials go into a folder
            `folds` beside it.
    """

    encoder: str
    data: LabelledConfig = field(default_factory=LabelledConfig)
    protocol: Literal["crosspoint", "point-bert"] = "crosspoint"
    fewshot: FewShotSettings = field(default_factory=FewShotSettings)
    folds: str = ""
    fit: FitSettings = field(default_factory=FitSettings)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    out: str = ""


def check_optim(optim: OptimConfig) -> None:
    """Check types and ranges of the optimiser's settings.

    Raises:
        ConfigError: naming the key, its value and what is allowed.

    >>> check_optim(OptimConfig())
    """
    check_types(optim, "optim.")
    for key, (low, high, inclusive) in RANGES.items():
        if key.startswith("optim."):
            value = getattr(optim, key.removeprefix("optim."))
            fine = (low <= value if inclusive else low < value) and value <= high
            _require(fine, key, value, f"{'at least' if inclusive else 'more than'} {low:g}")


def _number(value: Any) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and math.isfinite(value)


def _require(fine: bool, key: str, value: object, expected: str) -> None:
    if not fine:
        raise ConfigError(f"{key} is {value}: expected {expected}")
