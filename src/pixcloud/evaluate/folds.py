"""Stage 9, folds: labels (S,) int -> which samples are held out, drawn class by class from a seed.

After it: `pixcloud.evaluate.svm` (cross-validation) and `pixcloud.evaluate.probe` (the part of
train that the probe during training holds out). Only labels of the training split come here.
"""

from __future__ import annotations

import numpy as np

from pixcloud.errors import DataError, some

_FOLDS, _HOLD_OUT = 0x464F4C44, 0x484F4C44  # what a draw is for, so that no two share numbers


def usable_folds(labels: np.ndarray, wanted: int, classes: list[str] | None = None) -> int:
    """The number of folds that every class can fill: `wanted`, or the size of the smallest class.

    Args:
        labels: (S,) int.
        wanted: folds asked for, at least 2.
        classes: names in label order, for the message.

    Raises:
        DataError: if a class has a single sample, so that no fold can both fit and score it.

    >>> usable_folds(np.array([0, 0, 0, 1, 1]), 5)
    2
    """
    present, count = np.unique(labels, return_counts=True)
    lonely = [_name(label, classes) for label in present[count < 2]]
    if lonely:
        raise DataError(
            f"class {some(lonely)} has a single training sample, and cross-validation needs at "
            "least 2 of each class: add samples, or leave the class out"
        )
    return min(wanted, int(count.min())) if len(count) else wanted


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each sample, (S,) int64 in [0, folds).

    Each class is spread evenly (its counts per fold differ by at most 1), and so is the whole,
    since a class goes on at the fold where the one before it ended. A function of
    (labels, folds, seed) alone.

    >>> np.bincount(stratified_folds(np.array([0, 0, 0, 1, 1, 1]), 3, seed=0))
    array([2, 2, 2])
    """
    fold_of = np.empty(len(labels), np.int64)
    start = 0
    for label in np.unique(labels):
        members = _shuffled_members(labels, label, seed, _FOLDS)
        fold_of[members] = (start + np.arange(len(members))) % folds
        start = (start + len(members)) % folds
    return fold_of


def held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which samples a validation part takes, (S,) bool: `share` of each class, rounded.

    A class of 3 or more gives at least one and keeps at least 2 for fitting; smaller ones keep all.
    A share of 0 takes none.

    >>> int(held_out(np.zeros(10, int), 0.2, seed=0).sum())
    2
    """
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels) if share else ():
        members = _shuffled_members(labels, label, seed, _HOLD_OUT)
        if len(members) >= 3:
            taken = min(max(1, round(share * len(members))), len(members) - 2)
            mask[members[:taken]] = True
    return mask


def _shuffled_members(labels: np.ndarray, label: int, seed: int, purpose: int) -> np.ndarray:
    sequence = np.random.SeedSequence((seed, purpose, int(label)))
    members = np.flatnonzero(labels == label)
    return np.random.Generator(np.random.Philox(sequence)).permutation(members)


def _name(label: int, classes: list[str] | None) -> str:
    named = classes is not None and 0 <= label < len(classes)
    return f"'{classes[label]}'" if classes is not None and named else str(label)
