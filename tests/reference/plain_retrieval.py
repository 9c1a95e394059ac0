"""Retrieval the slow and obvious way: every list is sorted, ties with the irrelevant ones first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

TIE = 1e-9


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / lengths if lengths else 0.0


def order(cosines: Sequence[float], relevant: Sequence[bool], places: Sequence[int]) -> list[bool]:
    """Relevance along the ranking: irrelevant items move ahead of relevant ones as near as they."""
    ranked = sorted(places, key=lambda place: (-cosines[place], relevant[place]))
    moved = True
    while moved:
        moved = False
        for i in range(len(ranked) - 1):
            first, second = ranked[i], ranked[i + 1]
            near = cosines[second] >= cosines[first] - TIE
            if relevant[first] and not relevant[second] and near:
                ranked[i], ranked[i + 1] = second, first
                moved = True
    return [relevant[place] for place in ranked]


def recall(along: Sequence[bool], k: int) -> float:
    return float(any(along[:k]))


def average_precision(along: Sequence[bool]) -> float:
    hits = [sum(along[: i + 1]) / (i + 1) for i, hit in enumerate(along) if hit]
    return sum(hits) / len(hits) if hits else math.nan


def scores(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_groups: Sequence[int],
    gallery_groups: Sequence[int],
    ks: Sequence[int],
    leave_one_out: bool = False,
) -> list[tuple[list[float], float]]:
    """(recall at each k, average precision) of every query."""
    found = []
    for number, query in enumerate(queries):
        cosines = [cosine(query, item) for item in gallery]
        relevant = [group == query_groups[number] for group in gallery_groups]
        places = [p for p in range(len(gallery)) if not (leave_one_out and p == number)]
        along = order(cosines, relevant, places)
        found.append(([recall(along, k) for k in ks], average_precision(along)))
    return found


def chance(relevant: int, size: int, k: int) -> tuple[float, float]:
    """Mean recall at k and mean average precision over every order there is."""
    orders = list(itertools.combinations(range(size), relevant))
    alongs = [[place in chosen for place in range(size)] for chosen in orders]
    return (
        sum(recall(along, k) for along in alongs) / len(orders),
        sum(average_precision(along) for along in alongs) / len(orders),
    )
