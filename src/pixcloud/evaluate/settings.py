"""Stage 9, settings of the linear probe: what the command line and a recipe may set.

Read by `pixcloud.evaluate.probe`. Imports neither torch nor scikit-learn, so that help is fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pixcloud.errors import ConfigError


@dataclass(kw_only=True, frozen=True)
class ProbeSettings:
    """How frozen features are scored by a linear SVM.

    Args:
        num_points: the first so many points of each cloud are embedded.
        normalize: centre each cloud and scale it to the unit sphere before embedding.
        batch_size: clouds embedded at a time.
        fixed_c: C of the "published" row; CrossPoint: 0.01 in its notebook, 0.1 in training.
        c_grid: C tried by cross-validation, in units of 1 / total variance of the train features.
        folds: folds of the cross-validation on train; fewer where a class has fewer clouds.
        seed: seed of the folds and of the untrained baseline.
        baselines: also score the same encoder untrained, and a hand-made descriptor.
        cache: keep features on disk, and use those kept.
        threads: SVMs fitted at the same time; null for one per processor.
        save_predictions: write the predictions of every row beside the results.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> ProbeSettings(fixed_c=0.1).folds
        5
    """

    num_points: int = 1024
    normalize: bool = True
    batch_size: int = 128
    fixed_c: float = 0.01
    c_grid: tuple[float, ...] = (1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4)
    folds: int = 5
    seed: int = 0
    baselines: bool = True
    cache: bool = True
    threads: int | None = None
    save_predictions: bool = False

    def __post_init__(self) -> None:
        _require(self.num_points >= 1, "num_points", self.num_points, "at least 1")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _require(self.folds >= 2, "folds", self.folds, "at least 2")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(_positive(self.fixed_c), "fixed_c", self.fixed_c, "a positive number")
        grid_is_fine = len(self.c_grid) > 0 and all(_positive(c) for c in self.c_grid)
        _require(grid_is_fine, "c_grid", self.c_grid, "one or more positive numbers")
        threads = self.threads
        _require(threads is None or threads >= 1, "threads", threads, "at least 1, or none")


@dataclass(kw_only=True)
class LabelledConfig:
    """Labelled clouds.

    Args:
        source: NAME:/path, or a path that is recognised by what lies there; "synthetic" is the
            embedded data.
    """

    source: str = "synthetic"


@dataclass
class ProbeConfig:
    """A linear probe.

    Args:
        encoder: a run, an exported or imported encoder, or a Hugging Face Hub id.
        data: labelled clouds with a train and a test split.
        probe: how the features are scored.
        out: file to append the results to; the run's results.jsonl where the encoder is a run,
            else results.jsonl beside the encoder, or here for one from the Hub.
        devices: processes to start on this machine for embedding, which needs `probe.cache`; on
            GPUs, one for each. Under torchrun or srun theirs counts.
    """

    encoder: str
    data: LabelledConfig = field(default_factory=LabelledConfig)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    out: str = ""
    devices: int = 1


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _require(fine: bool, key: str, value: object, expected: str) -> None:
    if not fine:
        raise ConfigError(f"{key} is {value}: expected {expected}")
