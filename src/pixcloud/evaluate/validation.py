"""Stage 9, probes during training: an encoder and a train split -> accuracy on a part held out.

Before it: `pixcloud.evaluate.features` and `svm`. It sees no test split.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from pixcloud.distributed import ALONE, World
from pixcloud.evaluate.features import embed_clouds
from pixcloud.evaluate.folds import held_out
from pixcloud.evaluate.metrics import accuracy
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.evaluate.splits import check_train
from pixcloud.evaluate.svm import LinearSVM
from pixcloud.types import LabelledClouds

Say = Callable[[str], None]


def validation_accuracy(
    encoder: nn.Module,
    train: LabelledClouds,
    settings: ProbeSettings,
    share: float,
    say: Say | None = None,
    world: World = ALONE,
) -> float:
    """Accuracy on a part of the training split that is held out, for probes during training.

    The part depends on labels and seed alone, so it is the same at each epoch. The SVM is fitted on
    the rest, with C by cross-validation on the rest.

    Args:
        encoder: returns PointFeatures; its mode is as before afterwards.
        train: the training split; no other split is looked at.
        settings: of the probe.
        share: of each class that is held out, between 0 and 1.
        say: takes warnings.
        world: as for `probe_clouds`.

    Returns:
        A share in [0, 1].

    Raises:
        DataError: as `check_train`, `embed_clouds` and `LinearSVM`.
    """
    say = say or (lambda line: None)
    check_train(train, settings, share)
    features = embed_clouds(
        encoder,
        train.points,
        num_points=settings.num_points,
        batch_size=settings.batch_size,
        normalize=settings.normalize,
        world=world,
    )
    return world.decide(lambda: _held_out_accuracy(features, train, settings, share, say))


def _held_out_accuracy(
    features: np.ndarray, train: LabelledClouds, settings: ProbeSettings, share: float, say: Say
) -> float:
    held = held_out(train.labels, share, settings.seed)
    svm = LinearSVM(
        features[~held], train.labels[~held], classes=train.classes, threads=settings.threads
    )
    chosen = svm.cross_validate(svm.relative_grid(settings.c_grid), settings.folds, settings.seed)
    fit = svm.predict(features[held], [chosen.c])[0]
    if not fit.converged:
        say("warning: the SVM of the validation probe did not converge")
    return float(accuracy(fit.predictions, train.labels[held]))
