"""Stage 9, ranks: vectors that ask (Q, P) and a gallery (G, P) -> recall at k, mAP, and chance.

Before it: whatever embeds; after it: `pixcloud.evaluate.retrieval`. Pure numpy.

Ties count against us: of items that are equally near, those that are not relevant come first. An
encoder that gives everything the same vector so finds nothing, instead of everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixcloud.errors import DataError

# Cosines that differ by less than this are equal: rounding must not decide between duplicates,
# whose products may be summed in another order.
TIE = 1e-9
# Queries whose cosines to the whole gallery are in memory at a time.
BLOCK = 256


@dataclass(kw_only=True)
class Ranks:
    """What each of Q queries finds.

    before (Q,) int64: items that are not relevant and at least as near as the best relevant one;
    precision (Q,) average precision; relevant (Q,) int64: relevant items of each; size (Q,) int64:
    items that each one is compared with. A query without relevant items has precision NaN.
    """

    before: np.ndarray
    precision: np.ndarray
    relevant: np.ndarray
    size: np.ndarray

    @property
    def scored(self) -> np.ndarray:
        """(Q,) bool: queries that have something to find."""
        return self.relevant > 0

    def recall(self, k: int) -> np.ndarray:
        """(Q,) whether a relevant item is among the first k, as 0 or 1."""
        return ((self.before < k) & self.scored).astype(np.float64)


def ranks(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_groups: np.ndarray,
    gallery_groups: np.ndarray,
    *,
    leave_one_out: bool = False,
) -> Ranks:
    """Rank the gallery for each query by cosine; relevant is what has the query's group.

    Average precision is the mean, over the relevant items, of the share of relevant items among
    those up to and including it.

    Args:
        queries: (Q, P); lengths do not matter, and a vector of zeros is equally far from all.
        gallery: (G, P).
        query_groups: (Q,) int, such as the number of a shape or of a class.
        gallery_groups: (G,) int.
        leave_one_out: queries are the gallery, in the same order, and none finds itself.

    Raises:
        DataError: if there is nothing to ask or to find, shapes do not match, or a number is not
            finite.

    Example:
        >>> found = ranks(np.eye(3), np.eye(3)[[0, 2, 1]], np.arange(3), np.arange(3))
        >>> found.recall(1).tolist(), found.precision.round(3).tolist()
        ([1.0, 0.0, 0.0], [1.0, 0.333, 0.333])
    """
    queries, gallery = _directions(queries, "queries"), _directions(gallery, "gallery")
    groups, others = np.asarray(query_groups), np.asarray(gallery_groups)
    if queries.shape[1] != gallery.shape[1]:
        raise DataError(
            f"queries have {queries.shape[1]} numbers each and the gallery {gallery.shape[1]}: "
            "both must come from one model"
        )
    if groups.shape != queries.shape[:1] or others.shape != gallery.shape[:1]:
        raise DataError(
            f"{len(queries)} queries with groups {groups.shape}, gallery of {len(gallery)} with "
            f"groups {others.shape}: one group for each vector is expected"
        )
    if leave_one_out and len(queries) != len(gallery):
        raise DataError("leave_one_out: the queries must be the gallery itself")
    count = len(queries)
    before, relevant = np.zeros(count, np.int64), np.zeros(count, np.int64)
    precision = np.full(count, np.nan)
    for start in range(0, count, BLOCK):
        cosines = queries[start : start + BLOCK] @ gallery.T
        for place, row in enumerate(cosines, start=start):
            wanted = others == groups[place]
            rest = ~wanted
            if leave_one_out:
                wanted[place] = False
            relevant[place] = wanted.sum()
            if relevant[place]:
                before[place], precision[place] = _score(row[wanted], row[rest])
    size = np.full(count, len(gallery) - leave_one_out, np.int64)
    return Ranks(before=before, precision=precision, relevant=relevant, size=size)


def _directions(vectors: np.ndarray, what: str) -> np.ndarray:
    """Unit vectors in double precision; zeros stay zeros."""
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise DataError(f"{what} {vectors.shape}: expected (items, numbers), at least one of each")
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(bad)} {what} vectors hold NaN or infinity, the first is "
            f"number {int(bad.argmax())}: the weights have diverged"
        )
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def _score(wanted: np.ndarray, rest: np.ndarray) -> tuple[int, float]:
    """Items before the best wanted one, and average precision, of one query's cosines."""
    wanted = np.sort(wanted)[::-1]
    if len(wanted) <= 4:  # one pass for each is cheaper than sorting
        ahead = np.array([np.count_nonzero(rest >= value - TIE) for value in wanted])
    else:
        ahead = len(rest) - np.searchsorted(np.sort(rest), wanted - TIE, side="left")
    numbers = np.arange(1, len(wanted) + 1)
    return int(ahead[0]), float((numbers / (numbers + ahead)).mean())


def chance_recall(relevant: int, size: int, k: int) -> float:
    """Probability that a random order has one of the relevant items among its first k.

    1 - C(size - relevant, k) / C(size, k).

    >>> chance_recall(1, 100, 5), round(chance_recall(2, 4, 2), 4)
    (0.05, 0.8333)
    """
    missing = 1.0
    for place in range(min(k, size)):
        missing *= max(0, size - relevant - place) / (size - place)
    return round(1 - missing, 12)


def chance_precision(relevant: int, size: int) -> float:
    """Expected average precision of a random order.

    The item at place i is relevant with probability R / G, and each one before it then with
    (R - 1) / (G - 1): the mean over i of (1 + (i - 1) (R - 1) / (G - 1)) / i.

    >>> chance_precision(1, 1), chance_precision(1, 2), round(chance_precision(2, 3), 4)
    (1.0, 0.75, 0.8056)
    """
    places = np.arange(1, size + 1)
    share = (relevant - 1) / (size - 1) if size > 1 else 0.0
    return float(((1 + (places - 1) * share) / places).mean())


def chance_of(found: Ranks, k: int = 0) -> float:
    """Mean over the scored queries of the chance level of recall at k, or of mAP if k is 0."""
    kinds, counts = np.unique(
        np.stack([found.relevant, found.size], axis=1)[found.scored], axis=0, return_counts=True
    )
    levels = [
        chance_recall(int(r), int(g), k) if k else chance_precision(int(r), int(g))
        for r, g in kinds
    ]
    return float(np.average(levels, weights=counts))


def bootstrap_interval(
    values: np.ndarray, groups: np.ndarray, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a mean, drawing whole groups with replacement (Efron 1979).

    Pictures of one shape are found or missed together; drawing them one by one would make the
    interval too narrow.

    Args:
        values: (Q,) scores of the queries.
        groups: (Q,) int, such as the shape that each belongs to.
        draws: of the bootstrap.
        seed: of these draws.

    >>> bootstrap_interval(np.ones(4), np.arange(4))
    (1.0, 1.0)
    """
    _, place = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(place, weights=values), np.bincount(place)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, len(sums)))))
    means = np.empty(draws)
    for number in range(draws):
        chosen = rng.integers(len(sums), size=len(sums))
        means[number] = sums[chosen].sum() / counts[chosen].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
