"""Stage 9, splits: whether labelled clouds (S, N, 3) can be probed, told before any work is done.

Before it: stage 2, which reads `LabelledClouds`. After it: `pixcloud.evaluate.probe`.
"""

from __future__ import annotations

import numpy as np

from pixcloud.errors import DataError, some
from pixcloud.evaluate.folds import held_out, usable_folds
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.types import LabelledClouds


def check_train(train: LabelledClouds, settings: ProbeSettings, share: float) -> None:
    """Whether `validation_accuracy` can use this split, before hours of training depend on it.

    Args:
        train: the training split.
        settings: of the probe.
        share: of each class that is held out.

    Raises:
        DataError: if a class has a single cloud, there are fewer than two classes, no class has
            the three clouds that it takes to hold one out, or the clouds have too few points.
    """
    _check_labels(train)
    usable_folds(train.labels, settings.folds, train.classes)
    if len(np.unique(train.labels)) < 2:
        raise DataError(f"{train.name} {train.split}: a probe needs at least two classes")
    if not held_out(train.labels, share, settings.seed).any():
        raise DataError(f"{train.name} {train.split}: no class has 3 clouds, so none to hold out")
    if train.points.shape[1] < settings.num_points:
        raise DataError(
            f"{train.name} {train.split}: {train.points.shape[1]} points per cloud, and num_points "
            f"is {settings.num_points}; set it lower"
        )


def check_splits(train: LabelledClouds, test: LabelledClouds) -> None:
    """Whether two splits belong together.

    Raises:
        DataError: if one is empty, its labels do not fit its clouds or classes, or the lists of
            classes differ.
    """
    _check_labels(train)
    _check_labels(test)
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(
            f"{train.name} {train.split} and {test.name} {test.split} do not have the same classes "
            f"in the same order ({some(differing) or 'the order differs'}); give two splits of one "
            "data set"
        )


def _check_labels(clouds: LabelledClouds) -> None:
    name, labels = f"{clouds.name} {clouds.split}", clouds.labels
    if len(clouds.points) == 0:
        raise DataError(f"{name}: no clouds; check the path of the data set")
    if labels.shape != (len(clouds.points),):
        raise DataError(f"{name}: {len(clouds.points)} clouds but labels {labels.shape}")
    if labels.min() < 0 or labels.max() >= len(clouds.classes):
        raise DataError(
            f"{name}: labels run from {labels.min()} to {labels.max()}, but there are "
            f"{len(clouds.classes)} classes: the list of classes belongs to other data"
        )
