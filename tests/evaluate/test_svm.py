"""The fast SVM against scikit-learn's plain one: the same predictions, the same choice of C."""

from __future__ import annotations

import numpy as np
import pytest

from pixcloud.errors import DataError
from pixcloud.evaluate import svm as svm_module
from pixcloud.evaluate.folds import stratified_folds
from pixcloud.evaluate.svm import LinearSVM, cross_validate, fit_predict
from reference.plain_svm import plain_cross_validate, plain_fit_predict

MULTIPLES = [1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4]


def blobs(
    seed: int, samples: int = 240, channels: int = 32, classes: int = 6, overlap: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features like an encoder's (float32, mostly positive) of unequal classes, train and test."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, 2 * samples, p=rng.dirichlet(np.full(classes, 5.0)))
    labels[: 6 * classes] = np.tile(np.arange(classes), 6)  # every class can fill five folds
    centres = rng.standard_normal((classes, channels))
    features = centres[labels] + overlap * rng.standard_normal((2 * samples, channels))
    features = np.maximum(features, -0.2).astype(np.float32)
    return features[:samples], labels[:samples], features[samples:], labels[samples:]


def assert_same_as_plain(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, multiples: list[float] = MULTIPLES
) -> None:
    svm = LinearSVM(train, labels)
    cs = svm.relative_grid(multiples)
    for c, fit in zip(cs, svm.predict(test, cs), strict=True):
        plain = plain_fit_predict(train, labels, test, c)
        np.testing.assert_array_equal(fit.predictions, plain, err_msg=f"C = {c}")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("overlap", [0.5, 2.5])
def test_predictions_are_those_of_the_plain_svm(seed: int, overlap: float) -> None:
    train, labels, test, _ = blobs(seed, overlap=overlap)
    assert_same_as_plain(train, labels, test)


@pytest.mark.parametrize("seed", range(3))
def test_cross_validation_is_that_of_plain_loops(seed: int) -> None:
    train, labels, _, _ = blobs(seed, overlap=2.0)
    svm = LinearSVM(train, labels)
    cs = svm.relative_grid(MULTIPLES)
    chosen = svm.cross_validate(cs, folds=5, seed=seed)
    best, right = plain_cross_validate(train, labels, cs, stratified_folds(labels, 5, seed))
    assert chosen.c == best
    assert [round(share * len(labels)) for share in chosen.accuracies] == right
    assert chosen.accuracy == max(right) / len(labels)
    assert chosen.converged
    assert chosen.folds == 5
    assert not chosen.dropped


def test_duplicates_constant_channels_and_labels_with_gaps() -> None:
    train, labels, test, _ = blobs(0, overlap=1.5)
    train = np.hstack([np.round(train * 4), np.full((len(train), 2), 7)])
    test = np.hstack([np.round(test * 4), np.full((len(test), 2), 7)])
    train[1::2], labels = train[::2], labels * 10 + 3  # each twice, under differing labels
    assert_same_as_plain(train, labels, test, [1e-2, 1e0, 1e1])
    assert_same_as_plain(train, labels, train, [1e-2, 1e0, 1e1])


def test_one_channel() -> None:
    train, labels, test, _ = blobs(1, channels=1, classes=3, overlap=0.7)
    assert_same_as_plain(train, labels, test, [1e-2, 1e0, 1e2])


@pytest.mark.parametrize("scale", [2.0**-40, 1e-6, 1.0, 1e5, 2.0**30])
def test_any_scale_gives_the_classifier_of_scale_one(scale: float) -> None:
    train, labels, test, _ = blobs(2)
    assert_same_as_plain(train.astype(np.float64) * scale, labels, test * np.float64(scale))
    for multiple in MULTIPLES:
        fits = []
        for factor in (1.0, scale):
            svm = LinearSVM(train.astype(np.float64) * factor, labels)
            c = svm.relative_grid([multiple])
            fits.append(svm.predict(test * np.float64(factor), c)[0].predictions)
        np.testing.assert_array_equal(*fits)


def test_a_scale_beyond_single_precision() -> None:
    """Here the plain SVM overflows; a power of two must not change the classifier at all."""
    train, labels, test, _ = blobs(3)
    scale = 2.0**90
    expected = plain_fit_predict(train, labels, test, 1e-2)
    found = fit_predict(train * scale, labels, test * scale, 1e-2 / scale**2)
    np.testing.assert_array_equal(found, expected)


def test_an_offset_that_single_precision_would_not_survive() -> None:
    train, labels, test, _ = blobs(4)
    train, test = np.round(train * 16) / 16, np.round(test * 16) / 16
    expected = plain_fit_predict(train, labels, test, 1e-2)
    found = fit_predict(train + 2.0**20, labels, test + 2.0**20, 1e-2)
    np.testing.assert_array_equal(found, expected)


def test_a_tie_goes_to_the_smaller_c_and_the_border_is_told() -> None:
    train = np.repeat(np.array([[0.0, 0.0], [9.0, 1.0]]), 10, axis=0)
    labels = np.repeat([0, 1], 10)
    chosen = cross_validate(train, labels, [100.0, 1.0, 10.0], folds=5)
    assert chosen.c == 1.0
    assert chosen.accuracies == (1.0, 1.0, 1.0)
    assert chosen.on_border
    assert not cross_validate(train, labels, [3.0]).on_border


def test_collapsed_features_still_give_a_result() -> None:
    train, labels = np.full((40, 8), 3.0), np.repeat([0, 1, 2, 2], 10)
    svm = LinearSVM(train, labels)
    chosen = svm.cross_validate(svm.relative_grid(MULTIPLES))
    assert svm.total_variance == 0
    assert chosen.accuracy <= 0.5


def test_a_class_smaller_than_the_folds_lowers_them() -> None:
    train, labels, _, _ = blobs(5)
    keep = np.flatnonzero((labels != 2) | (np.cumsum(labels == 2) <= 3))
    assert cross_validate(train[keep], labels[keep], [0.01], folds=5).folds == 3


def test_a_class_with_one_sample_is_named() -> None:
    train, labels, _, _ = blobs(6)
    keep = (labels != 2) | (np.cumsum(labels == 2) <= 1)
    names = [f"class{i}" for i in range(6)]
    svm = LinearSVM(train[keep], labels[keep], classes=names)
    with pytest.raises(DataError, match="'class2' has a single training sample"):
        svm.cross_validate([0.01])


def test_c_that_does_not_converge_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels, test, _ = blobs(7, channels=2, classes=3, overlap=3.0)
    svm = LinearSVM(train, labels)
    cs = svm.relative_grid(MULTIPLES)
    monkeypatch.setattr(svm_module, "SEARCH_STEPS", 1000)
    chosen = svm.cross_validate(cs)
    assert chosen.dropped == tuple(cs[len(chosen.cs) :])
    assert len(chosen.dropped) >= 1
    assert chosen.c in chosen.cs
    monkeypatch.setattr(svm_module, "SEARCH_STEPS", 1)
    alone = svm.cross_validate(cs)
    assert (alone.c, alone.cs, alone.converged) == (cs[0], (cs[0],), False)
    monkeypatch.setattr(svm_module, "MAX_STEPS", 1)
    assert not svm.predict(test, [1.0])[0].converged


def test_threads_do_not_change_anything() -> None:
    train, labels, test, _ = blobs(8)
    one, many = (LinearSVM(train, labels, threads=threads) for threads in (1, 5))
    cs = one.relative_grid(MULTIPLES)
    assert one.cross_validate(cs) == many.cross_validate(cs)
    for alone, together in zip(one.predict(test, cs), many.predict(test, cs), strict=True):
        np.testing.assert_array_equal(alone.predictions, together.predictions)


@pytest.mark.parametrize(
    ("train", "labels", "test", "message"),
    [
        ([[0.0], [np.nan]], [0, 1], [[0.0]], "1 of 2 training features hold NaN"),
        ([[0.0], [1.0]], [0, 1], [[np.inf]], "1 of 1 test features hold NaN or infinity"),
        ([[0.0], [1.0]], [0, 0], [[0.0]], "at least two classes"),
        ([[0.0], [1.0]], [0, 1, 1], [[0.0]], r"2 training features but labels \(3,\)"),
        ([[0.0], [1.0]], [0, 1], [[0.0, 1.0]], "test features have 2 channels"),
        ([0.0, 1.0], [0, 1], [[0.0]], r"must be \(samples, channels\), got \(2,\)"),
    ],
)
def test_bad_input_is_named(train: list, labels: list, test: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_predict(np.array(train), np.array(labels), np.array(test), 1.0)


def test_no_c_and_no_memory_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels, _, _ = blobs(9)
    with pytest.raises(DataError, match="no C to choose from"):
        cross_validate(train, labels, [])
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000})())
    with pytest.raises(DataError, match=r"needs 0\.0 GiB of memory"):
        LinearSVM(train, labels)
