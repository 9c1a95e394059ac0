"""Stage 9, exact search: a unit vector (D,) and stored ones (S, D) -> the best K of all.

Used by `pixcloud.store.vectors`.
"""

from __future__ import annotations

import numpy as np

# Candidates beyond k: products in single precision may order near-equal ones wrongly.
_SPARE = 32


def nearest(
    query: np.ndarray, vectors: np.ndarray, numbers: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k of all vectors with the largest cosine.

    Args:
        query: (D,) float32 of length 1.
        vectors: (S, D) float32 of length 1.
        numbers: (S,) int64, ascending.
        k: how many.

    Returns:
        Numbers (min(k, S),) and cosines of these, the best first; of equal cosines the lower
        number. Cosines are summed in double precision.

    >>> nearest(np.float32([1, 0]), np.eye(2, dtype=np.float32), np.array([5, 6]), 1)
    (array([5]), array([1.], dtype=float32))
    """
    chosen = promising(query, vectors, k)
    return ranked(query, vectors[chosen], numbers[chosen], k)


def promising(query: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    """Places (C,), ascending, of the vectors among which the best k are, by one product.

    >>> promising(np.float32([1, 0]), np.eye(2, dtype=np.float32), 1)
    array([0, 1])
    """
    wanted = k + _SPARE
    if len(vectors) <= wanted:
        return np.arange(len(vectors))
    scores = vectors @ query
    least = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
    # Those at the bound may be many, such as copies of one vector: the lower numbers are taken.
    beyond = np.flatnonzero(scores > least)
    at = np.flatnonzero(scores == least)[: wanted - len(beyond)]
    return np.sort(np.concatenate([beyond, at]))


def ranked(
    query: np.ndarray, vectors: np.ndarray, numbers: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best k of some candidates, by cosines in double precision; as `nearest` otherwise."""
    scores = np.einsum("sd,d->s", vectors.astype(np.float64), query.astype(np.float64))
    # Equal vectors have equal sums here, but what differs in the last digits is equal to a reader.
    scores = scores.astype(np.float32)
    order = np.lexsort((numbers, -scores))[:k]
    return numbers[order], scores[order]
