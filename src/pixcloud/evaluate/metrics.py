"""Stage 9, metrics: predictions and labels (S,) int -> one number, its interval, a comparison.

Before it: `pixcloud.evaluate.svm`, which makes the predictions. After it:
`pixcloud.evaluate.results`, which keeps the numbers. Pure numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pixcloud.errors import DataError


def correct_predictions(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which of the S predictions equal their label, (S,) bool.

    Raises:
        DataError: if there is none, or if the numbers of predictions and labels differ.

    >>> correct_predictions(np.array([0, 1, 1]), np.array([0, 1, 2]))
    array([ True,  True, False])
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or predictions.ndim != 1:
        raise DataError(
            f"predictions {predictions.shape} and labels {labels.shape} must be two lists of the "
            "same length; score each prediction against its own label"
        )
    if len(labels) == 0:
        raise DataError("there is nothing to score: the list of labels is empty")
    return predictions == labels


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of the predictions that are right, in [0, 1].

    Raises:
        DataError: as `correct_predictions`.

    >>> accuracy(np.array([0, 1, 1, 0]), np.array([0, 1, 2, 0]))
    0.75
    """
    return float(correct_predictions(predictions, labels).mean())


def class_mean_accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur in `labels` of the accuracy within each, in [0, 1].

    Raises:
        DataError: as `correct_predictions`.

    >>> class_mean_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]))
    0.5
    """
    right = correct_predictions(predictions, labels)
    _, place, count = np.unique(labels, return_inverse=True, return_counts=True)
    return float((np.bincount(place, weights=right) / count).mean())


def wilson_interval(correct: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927), 95 % by default: (low, high) within [0, 1].

    Unlike the normal approximation it stays inside [0, 1] and is not empty at 0 or n right.
    `correct` may be a sum of shares.
    With p = correct / n: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).

    Raises:
        DataError: unless 0 <= correct <= n and n > 0.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    if n <= 0 or not 0 <= correct <= n:
        raise DataError(f"no interval for {correct} right of {n}: expected 0 <= right <= n, n > 0")
    share, spread = correct / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # At the ends the interval reaches 0 or 1 exactly; rounding must not leave it short of them.
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    high = 1.0 if correct == n else min(1.0, middle + half)
    return low, high


def mcnemar_exact(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """Exact two-sided p-value that two predictions of the same samples are equally good.

    McNemar's test (1947) looks only at the samples that one got right and the other wrong. Under
    equal quality each is a fair coin, so p = min(1, 2 P(Binomial(b + c, 1/2) <= min(b, c))). Two
    accuracies on one test set are paired: comparing their separate intervals is far too timid.

    Args:
        first: (S,) predicted labels of one classifier.
        second: (S,) predicted labels of the other.
        labels: (S,) true labels.

    Raises:
        DataError: as `correct_predictions`.

    >>> mcnemar_exact(np.array([1, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 0]), np.ones(5, int))
    0.0625
    """
    first_right = correct_predictions(first, labels)
    second_right = correct_predictions(second, labels)
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    # Whole numbers throughout: the tail is exact however many samples disagree.
    term = tail = 1
    for k in range(min(only_first, only_second)):
        term = term * (discordant - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**discordant)


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Standard deviation of some trials, and Student's 95 % interval of their mean.

    The interval is mean -+ t sd / sqrt(n) with sd of n - 1 degrees of freedom. Trials drawn from
    the same clouds overlap, so it tells what other draws of these clouds would give, and not what
    other clouds would.

    Raises:
        DataError: for fewer than two values.

    >>> sd, (low, high) = mean_interval([0.5, 0.6, 0.7])
    >>> round(sd, 3), round(low, 3), round(high, 3)
    (0.1, 0.352, 0.848)
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        raise DataError(f"no interval for {n} trials: at least 2 are needed")
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    return sd, (mean - half, mean + half)


def sign_flip_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value that two contenders score alike on the same trials (Fisher 1935).

    Under equality the sign of each trial's difference is a fair coin. p is the share of all 2^n
    choices of signs whose sum is at least as far from 0; beyond 16 trials, of the sums of 2^16
    choices drawn from a fixed seed, with the one that was seen.

    Raises:
        DataError: if the numbers of trials differ or are 0.

    >>> sign_flip_test([0.9, 0.8, 0.9, 0.7, 0.8], [0.5, 0.6, 0.4, 0.6, 0.5])
    0.0625
    """
    n = len(first)
    if n != len(second) or n == 0:
        raise DataError(f"{n} and {len(second)} trials are not pairs: score the same ones")
    differences = np.asarray(first, float) - np.asarray(second, float)
    if n <= 16:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((0, n))))
        signs = np.vstack([np.ones((1, n)), rng.choice([-1, 1], (2**16 - 1, n))])
    seen = abs(differences.sum())
    # Sums that are equal but for rounding count as equal.
    return float((np.abs(signs @ differences) >= seen - 1e-12 * max(1.0, seen)).mean())
