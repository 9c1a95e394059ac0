"""Stage 9, linear SVM: features (S, D) and labels (S,) -> predictions (T,) for features (T, D).

Before it: `pixcloud.evaluate.features`. After it: `pixcloud.evaluate.metrics`.

The problem solved is that of scikit-learn's `SVC(kernel="linear")`: a soft margin with hinge loss
for each pair of classes, and a vote (`LinearSVC` is another objective). Its solver, libsvm, sees
the features through inner products alone, so they are computed once, as one matrix product, and
serve every C and every fold as slices of `SVC(kernel="precomputed")`.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pixcloud.errors import DataError
from pixcloud.evaluate.folds import stratified_folds, usable_folds
from pixcloud.evaluate.one_vs_one import predict_by_votes

# libsvm keeps its kernel rows in single precision. Where the features' common offset is so much
# larger than their spread, that precision would lose the spread, and they are centred first. It is
# the same problem (the multipliers of a pair sum to 0); elsewhere every bit is left as it is.
_OFFSET_LIMIT = 1e4
# Steps of the solver for one pair of classes. Some hundreds are usual, but a C far too large for
# overlapping classes takes millions, and without a bound it runs for hours.
MAX_STEPS = 1_000_000
SEARCH_STEPS = 100_000  # while searching for C: one that needs more is no candidate
_BLOCK = 64  # kernel rows copied at a time


@dataclass(kw_only=True, frozen=True)
class CrossValidation:
    """What cross-validation found on the training split.

    c: the C chosen (the smallest among the best); accuracy: its share of right predictions;
    cs and accuracies: the candidates, ascending in C; dropped: larger C whose SVMs did not reach
    their tolerance within SEARCH_STEPS, so that they were no candidates; folds: folds used;
    on_border: the choice is the smallest or largest candidate, so that a better one may lie
    beyond; converged: every SVM of the candidates reached its tolerance.
    """

    c: float
    accuracy: float
    cs: tuple[float, ...]
    accuracies: tuple[float, ...]
    dropped: tuple[float, ...]
    folds: int
    on_border: bool
    converged: bool


@dataclass(kw_only=True, frozen=True)
class Fitted:
    """predictions (T,) of the labels' dtype; converged: the SVM reached its tolerance."""

    predictions: np.ndarray
    converged: bool


class _Fold(NamedTuple):
    """gram (S, S) and labels (S,) to fit on; kernel (T, S) and truth (T,) to score."""

    gram: np.ndarray
    labels: np.ndarray
    kernel: np.ndarray
    truth: np.ndarray


