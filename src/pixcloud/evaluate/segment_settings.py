"""Stage 9, settings of part segmentation: what `pixcloud segment` may set.

Read by `pixcloud.evaluate.segment`. No torch, so that help is fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pixcloud.config import OptimConfig
from pixcloud.errors import ConfigError
from pixcloud.evaluate.settings import LabelledConfig
from pixcloud.evaluate.training_settings import AugmentSettings, FitSettings
from pixcloud.ranges import check_types


@dataclass(kw_only=True, frozen=True)
class SegmentSettings:
    """What is trained, on which shapes, and how it is tested.

    Args:
        num_points: points of each cloud.
        k: neighbours of each point, where the encoder looks at some; no weight depends on it. 0
            keeps the encoder's own; published are 15 in pre-training and 40 here.
        freeze: train the head alone; the encoder stays in evaluation mode.
        dropout: of the head.
        fractions: shares of the labelled train shapes, one result each; category by category, at
            least one shape of each, and the smaller ones lie in the larger ones.
        with_val: shapes of a split named val join train before that, as published; the split is
            otherwise not read.
        validation_share: share of each category of those shapes that chooses the epoch; a category
            of fewer than three gives none. Where none gives any, as with 0, the last epoch is
            taken.
        batch_size: clouds at a time when scoring; no number depends on it.
        seed: of everything that is drawn.

    Raises:
        ConfigError: if a value is out of range.
    """

    num_points: int = 2048
    k: int = 0
    freeze: bool = False
    dropout: float = 0.5
    fractions: tuple[float, ...] = (1.0,)
    with_val: bool = True
    validation_share: float = 0.2
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "segment.")
        for key in ("num_points", "batch_size"):
            _require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        _require(self.k >= 0, "k", self.k, "at least 1, or 0 for the encoder's own")
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")
        for share in self.fractions:
            fine = type(share) in (int, float) and 0 < share <= 1
            _require(fine, "fractions", share, "shares above 0 and up to 1; 1 % is 0.01")
        several = len(self.fractions) > 0 and len(set(self.fractions)) == len(self.fractions)
        _require(several, "fractions", self.fractions, "one or more different shares")
        share = self.validation_share
        _require(0 <= share < 1, "validation_share", share, "0 to below 1")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")


def _fit() -> FitSettings:
    return FitSettings(batch_size=16)


def _augment() -> AugmentSettings:
    return AugmentSettings(shift=0.1)


@dataclass
class SegmentConfig:
    """Part segmentation.

    The published setting on ShapeNetPart is --segment.k 40 --optim.name sgd --optim.lr 0.1
    --optim.lr_end 1e-3 --optim.weight_decay 1e-4 --fit.epochs 300 --fit.batch_size 8.

    Args:
        encoder: a run, an exported or imported encoder, or a Hugging Face Hub id, with features for
            each point.
        data: clouds with part labels, with a train and a test split.
        segment: what is trained, on which shapes, and how it is tested.
        fit: the supervised loop.
        optim: optimiser and learning rate.
        augment: augmentation of the training clouds.
        baseline: scratch trains the same architecture from fresh weights too, all of them, on the
            same shapes with the same budget, and tests the difference.
        save: folder for the segmenter, which `pixcloud parts` and `pixcloud.load_segmenter` read;
            wants a single fraction.
        out: file to append the results to; the run's results.jsonl where the encoder is a run,
            else results.jsonl beside the encoder, or here for one from the Hub.
    """

    encoder: str
    data: LabelledConfig = field(default_factory=LabelledConfig)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    fit: FitSettings = field(default_factory=_fit)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentSettings = field(default_factory=_augment)
    baseline: Literal["none", "scratch"] = "none"
    save: str = ""
    out: str = ""


def _require(fine: bool, key: str, value: object, expected: str) -> None:
    if not fine:
        raise ConfigError(f"segment.{key} is {value}: expected {expected}")
