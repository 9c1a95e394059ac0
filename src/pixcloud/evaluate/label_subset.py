"""Stage 9, few labels: labels (S,) int and a share -> which clouds keep theirs, class by class.

After it: `pixcloud.evaluate.finetune`. A function of (labels, share, seed); only labels of the
training split come here.
"""

from __future__ import annotations

import math

import numpy as np

_SUBSET = 0x4C414245  # what the draw is for, so that no other draw shares its numbers


def labelled_subset(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Places (n,) int64, ascending, of the clouds that keep their labels.

    Each class gives the first of its members in an order drawn once for all shares, so that a
    smaller share lies within a larger one: `share` of them, rounded half up, and at least one.

    Args:
        labels: (S,) int.
        share: above 0 and up to 1.
        seed: of the order.

    >>> labels = np.repeat([0, 1], [100, 10])
    >>> small, large = (labelled_subset(labels, share, seed=0) for share in (0.05, 0.2))
    >>> np.bincount(labels[small]), np.bincount(labels[large]), set(small) <= set(large)
    (array([5, 1]), array([20,  2]), True)
    """
    kept = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        sequence = np.random.SeedSequence((seed, _SUBSET, int(label)))
        order = np.random.Generator(np.random.Philox(sequence)).permutation(members)
        kept.append(order[: max(1, math.floor(share * len(members) + 0.5))])
    return np.sort(np.concatenate(kept))
