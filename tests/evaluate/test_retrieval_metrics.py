"""Recall at k, mAP and chance against slow twins, on random and nasty vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pixcloud.errors import DataError
from pixcloud.evaluate import retrieval_metrics
from pixcloud.evaluate.retrieval_metrics import (
    bootstrap_interval,
    chance_of,
    chance_precision,
    chance_recall,
    ranks,
)
from reference import plain_retrieval

KS = (1, 2, 5, 10)


def cases() -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]]:
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(9, 3)), rng.normal(size=(14, 3))
    pairs, classes = np.arange(9), rng.integers(0, 3, 14)
    coarse = rng.integers(-1, 2, (14, 2)).astype(float)  # ties, duplicates and zeros
    same = np.ones((6, 4), np.float32)
    return [
        ("pairs", few, few + 0.5 * rng.normal(size=few.shape), pairs, pairs, False),
        ("several views", rng.normal(size=(27, 3)), few, np.repeat(pairs, 3), pairs, False),
        ("to several views", few, rng.normal(size=(27, 3)), pairs, np.repeat(pairs, 3), False),
        ("classes", many, many, classes, classes, True),
        ("large classes", many, many, classes > 0, classes > 0, True),
        ("ties", coarse, coarse, classes, classes, True),
        ("ties, pairs", coarse, coarse[::-1], np.arange(14), np.arange(14), False),
        ("all the same", same, same, np.arange(6), np.arange(6), False),
        ("lengths", few * 1e-20, few * rng.uniform(1, 1e12, (9, 1)), pairs, pairs, False),
        ("one item", few[:1], many[:1], pairs[:1], pairs[:1], False),
        ("alone in its class", many, many, np.arange(14) // 5 * 5, np.arange(14) // 5 * 5, True),
        ("none relevant", few, many[:9], pairs, pairs + 100, False),
    ]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case[0])
def test_against_sorting(
    case: tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, queries, gallery, query_groups, gallery_groups, leave = case
    expected = plain_retrieval.scores(
        queries, gallery, query_groups.tolist(), gallery_groups.tolist(), KS, leave
    )
    for block in (1, 4, 256):
        monkeypatch.setattr(retrieval_metrics, "BLOCK", block)
        found = ranks(queries, gallery, query_groups, gallery_groups, leave_one_out=leave)
        for place, (recalls, precision) in enumerate(expected):
            assert [found.recall(k)[place] for k in KS] == recalls
            assert found.precision[place] == pytest.approx(precision, nan_ok=True)
            assert found.scored[place] == (not math.isnan(precision))


def test_ties_count_against_us() -> None:
    """A collapsed encoder finds nothing, however the items lie; duplicates cost their rank."""
    same, pairs = np.ones((50, 8)), np.arange(50)
    found = ranks(same, same, pairs, pairs)
    assert found.before.tolist() == [49] * 50
    assert found.recall(10).sum() == 0
    assert found.precision.tolist() == [1 / 50] * 50
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(40, 300)).astype(np.float32)
    vectors[1::2] = vectors[::2]  # each one twice, under two names
    found = ranks(vectors, vectors, np.arange(40), np.arange(40))
    assert found.before.tolist() == [1] * 40
    zero = np.zeros((3, 2))
    assert ranks(zero, np.eye(3, 2), np.arange(3), np.arange(3)).before.tolist() == [2] * 3


def test_chance_is_the_mean_over_all_orders() -> None:
    for size in range(1, 8):
        for relevant in range(1, size + 1):
            for k in (1, 2, 5, 10):
                expected = plain_retrieval.chance(relevant, size, k)
                assert chance_recall(relevant, size, k) == pytest.approx(expected[0], abs=1e-9)
                assert chance_precision(relevant, size) == pytest.approx(expected[1])
    found = ranks(np.eye(4), np.eye(4), np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1]))
    expected = (3 * plain_retrieval.chance(3, 4, 2)[0] + plain_retrieval.chance(1, 4, 2)[0]) / 4
    assert chance_of(found, 2) == pytest.approx(expected)
    assert chance_of(found) == pytest.approx(
        (3 * plain_retrieval.chance(3, 4, 1)[1] + plain_retrieval.chance(1, 4, 1)[1]) / 4
    )


def test_random_vectors_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(600) // 3
    found = ranks(rng.normal(size=(600, 16)), rng.normal(size=(600, 16)), groups, groups)
    assert found.recall(10).mean() == pytest.approx(chance_of(found, 10), abs=0.03)
    assert found.precision.mean() == pytest.approx(chance_of(found), abs=0.01)


def test_bootstrap_draws_whole_groups() -> None:
    rng = np.random.default_rng(0)
    values = (rng.random(80) < 0.4).astype(float)
    alone = bootstrap_interval(values, np.arange(80))
    together = bootstrap_interval(np.repeat(values, 5), np.repeat(np.arange(80), 5))
    assert together == pytest.approx(alone)
    assert alone == bootstrap_interval(values, np.arange(80)[::1])
    spread = values.std() / np.sqrt(80)
    assert alone[1] - alone[0] == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert alone[0] < values.mean() < alone[1]


def test_refuses() -> None:
    good, groups = np.eye(3), np.arange(3)
    bad = good.copy()
    bad[1, 1] = np.nan
    for arguments, words in (
        ((bad, good, groups, groups), "1 of 3 queries vectors hold NaN"),
        ((good, np.full((3, 3), np.inf), groups, groups), "3 of 3 gallery vectors hold NaN"),
        ((good[:0], good, groups[:0], groups), r"queries \(0, 3\): expected"),
        ((good, np.eye(4), groups, np.arange(4)), "both must come from one model"),
        ((good, good, groups[:2], groups), "one group for each vector"),
    ):
        with pytest.raises(DataError, match=words), np.errstate(invalid="ignore"):
            ranks(*arguments)
    with pytest.raises(DataError, match="gallery itself"):
        ranks(good, good[:2], groups, groups[:2], leave_one_out=True)
