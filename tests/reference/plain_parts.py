"""Part metrics as one would do them by hand: a loop over shapes and parts, sets of points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def shape_iou(
    predicted: np.ndarray, truth: np.ndarray, label: int, offsets: Sequence[int]
) -> float:
    values = []
    for part in range(offsets[label], offsets[label + 1]):
        said = {place for place, number in enumerate(predicted) if number == part}
        true = {place for place, number in enumerate(truth) if number == part}
        values.append(len(said & true) / len(said | true) if said | true else 1.0)
    return sum(values) / len(values)
