"""Votes by matrix products against libsvm's own prediction."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVC

from pixcloud.evaluate.one_vs_one import _decision_values, predict_by_votes
from reference.plain_svm import plain_fit_predict


def fitted(seed: int, classes: int, c: float) -> tuple[SVC, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(90) % classes * 3 + 1)
    train = rng.standard_normal((90, 5)) + labels[:, None] * 0.3
    test = np.concatenate([rng.standard_normal((60, 5)) * 2 + 2, train])
    return SVC(kernel="precomputed", C=c).fit(train @ train.T, labels), train, labels, test


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("c", [1e-6, 1e-2, 10.0])
def test_predictions_and_decision_values_are_those_of_libsvm(classes: int, c: float) -> None:
    for seed in range(3):
        svm, train, labels, test = fitted(seed, classes, c)
        kernel = test @ train.T
        found = predict_by_votes(svm, kernel)
        np.testing.assert_array_equal(found, svm.predict(kernel))
        np.testing.assert_array_equal(found, plain_fit_predict(train, labels, test, c))
        if classes > 2:
            svm.decision_function_shape = "ovo"
            values, _ = _decision_values(svm, kernel)
            np.testing.assert_allclose(values.T, svm.decision_function(kernel), atol=1e-9)


def test_exact_ties_are_left_to_libsvm() -> None:
    train = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1], [3, 3], [3, 3]])
    labels = np.array([0, 1, 2, 3, 4, 5])
    svm = SVC(kernel="precomputed", C=0.1).fit(train @ train.T, labels)
    kernel = np.array([[0.0, 0], [3, 3], [1, 1], [0.3, -2]]) @ train.T
    _, doubtful = _decision_values(svm, kernel)
    assert doubtful[:3].all()
    np.testing.assert_array_equal(predict_by_votes(svm, kernel), svm.predict(kernel))


def test_a_class_without_support_vectors_of_its_own_kind() -> None:
    """All at one place: every multiplier is at its bound and every value is an intercept."""
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    gram = np.ones((10, 10))
    svm = SVC(kernel="precomputed", C=1.0).fit(gram, labels)
    np.testing.assert_array_equal(predict_by_votes(svm, gram), svm.predict(gram))
