"""Linear probe: C from 5 values by 5 folds on train, then test; ours against SVC used plainly.

The plain way computes its kernel afresh for every C and fold. It takes a minute or more at a
quarter of the published size; at all of it (`probe-full`) a quarter of an hour, and so runs once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.case import Case
from benchmarks.compare import compare, table
from benchmarks.floor import Cost

__all__ = ["cases", "run", "table"]

# C in units of 1 / total variance: from too soft to too hard.
GRID = (1e-1, 1e0, 1e1, 1e2, 1e3)
FOLDS = 5
# Samples of train and test, features and classes of ModelNet40 under DGCNN.
FULL, QUARTER, SMALL = (9840, 2468, 2048, 40), (2460, 617, 2048, 40), (120, 30, 16, 4)


def cases(small: bool = False, full: bool = False) -> list[Case]:
    """A quarter of the published size, or all of it."""
    train, test, dim, classes = SMALL if small else FULL if full else QUARTER
    return [
        Case(
            name=f"{train:,} x {dim:,} features, {classes} classes, {len(GRID)} C, {FOLDS} folds",
            ways={way: _build(way, train, test, dim, classes) for way in ("textbook", "ours")},
            # The Gram matrix, half of it, and the kernel of the test samples.
            cost=Cost(dim * (train**2 + 2.0 * train * test), 4.0 * train * (train + test)),
            goals={"ours": 15.0},
            rounds=1 if full or small else 3,
            warm=False,
        )
    ]


def run(rounds: int = 1, *, small: bool = False, full: bool = False) -> dict[str, Any]:
    """The comparison, and whether both ways predict the same."""
    chosen = cases(small, full)
    name, memory = "probe-full" if full else "probe", not (full or small)
    report = compare(name, chosen, rounds, small=small, memory=memory)
    for result in report["results"].values():
        result["same_predictions"] = _LAST["ours"] == _LAST["textbook"]
    return report


# Predictions of the last call of each way: a second one for the comparison would take as long.
_LAST: dict[str, list[int]] = {}


def _build(
    way: str, train: int, test: int, dim: int, classes: int
) -> Callable[[bool], Callable[[], Any]]:
    def build(tiny: bool) -> Callable[[], Any]:
        from pixcloud.evaluate.folds import stratified_folds
        from pixcloud.evaluate.svm import LinearSVM
        from reference.plain_svm import plain_cross_validate, plain_fit_predict

        count = min(train, 20 * classes) if tiny else train  # several of each class
        features, labels = _features(count + test, dim, classes)
        x, y, held = features[:count], labels[:count], features[count:]

        def ours() -> list[int]:
            svm = LinearSVM(x, y)
            chosen = svm.cross_validate(svm.relative_grid(GRID), FOLDS, seed=0)
            return svm.predict(held, [chosen.c])[0].predictions.tolist()

        def textbook() -> list[int]:
            variance = float(x.var(axis=0).sum())
            folds = stratified_folds(y, FOLDS, seed=0)
            chosen, _ = plain_cross_validate(x, y, [c / variance for c in GRID], folds)
            return plain_fit_predict(x, y, held, chosen).tolist()

        def call() -> list[int]:
            _LAST[way] = ours() if way == "ours" else textbook()
            return _LAST[way]

        return call

    return build


def _features(count: int, dim: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes that overlap, of low rank as pooled features are; made from a seed."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(count) % classes)
    rank = min(dim, 64)
    latent = rng.normal(size=(classes, rank))[labels] + 1.5 * rng.normal(size=(count, rank))
    features = latent @ rng.normal(size=(rank, dim)) / rank**0.5
    features += 0.1 * rng.normal(size=features.shape)
    return np.maximum(features, 0.2 * features).astype(np.float32), labels
