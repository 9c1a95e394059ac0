"""Stage 9, one against one: a fitted SVM and kernel rows (T, S) -> predicted labels (T,).

Called by `pixcloud.evaluate.svm`. libsvm's own prediction adds its K (K - 1) / 2 decision values up
term by term, which takes as long as fitting; here they are a matrix product per class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.svm import SVC

# Decision values that rounding might carry across 0, relative to the sum of their terms' sizes.
_NEAR_ZERO = 1e-12


def predict_by_votes(svm: SVC, kernel: np.ndarray) -> np.ndarray:
    """What `svm.predict(kernel)` gives, faster.

    Between classes i < j the decision value is the sum of kernel times dual coefficient over the
    support vectors of both, plus an intercept; above 0 it is a vote for i, else for j, and most
    votes win, the first class among equals. Rows with a value so close to 0 that the order of
    summation might decide are left to libsvm itself.

    Args:
        svm: fitted, `kernel="precomputed"`, of K classes.
        kernel: (T, S) inner products of T samples with the S training samples.

    Returns:
        (T,) labels.
    """
    if len(svm.classes_) == 2:
        return svm.predict(kernel)
    values, doubtful = _decision_values(svm, kernel)
    for_first = values > 0
    votes = np.zeros((len(svm.classes_), len(kernel)), np.int32)
    for place, (i, j) in enumerate(zip(*np.triu_indices(len(svm.classes_), k=1), strict=True)):
        votes[i] += for_first[place]
        votes[j] += ~for_first[place]
    predictions = svm.classes_[votes.argmax(axis=0)]
    if doubtful.any():
        predictions[doubtful] = svm.predict(kernel[doubtful])
    return predictions


def _decision_values(svm: SVC, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (K (K - 1) / 2, T) of all pairs of classes, and which of T has one too close to 0."""
    classes, bounds = len(svm.classes_), np.concatenate([[0], np.cumsum(svm.n_support_)])
    place_of = np.zeros((classes, classes), np.int64)
    upper = np.triu_indices(classes, k=1)
    place_of[upper] = np.arange(len(upper[0]))
    values = np.repeat(svm.intercept_[:, None], len(kernel), axis=1)
    sizes = np.abs(svm.intercept_)
    for own in range(classes):
        vectors = slice(bounds[own], bounds[own + 1])
        # A class keeps one row of coefficients for each other class, in order, itself left out.
        coefficients = svm.dual_coef_[:, vectors]
        others = np.delete(np.arange(classes), own)
        places = place_of[np.minimum(own, others), np.maximum(own, others)]
        values[places] += coefficients @ kernel[:, svm.support_[vectors]].T
        sizes[places] += np.abs(coefficients).sum(axis=1)
    largest = np.maximum(np.maximum(kernel.max(axis=1), -kernel.min(axis=1)), 1.0)
    margin = np.abs(values)
    margin -= _NEAR_ZERO * sizes[:, None] * largest
    doubtful = (margin <= 0).any(axis=0)
    return values, doubtful
