"""Paired tests of kept outcomes, against scipy and by hand; and what is kept where."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pixcloud.errors import ResultsError
from pixcloud.evaluate.outcomes import (
    Outcomes,
    Paired,
    compare_outcomes,
    keep_outcomes,
    keeping_outcomes,
    read_outcomes,
)
from pixcloud.evaluate.results import ResultRow, append_rows, read_rows
from pixcloud.evaluate.side_by_side import side_by_side

RNG = np.random.default_rng(0)


def compared(first: np.ndarray, second: np.ndarray, right_or_wrong: bool = False) -> Paired:
    found = compare_outcomes(*(Outcomes(each, "u", right_or_wrong) for each in (first, second)))
    assert found is not None
    return found


def test_right_and_wrong() -> None:
    first, second = RNG.integers(2, size=(2, 60)).astype(float)
    found = compared(first, second, right_or_wrong=True)
    only = int((first > second).sum()), int((first < second).sum())
    assert found.p == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)
    assert found.gain == pytest.approx((first - second).mean())
    assert found.test == "McNemar exact"
    shares = compared(first, second)  # of a metric that could have given others
    assert shares.test == "paired t"
    assert shares.p == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_shares_of_many_units() -> None:
    first = RNG.random(40)
    second = first + RNG.normal(0.05, 0.1, 40)
    found = compared(first, second)
    reference = stats.ttest_rel(first, second)
    assert found.p == pytest.approx(reference.pvalue)
    assert found.ci95 == pytest.approx(tuple(reference.confidence_interval()))
    assert found.test == "paired t"
    assert compared(first, first).p == 1
    assert compared(first, first / 1 + 0.25).p < 1e-12


def test_few_trials() -> None:
    found = compared(np.array([0.9, 0.8, 0.9, 0.7]), np.array([0.5, 0.6, 0.4, 0.6]))
    assert (found.p, found.test) == (2 / 16, "sign flips")


def test_other_units_are_not_paired() -> None:
    scores = np.ones(3)
    assert compare_outcomes(Outcomes(scores, "a"), Outcomes(scores, "b")) is None
    assert compare_outcomes(Outcomes(scores, "a"), Outcomes(np.ones(4), "a")) is None
    assert compare_outcomes(Outcomes(np.ones(1), "a"), Outcomes(np.ones(1), "a")) is None


def row(encoder: str, value: float, outcomes: Outcomes | None, split: str = "test") -> ResultRow:
    return ResultRow(
        protocol="svm",
        dataset="synthetic",
        split=split,
        metric="accuracy",
        value=value,
        ci95=None,
        n=4,
        seed=0,
        encoder=encoder,
        encoder_sha256="",
        settings={},
        seconds=0.0,
        outcomes=outcomes,
    )


def test_kept_beside_the_rows_where_asked_for(tmp_path: Path) -> None:
    out, scores = tmp_path / "r.jsonl", np.array([1.0, 0.0, 1.0, 1.0])
    append_rows(out, [row("a", 0.75, Outcomes(scores, "u"))])
    assert list(tmp_path.iterdir()) == [out]
    with keeping_outcomes():
        append_rows(out, [row("a", 0.75, Outcomes(scores, "u")), row("b", 0.5, None)])
    plain, kept, without = read_rows(out)
    assert plain.extra == without.extra == {}
    found = read_outcomes(tmp_path / kept.extra["outcomes"])
    assert found is not None
    assert found.units == "u"
    assert np.array_equal(found.scores, scores)
    assert read_outcomes(tmp_path / "none.npz") is None


def test_what_cannot_be_kept_is_an_error_and_no_row(tmp_path: Path) -> None:
    (tmp_path / "outcomes").write_text("in the way")
    with keeping_outcomes(), pytest.raises(ResultsError, match=r"outcomes/.*: not written"):
        append_rows(tmp_path / "r.jsonl", [row("a", 1.0, Outcomes(np.ones(2), "u"))])
    assert not (tmp_path / "r.jsonl").exists()
    assert keep_outcomes(tmp_path, Outcomes(np.ones(2), "u")) == {}


def test_baselines_and_other_samples(tmp_path: Path) -> None:
    found = {}
    for name, units in (("a", "u"), ("b", "u"), ("c", "others")):
        with keeping_outcomes():
            value = Outcomes(np.array([1.0, name != "a", 0.0, 1.0]), units)
            rows = [row(name, 0.5, value), row(f"{name}, untrained", 0.1, value)]
            scratch = row(f"{name}, from scratch", 0.1, value)  # of a protocol that is its alone
            rows.append(dataclasses.replace(scratch, protocol="fine-tuned, all weights"))
            append_rows(tmp_path / f"{name}.jsonl", rows)
        found[name] = read_rows(tmp_path / f"{name}.jsonl")
    found["d"] = [dataclasses.replace(found["a"][0], encoder="d", protocol="svm alone")]
    table = side_by_side(found, tmp_path)
    assert table.synthetic
    assert [line.encoder for line in table.lines] == ["a", "b", "c", "d"]
    tests = [(line.against.gain if line.against else None, line.why) for line in table.lines]
    assert tests == [(None, ""), (0.25, ""), (None, "other samples"), (None, "not of the first")]
    assert "| svm | accuracy | b | 50.0 | +25.0 |" in table.markdown()
