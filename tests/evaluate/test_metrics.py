"""Metrics against cases worked by hand, scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score

from pixcloud.errors import DataError
from pixcloud.evaluate.metrics import (
    accuracy,
    class_mean_accuracy,
    mcnemar_exact,
    mean_interval,
    sign_flip_test,
    wilson_interval,
)


def test_accuracies_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 5, 5])
    predictions = np.array([0, 0, 0, 1, 5, 9])
    assert accuracy(predictions, labels) == pytest.approx(4 / 6)
    assert class_mean_accuracy(predictions, labels) == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_class_mean_accuracy_is_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 7, 300), rng.integers(0, 7, 300)
    expected = balanced_accuracy_score(labels, predictions)
    assert class_mean_accuracy(predictions, labels) == pytest.approx(expected)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (1, 3), (2251, 2468), (1, 100_000)])
def test_wilson_interval_is_that_of_scipy(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_reaches_the_ends_and_not_beyond() -> None:
    for n in (1, 3, 7, 1000):
        assert wilson_interval(0, n)[0] == 0.0
        assert wilson_interval(n, n)[1] == 1.0


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (5, 0), (3, 8), (60, 41), (7, 7)])
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int) -> None:
    labels = np.zeros(only_first + only_second + 30, int)
    first, second = labels.copy(), labels.copy()
    second[:only_first] = 1
    first[only_first : only_first + only_second] = 1
    first[-10:], second[-10:] = 1, 2  # both wrong: of no consequence
    n = only_first + only_second
    expected = binomtest(only_first, n).pvalue if n else 1.0
    assert mcnemar_exact(first, second, labels) == pytest.approx(expected)
    assert mcnemar_exact(second, first, labels) == pytest.approx(expected)


def test_mcnemar_of_many_samples_neither_overflows_nor_vanishes() -> None:
    labels = np.zeros(4000, int)
    better, worse = labels.copy(), labels.copy()
    better[:900], worse[900:2000] = 1, 1
    expected = binomtest(900, 2000).pvalue
    assert mcnemar_exact(better, worse, labels) == pytest.approx(expected, rel=1e-9)


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="two lists of the same length"):
        accuracy(np.zeros(3), np.zeros(4))
    with pytest.raises(DataError, match="empty"):
        class_mean_accuracy(np.zeros(0), np.zeros(0))
    with pytest.raises(DataError, match="no interval for 4 right of 3"):
        wilson_interval(4, 3)


def test_mean_interval_against_scipy() -> None:
    from scipy import stats

    values = np.random.default_rng(0).random(10)
    sd, interval = mean_interval(values.tolist())
    assert sd == pytest.approx(stats.tstd(values))
    expected = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
    assert interval == pytest.approx(expected)
    assert mean_interval([0.5, 0.5]) == (0.0, (0.5, 0.5))
    with pytest.raises(DataError, match="no interval for 1 trials"):
        mean_interval([0.5])


def test_sign_flip_test_against_every_choice_of_signs() -> None:
    import itertools

    rng = np.random.default_rng(1)
    for n in (1, 2, 5, 8):
        first, second = rng.integers(0, 6, (2, n)) / 5
        seen = abs((first - second).sum())
        far = [
            abs(sum(s * d for s, d in zip(signs, first - second, strict=True))) >= seen - 1e-12
            for signs in itertools.product((1, -1), repeat=n)
        ]
        assert sign_flip_test(first.tolist(), second.tolist()) == pytest.approx(np.mean(far))
    assert sign_flip_test([0.5] * 3, [0.5] * 3) == 1.0
    many = sign_flip_test((rng.random(40) + 1).tolist(), rng.random(40).tolist())
    assert many == pytest.approx(1 / 2**16)
    with pytest.raises(DataError, match="2 and 3 trials are not pairs"):
        sign_flip_test([0.1, 0.2], [0.1, 0.2, 0.3])
