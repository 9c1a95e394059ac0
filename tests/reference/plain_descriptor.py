"""The shape descriptor point by point, with np.histogram and the textbook's formulas."""

from __future__ import annotations

import numpy as np


def plain_descriptor(
    cloud: np.ndarray, pairs: np.ndarray, triples: np.ndarray, bins: int
) -> np.ndarray:
    """Cloud (N, 3), places of pairs (2, P) and triples (3, T) -> (D,)."""
    points = cloud.astype(float) - cloud.astype(float).mean(axis=0)
    radius = max(np.linalg.norm(p) for p in points)
    points = points / radius if radius > 0 else points
    d2, up_and_across = [], []
    for i, j in pairs.T:
        d2.append(np.linalg.norm(points[i] - points[j]))
        x, y, z = points[i] - points[j]
        up_and_across.append((abs(y), np.linalg.norm([x, z])))
    a3, d3 = [], []
    for i, j, k in triples.T:
        u, v = points[i] - points[j], points[k] - points[j]
        a3.append(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))
        d3.append(np.sqrt(np.linalg.norm(np.cross(u, v)) / 2))
    up_and_out = [(y + 1, np.linalg.norm([x, z])) for x, y, z in points]
    from_centre = [np.linalg.norm(p) for p in points]
    # An equilateral triangle on a great circle is the largest in the unit sphere.
    largest_area = 3 * np.sqrt(3) / 4
    half = bins // 2
    covariance = np.cov(points.T, bias=True)
    spreads = [
        *np.sqrt(np.maximum(np.linalg.eigvalsh(covariance[np.ix_([0, 2], [0, 2])]), 0)),
        np.sqrt(covariance[1, 1]),
        *np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0)),
    ]
    return np.concatenate(
        [
            shares(d2, 2, bins),
            shares(a3, np.pi, bins),
            shares(d3, np.sqrt(largest_area), bins),
            joint_shares(up_and_across, (2, 2), half),
            joint_shares(up_and_out, (2, 1), half),
            shares(from_centre, 1, bins),
            spreads,
        ]
    )


def shares(values: list, highest: float, bins: int) -> np.ndarray:
    # np.histogram counts a value at the very end in the last bin, and rounding may pass the end.
    counts, _ = np.histogram(np.minimum(values, highest), bins=bins, range=(0, highest))
    return np.sqrt(counts / len(values))


def joint_shares(values: list, highest: tuple[float, float], bins: int) -> np.ndarray:
    first, second = np.minimum(np.maximum(values, 0), highest).T
    ranges = [(0, highest[0]), (0, highest[1])]
    counts, _, _ = np.histogram2d(first, second, bins=bins, range=ranges)
    return np.sqrt(counts / len(values)).ravel()