class LinearSVM:
    """Linear SVMs on one training set, for any number of C, sharing one Gram matrix.

    Args:
        features: (S, D) float; computed with in float64.
        labels: (S,) int, at least two different ones.
        classes: names in label order, for messages.
        threads: SVMs fitted at the same time; None for one per processor.

    Raises:
        DataError: for features that are not finite, a shape that does not fit, a single class, or
            a Gram matrix (8 S^2 bytes) that does not fit in memory.

    Example:
        >>> svm = LinearSVM(np.array([[0.0], [1.0], [4.0], [5.0]]), np.array([0, 0, 1, 1]))
        >>> svm.predict(np.array([[0.5], [9.0]]), [1.0])[0].predictions
        array([0, 1])
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        *,
        classes: list[str] | None = None,
        threads: int | None = None,
    ) -> None:
        features, labels = _checked(features, "training"), np.asarray(labels)
        if labels.shape != (len(features),):
            raise DataError(f"{len(features)} training features but labels {labels.shape}")
        if len(np.unique(labels)) < 2:
            raise DataError(
                "an SVM needs at least two classes, and the training labels hold "
                f"{len(np.unique(labels))}: check the split"
            )
        _require_memory(len(features))
        self.classes = classes
        self.threads = threads or _processors()
        # Sorted by class, a pair of classes is a few compact blocks of the Gram matrix. The order
        # within a class stays, so libsvm takes the same steps as on the features as they came.
        order = np.argsort(labels, kind="stable")
        self.labels = labels[order]
        self._order = order
        self.total_variance = float(features.var(axis=0).sum())
        self._shift, self._scale = _conditioning(features, self.total_variance)
        self._features = self._conditioned(features[order])
        self._gram = self._features @ self._features.T

    def relative_grid(self, multiples: Sequence[float]) -> list[float]:
        """C = multiple / total variance, ascending: a grid that fits features of any scale.

        The total variance is the mean diagonal of the centred Gram matrix. Multiplying features by
        s divides by s^2 the C that gives the same classifier, so absolute values mean nothing
        without it: for an untrained encoder's small features, C = 0.01 is far too soft.
        """
        unit = self.total_variance if self.total_variance > 0 else 1.0
        return sorted({multiple / unit for multiple in multiples})

    def predict(self, features: np.ndarray, cs: Sequence[float]) -> list[Fitted]:
        """Fits one SVM per C on all training samples, and predicts `features` (T, D) with each.

        Raises:
            DataError: for features that are not finite or have another D than the training ones.
        """
        features = _checked(features, "test")
        if features.shape[1] != self._features.shape[1]:
            raise DataError(
                f"test features have {features.shape[1]} channels but training features "
                f"{self._features.shape[1]}: embed both with the same encoder"
            )
        kernel = self._conditioned(features) @ self._features.T
        return self._fit_each(self._gram, self.labels, kernel, cs, MAX_STEPS)

    def cross_validate(self, cs: Sequence[float], folds: int = 5, seed: int = 0) -> CrossValidation:
        """Scores every C by stratified cross-validation and names the best, ties to the smaller.

        Args:
            cs: values of C.
            folds: folds wanted; a class with fewer samples lowers it, as the result tells.
            seed: of the folds.

        Raises:
            DataError: if a class has a single sample, or there is no C.
        """
        tried = sorted(set(cs))
        if not tried:
            raise DataError("there is no C to choose from: give at least one")
        folds = usable_folds(self.labels, folds, self.classes)
        # Drawn on the labels as they came, so that the folds do not depend on the sorting here.
        as_given = np.empty_like(self.labels)
        as_given[self._order] = self.labels
        fold_of = stratified_folds(as_given, folds, seed)[self._order]
        # One piece of memory for all folds: having it cleared anew takes as long as filling it.
        memory = np.empty(len(fold_of) * (len(fold_of) - int(np.bincount(fold_of).min())))
        first = self._fold_blocks(fold_of, 0, memory)
        candidates, right, converged = self._score_first_fold(first, tried)
        for fold in range(1, folds):
            scores = self._score(self._fold_blocks(fold_of, fold, memory), candidates)
            for place, (count, reached) in enumerate(scores):
                right[place] += count
                converged &= reached
        best = right.index(max(right))  # the first of equals, hence the smallest C
        shares = tuple(count / len(self.labels) for count in right)
        return CrossValidation(
            c=candidates[best],
            accuracy=shares[best],
            cs=tuple(candidates),
            accuracies=shares,
            dropped=tuple(tried[len(candidates) :]),
            folds=folds,
            on_border=len(candidates) > 1 and best in (0, len(candidates) - 1),
            converged=converged,
        )

    def _score_first_fold(
        self, fold: _Fold, cs: list[float]
    ) -> tuple[list[float], list[int], bool]:
        """The candidates among ascending `cs`, their right predictions there, converged or not.

        Steps grow with C, so where one does not converge the larger ones would not, but only after
        the longest of times: the rising C of one fold tell it for all, at the cost of one fit.
        """
        candidates: list[float] = []
        right: list[int] = []
        for start in range(0, len(cs), self.threads):
            group = cs[start : start + self.threads]
            for c, (count, reached) in zip(group, self._score(fold, group), strict=True):
                if not reached:
                    # Without any candidate the smallest C stands, as not converged.
                    return (candidates, right, True) if candidates else ([c], [count], False)
                candidates.append(c)
                right.append(count)
        return candidates, right, True

    def _fold_blocks(self, fold_of: np.ndarray, fold: int, memory: np.ndarray) -> _Fold:
        """What `fold` needs of the Gram matrix, gathered into `memory` in threads.

        Block by block this is 15 times faster than indexing with both lists at once.
        """
        kept, scored = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        rows = np.concatenate([kept, scored])
        block = memory[: len(rows) * len(kept)].reshape(len(rows), len(kept))

        def gather(start: int) -> None:
            some_rows = self._gram[rows[start : start + _BLOCK]]
            # "clip" lets numpy write straight into `out`; the columns are in range.
            np.take(some_rows, kept, axis=1, out=block[start : start + _BLOCK], mode="clip")

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(gather, range(0, len(rows), _BLOCK)))
        gram, kernel = block[: len(kept)], block[len(kept) :]
        return _Fold(gram, self.labels[kept], kernel, self.labels[scored])

    def _score(self, fold: _Fold, cs: Sequence[float]) -> list[tuple[int, bool]]:
        """For each C, the number of right predictions and whether the SVM converged."""
        fits = self._fit_each(fold.gram, fold.labels, fold.kernel, cs, SEARCH_STEPS)
        return [(int((fit.predictions == fold.truth).sum()), fit.converged) for fit in fits]

    def _conditioned(self, features: np.ndarray) -> np.ndarray:
        return (features - self._shift) * self._scale

    def _fit_each(
        self,
        gram: np.ndarray,
        labels: np.ndarray,
        kernel: np.ndarray,
        cs: Sequence[float],
        steps: int,
    ) -> list[Fitted]:
        """One SVM per C on gram (S, S), applied to kernel (T, S); libsvm releases the GIL."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import SVC
        from threadpoolctl import threadpool_limits

        def fit(c: float) -> Fitted:
            svm = SVC(kernel="precomputed", C=c / self._scale**2, max_iter=steps)
            svm.fit(gram, labels)
            return Fitted(predictions=predict_by_votes(svm, kernel), converged=svm.fit_status_ == 0)

        # One thread of the linear algebra library for each of ours, or they fight for processors.
        one_each = threadpool_limits(1, user_api="blas")
        with one_each, warnings.catch_warnings(), ThreadPoolExecutor(self.threads) as pool:
            warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged` instead
            # The largest C takes longest: started first, it does not run on alone at the end.
            return list(pool.map(fit, reversed(cs)))[::-1]


def fit_predict(train: np.ndarray, labels: np.ndarray, test: np.ndarray, c: float) -> np.ndarray:
    """Predicted labels (T,) of `test` (T, D) by a linear SVM on `train` (S, D), `labels` (S,).

    >>> fit_predict(np.array([[0.0], [1.0]]), np.array([3, 7]), np.array([[5.0]]), 1.0)
    array([7])
    """
    return LinearSVM(train, labels).predict(test, [c])[0].predictions


def cross_validate(
    train: np.ndarray, labels: np.ndarray, cs: Sequence[float], folds: int = 5, seed: int = 0
) -> CrossValidation:
    """As `LinearSVM.cross_validate`, for one use of the features `train` (S, D)."""
    return LinearSVM(train, labels).cross_validate(cs, folds, seed)


def _checked(features: np.ndarray, which: str) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or 0 in features.shape:
        raise DataError(f"{which} features must be (samples, channels), got {features.shape}")
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(features)} {which} features hold NaN or infinity, the first "
            f"is number {int(bad.argmax())}: the encoder has diverged, or its input is damaged"
        )
    return features


def _conditioning(features: np.ndarray, total_variance: float) -> tuple[np.ndarray, float]:
    """(shift (D,), scale) under which libsvm's single precision neither overflows nor cancels.

    The scale is a power of two, so scaled features have the same bits but for the exponent, and C
    is divided by its square: libsvm takes the very same steps.
    """
    mean = features.mean(axis=0)
    far_off = float(mean @ mean) > _OFFSET_LIMIT * total_variance
    shift = mean if far_off and total_variance > 0 else np.zeros_like(mean)
    largest = float(np.abs(features - shift).max())
    return shift, 2.0 ** -math.frexp(largest)[1] if largest > 0 else 1.0


def _require_memory(samples: int) -> None:
    import psutil

    needed, free = 2 * 8 * samples**2, psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"an SVM on {samples} samples needs {needed / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} GiB are free: use fewer training samples or a larger machine"
        )


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
