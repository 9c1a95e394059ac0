"""Stage 9, part metrics: predicted and true parts (S, N) -> IoU of each shape, means, a comparison.

Before it: `pixcloud.evaluate.segmenter`. After it: `pixcloud.evaluate.segment`. Pure numpy. Parts
are numbered through over the categories; shapes of one category have parts offsets[label] to
offsets[label + 1] - 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixcloud.errors import DataError
from pixcloud.evaluate.metrics import mean_interval


@dataclass(kw_only=True, frozen=True)
class PartScores:
    """What ShapeNetPart's papers report, of S shapes.

    ious (S,): of each shape; instance_miou: their mean; class_miou: mean over the categories that
    occur of the mean within each; accuracy: share of all points that are right; by_category:
    label -> (mean, number of shapes).
    """

    ious: np.ndarray
    instance_miou: float
    class_miou: float
    accuracy: float
    by_category: dict[int, tuple[float, int]]

    def means_as_json(self) -> str:
        """All but `ious` as text, from which every number comes back to the last bit."""
        return json.dumps(
            {
                "instance_miou": self.instance_miou,
                "class_miou": self.class_miou,
                "accuracy": self.accuracy,
                "by_category": [[label, *found] for label, found in self.by_category.items()],
            }
        )

    @classmethod
    def of_json(cls, ious: np.ndarray, means: str) -> PartScores:
        """From the IoU (S,) of each shape, and what `means_as_json` gave."""
        values = json.loads(means)
        by_category = {label: (mean, n) for label, mean, n in values.pop("by_category")}
        return cls(ious=ious, by_category=by_category, **values)


def shape_ious(
    predicted: np.ndarray, truth: np.ndarray, labels: np.ndarray, offsets: Sequence[int]
) -> np.ndarray:
    """IoU (S,) of each shape: the mean over all parts of its category.

    Of a part: the points that both say it, over those that either says it. A part that neither has
    counts 1, as in ShapeNetPart's evaluation (Yi et al. 2016, doi:10.1145/2980179.2980238). A
    prediction may name parts of other categories; such points are wrong.

    Args:
        predicted: (S, N) int, part numbers.
        truth: (S, N) int, part numbers.
        labels: (S,) int, categories.
        offsets: (K + 1,) number of each category's first part, and one more for the end.

    Raises:
        DataError: if shapes of arrays differ, there is nothing to score, or a true part does not
            belong to the shape's category.

    >>> shape_ious(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]]), np.array([0]), [0, 3])
    array([0.72222222])
    """
    predicted, truth, labels = _checked(predicted, truth, labels, offsets)
    parts, shapes = offsets[-1], np.arange(len(truth))[:, None]

    def counts(numbers: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Points of each part in each shape (S, P), of those that are chosen."""
        cells = (shapes * parts + numbers)[chosen]
        return np.bincount(cells, minlength=len(truth) * parts).reshape(len(truth), parts)

    everywhere = np.ones_like(truth, bool)
    both = counts(truth, predicted == truth)
    either = counts(truth, everywhere) + counts(predicted, everywhere) - both
    iou = np.where(either == 0, 1.0, both / np.maximum(either, 1))
    numbers, bounds = np.arange(parts), np.asarray(offsets)
    own = (numbers >= bounds[labels][:, None]) & (numbers < bounds[labels + 1][:, None])
    return (iou * own).sum(axis=1) / own.sum(axis=1)


def part_scores(
    predicted: np.ndarray, truth: np.ndarray, labels: np.ndarray, offsets: Sequence[int]
) -> PartScores:
    """Every number of ShapeNetPart's tables; arguments and errors are those of `shape_ious`.

    >>> scores = part_scores(np.array([[0, 1], [2, 2]]), np.array([[0, 1], [2, 3]]),
    ...                      np.array([0, 1]), [0, 2, 4])
    >>> scores.instance_miou, scores.accuracy, scores.by_category[1]
    (0.625, 0.75, (0.25, 1))
    """
    ious = shape_ious(predicted, truth, labels, offsets)
    kinds = [int(label) for label in np.unique(labels)]
    by_category = {
        label: (float(ious[labels == label].mean()), int((labels == label).sum()))
        for label in kinds
    }
    return PartScores(
        ious=ious,
        instance_miou=float(ious.mean()),
        class_miou=float(np.mean([mean for mean, _ in by_category.values()])),
        accuracy=float((np.asarray(predicted) == np.asarray(truth)).mean()),
        by_category=by_category,
    )


def share_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean of shares, within [0, 1]; None for fewer than two.

    >>> share_interval(np.array([1.0, 1.0, 1.0]))
    (1.0, 1.0)
    """
    if len(values) < 2:
        return None
    low, high = mean_interval(values.tolist())[1]
    return max(0.0, low), min(1.0, high)


def paired_difference(
    first: np.ndarray, second: np.ndarray
) -> tuple[float, tuple[float, float], float]:
    """Mean difference of two contenders on the same shapes, its 95 % interval and p-value.

    Student's paired test: differences of IoU within shapes vary far less than shapes do.

    Args:
        first: (S,) IoU of each shape.
        second: (S,) of the other contender, on the same shapes.

    Returns:
        Mean of first - second, (low, high), two-sided p.

    Raises:
        DataError: if the numbers of shapes differ or are below two.

    >>> paired_difference(np.array([0.5, 0.75, 1.0]), np.array([0.5, 0.5, 0.5]))[0]
    0.25
    """
    from scipy.special import stdtr

    if len(first) != len(second):
        raise DataError(f"{len(first)} and {len(second)} shapes are not pairs: score the same ones")
    differences = np.asarray(first, float) - np.asarray(second, float)
    sd, interval = mean_interval(differences.tolist())
    mean = float(differences.mean())
    if sd == 0:
        return mean, interval, 1.0 if mean == 0 else 0.0
    t = abs(mean) / (sd / math.sqrt(len(differences)))
    return mean, interval, float(2 * stdtr(len(differences) - 1, -t))


def _checked(
    predicted: np.ndarray, truth: np.ndarray, labels: np.ndarray, offsets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    predicted, truth, labels = np.asarray(predicted), np.asarray(truth), np.asarray(labels)
    if predicted.shape != truth.shape or truth.ndim != 2 or labels.shape != truth.shape[:1]:
        raise DataError(
            f"parts {predicted.shape} and {truth.shape} and labels {labels.shape} do not fit: "
            "expected (S, N), (S, N) and (S,)"
        )
    if truth.size == 0:
        raise DataError("there is nothing to score: no shapes, or shapes without points")
    if labels.min() < 0 or labels.max() + 1 >= len(offsets):
        raise DataError(f"labels run to {labels.max()}, but there are {len(offsets) - 1}")
    bounds = np.asarray(offsets)
    low, high = bounds[labels][:, None], bounds[labels + 1][:, None]
    strange = ((truth < low) | (truth >= high)).any(axis=1)
    if strange.any():
        first = int(np.flatnonzero(strange)[0])
        raise DataError(
            f"shape {first} of category {labels[first]} has parts from {truth[first].min()} to "
            f"{truth[first].max()}, expected {low[first, 0]} to {high[first, 0] - 1}"
        )
    if predicted.min() < 0 or predicted.max() >= offsets[-1]:
        raise DataError(f"predicted parts run to {predicted.max()}, but there are {offsets[-1]}")
    return predicted, truth, labels
