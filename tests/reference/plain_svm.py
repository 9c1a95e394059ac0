"""The linear SVM protocol the plain way: SVC(kernel="linear") afresh for every C and fold."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC

from pixcloud.evaluate.svm import MAX_STEPS


def plain_fit_predict(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, c: float
) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        svm = SVC(kernel="linear", C=c, max_iter=MAX_STEPS).fit(train, labels)
    return svm.predict(test)


def plain_cross_validate(
    train: np.ndarray, labels: np.ndarray, cs: list[float], fold_of: np.ndarray
) -> tuple[float, list[int]]:
    """The smallest C with the most right predictions over all folds, and each C's number."""
    right = []
    for c in sorted(cs):
        count = 0
        for fold in sorted(set(fold_of.tolist())):
            out = fold_of == fold
            predictions = plain_fit_predict(train[~out], labels[~out], train[out], c)
            count += int((predictions == labels[out]).sum())
        right.append(count)
    return sorted(cs)[right.index(max(right))], right
