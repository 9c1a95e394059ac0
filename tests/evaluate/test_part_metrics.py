"""Part metrics against a slow twin, scikit-learn and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from pixcloud.errors import DataError
from pixcloud.evaluate.part_metrics import (
    paired_difference,
    part_scores,
    shape_ious,
    share_interval,
)
from reference.plain_parts import shape_iou

OFFSETS = [0, 4, 6, 7, 12]


def random_parts(seed: int, shapes: int, points: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, shapes)
    low, high = np.array(OFFSETS)[labels], np.array(OFFSETS)[labels + 1]
    truth = rng.integers(low[:, None], high[:, None], (shapes, points))
    return rng.integers(0, 12, (shapes, points)), truth, labels


@pytest.mark.parametrize(("shapes", "points"), [(1, 1), (1, 7), (9, 1), (40, 33)])
def test_slow_twin(shapes: int, points: int) -> None:
    predicted, truth, labels = random_parts(shapes, shapes, points)
    expected = [
        shape_iou(*each, OFFSETS)  # type: ignore[arg-type]
        for each in zip(predicted, truth, labels, strict=True)
    ]
    assert shape_ious(predicted, truth, labels, OFFSETS) == pytest.approx(expected, abs=1e-15)


def test_scikit_learn_agrees() -> None:
    """Where every part occurs, the mean IoU of a shape is scikit-learn's macro Jaccard index."""
    _, truth, _ = random_parts(3, 1, 200)
    predicted = truth.copy()
    rng = np.random.default_rng(0)
    wrong = rng.random(200) < 0.4
    labels = np.array([3])
    truth = rng.integers(7, 12, (1, 200))
    predicted = np.where(wrong, rng.integers(7, 12, (1, 200)), truth)
    expected = jaccard_score(truth[0], predicted[0], labels=range(7, 12), average="macro")
    assert shape_ious(predicted, truth, labels, OFFSETS)[0] == pytest.approx(expected)


def test_by_hand() -> None:
    """Two mugs (parts 0, 1) and a cap (2, 3, 4), of four points each."""
    offsets, labels = [0, 2, 5], np.array([0, 0, 1])
    truth = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [2, 2, 3, 3]])
    predicted = np.array([[0, 1, 1, 1], [0, 0, 0, 1], [2, 2, 2, 3]])
    # (1/2 + 2/3) / 2; (3/4 + 0) / 2, for the second says a part that is not there;
    # (2/3 + 1/2 + 1) / 3, for neither says part 4
    ious = [7 / 12, 3 / 8, 13 / 18]
    scores = part_scores(predicted, truth, labels, offsets)
    assert scores.ious == pytest.approx(ious)
    assert scores.instance_miou == pytest.approx(np.mean(ious))
    assert scores.class_miou == pytest.approx((np.mean(ious[:2]) + ious[2]) / 2)
    assert scores.accuracy == 9 / 12
    assert scores.by_category == {
        0: (pytest.approx(np.mean(ious[:2])), 2),
        1: (pytest.approx(ious[2]), 1),
    }


def test_a_planted_predictor() -> None:
    """Every third point of a half-and-half shape wrong, once within and once out of category."""
    truth = np.repeat([[0, 1]], 300, axis=1).reshape(1, -1)
    truth.sort()
    within, beyond = truth.copy(), truth.copy()
    within[0, ::3] = 1 - within[0, ::3]
    beyond[0, ::3] = 5
    labels, offsets = np.array([0]), [0, 2, 6]
    assert shape_ious(within, truth, labels, offsets)[0] == pytest.approx(200 / 400)
    assert shape_ious(beyond, truth, labels, offsets)[0] == pytest.approx(200 / 300)


@pytest.mark.parametrize(
    ("predicted", "truth", "labels", "words"),
    [
        ([[0, 1]], [[0, 1, 1]], [0], "do not fit"),
        ([[0]], [[0]], [0, 1], "do not fit"),
        (np.empty((0, 4), int), np.empty((0, 4), int), np.empty(0, int), "nothing to score"),
        ([[0]], [[4]], [0], "shape 0 of category 0 has parts from 4 to 4, expected 0 to 3"),
        ([[0]], [[0]], [4], "labels run to 4"),
        ([[12]], [[0]], [0], "predicted parts run to 12"),
    ],
)
def test_mistakes(predicted: object, truth: object, labels: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        shape_ious(np.array(predicted), np.array(truth), np.array(labels), OFFSETS)


def test_intervals_and_paired_test() -> None:
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(1)
    first, second = rng.uniform(0.4, 1, 30), rng.uniform(0.3, 1, 30)
    gain, (low, high), p = paired_difference(first, second)
    expected = ttest_rel(first, second)
    assert p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (low, high) == pytest.approx((interval.low, interval.high))
    assert gain == pytest.approx((first - second).mean())
    assert paired_difference(first, first)[2] == 1.0
    assert paired_difference(np.ones(3), np.zeros(3))[2] == 0.0
    with pytest.raises(DataError, match="30 and 29 shapes"):
        paired_difference(first, second[1:])
    assert share_interval(np.array([0.5])) is None
    low, high = share_interval(np.array([1.0, 1.0, 0.2])) or (2.0, 2.0)
    assert (low >= 0, high) == (True, 1.0)
