"""Folds and held-out parts: even, disjoint, a function of labels and seed alone."""

from __future__ import annotations

import numpy as np
import pytest

from pixcloud.errors import DataError
from pixcloud.evaluate.folds import held_out, stratified_folds, usable_folds

LABELS = np.repeat([4, 0, 9, 1], [13, 7, 5, 2])


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_are_even_within_classes_and_over_all(folds: int) -> None:
    fold_of = stratified_folds(LABELS, folds, seed=3)
    sizes = np.bincount(fold_of, minlength=folds)
    assert sizes.sum() == len(LABELS)
    assert np.ptp(sizes) <= 1
    for label in np.unique(LABELS):
        assert np.ptp(np.bincount(fold_of[label == LABELS], minlength=folds)) <= 1


def test_folds_depend_on_the_seed_and_on_nothing_else() -> None:
    first = stratified_folds(LABELS, 5, seed=0)
    np.random.seed(1)  # noqa: NPY002 (the global generator must not matter)
    np.testing.assert_array_equal(first, stratified_folds(LABELS, 5, seed=0))
    assert (first != stratified_folds(LABELS, 5, seed=1)).any()


def test_one_class_more_leaves_the_order_within_the_others() -> None:
    """Draws are per class: what is held out of a class does not depend on the other classes."""
    more = np.concatenate([LABELS, np.full(6, 20)])
    np.testing.assert_array_equal(
        held_out(LABELS, 0.2, seed=0), held_out(more, 0.2, seed=0)[: len(LABELS)]
    )


def test_held_out_part_takes_its_share_of_each_class() -> None:
    mask = held_out(LABELS, 0.2, seed=0)
    taken = {int(label): int(mask[label == LABELS].sum()) for label in np.unique(LABELS)}
    assert taken == {0: 1, 1: 0, 4: 3, 9: 1}
    assert (mask != held_out(LABELS, 0.2, seed=1)).any()


def test_held_out_part_of_nothing() -> None:
    assert not held_out(LABELS, 0.0, seed=0).any()


def test_held_out_part_leaves_two_of_each_class() -> None:
    mask = held_out(np.repeat([0, 1, 2], [3, 4, 1]), 0.99, seed=0)
    assert mask[:3].sum() == 1
    assert mask[3:7].sum() == 2
    assert not mask[7]


def test_usable_folds() -> None:
    assert usable_folds(np.repeat([0, 1], 9), 5) == 5
    assert usable_folds(LABELS, 5) == 2
    with pytest.raises(DataError, match=r"class 'cup', 7 has a single training sample"):
        usable_folds(np.array([0, 0, 1, 7]), 5, ["bag", "cup"])
