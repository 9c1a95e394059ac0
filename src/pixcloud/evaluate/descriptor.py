"""Stage 9, a hand-made descriptor: clouds (S, N, 3) -> features (S, D) float32, nothing learned.

The baseline that a learned encoder has to beat, beside the same encoder untrained. It goes through
the same SVM (`pixcloud.evaluate.svm`) in `pixcloud.evaluate.probe`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from pixcloud.errors import ConfigError, DataError

_D2, _A3 = 0, 1  # what a draw is for


@dataclass(kw_only=True, frozen=True)
class ShapeDescriptor:
    """Shape distributions with histograms about the up axis and moments of the cloud.

    Histograms, as the square roots of their shares, so that the linear SVM compares them with the
    Hellinger kernel:
    D2, A3 and D3 of Osada et al. 2002 ("Shape distributions", ACM TOG 21(4)): distance of random
    pairs, angle at and square root of the area of random triples of points; random pairs by their
    vertical and horizontal distance; points by their height and distance from the vertical axis
    through the centroid; points by distance from the centroid. To these come the spreads: the
    roots of the two horizontal eigenvalues of the covariance, of its vertical entry, and of its
    three eigenvalues. All of it is unchanged by translation, scale (clouds are centred and scaled
    to the unit sphere first) and rotation about y.

    The places of the random pairs and triples in the list of points are a function of (seed, N)
    alone, so that equal clouds have equal descriptors wherever they stand in a data set.

    Args:
        pairs: random pairs of points per cloud.
        triples: random triples of points per cloud.
        bins: bins of the histograms of one quantity; those of two have bins / 2 on each axis.
        seed: of the pairs and triples.

    Raises:
        ConfigError: if a setting is out of range.

    Example:
        >>> ShapeDescriptor()(np.random.default_rng(0).random((2, 256, 3))).shape
        (2, 646)
    """

    pairs: int = 8192
    triples: int = 4096
    bins: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for key, least in (("pairs", 1), ("triples", 1), ("bins", 2), ("seed", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"{key} is {getattr(self, key)}: expected at least {least}")

    @property
    def sha256(self) -> str:
        """Hash of the settings, where an encoder has that of its weights."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Descriptors (S, D) float32 of clouds (S, N, 3).

        Raises:
            DataError: for another shape, or coordinates that are not finite.
        """
        points = np.asarray(points)
        if points.ndim != 3 or points.shape[2] != 3 or 0 in points.shape:
            raise DataError(f"clouds must be (clouds, points, 3), got {points.shape}")
        if not np.isfinite(points).all():
            raise DataError("clouds hold NaN or infinite coordinates: remove these points")
        number = points.shape[1]
        pairs = self._places(_D2, number, (2, self.pairs))
        triples = self._places(_A3, number, (3, self.triples))
        return np.stack([self._describe(_unit(cloud), pairs, triples) for cloud in points])

    def _places(self, purpose: int, number: int, shape: tuple[int, int]) -> np.ndarray:
        sequence = np.random.SeedSequence((self.seed, purpose, number))
        return np.random.Generator(np.random.Philox(sequence)).integers(0, number, shape)

    def _describe(self, cloud: np.ndarray, pairs: np.ndarray, triples: np.ndarray) -> np.ndarray:
        """One centred cloud (N, 3) within the unit sphere -> (D,) float32."""
        upright, across, distance = _lengths(cloud[pairs[0]] - cloud[pairs[1]])
        angle, area = _triangles(*cloud[triples])
        _, axis_distance, radius = _lengths(cloud)
        half = self.bins // 2
        return np.concatenate(
            [
                # The highest values that a cloud within the unit sphere can reach, each.
                _histogram(distance, 2.0, self.bins),
                _histogram(angle, np.pi, self.bins),
                _histogram(np.sqrt(area), 27**0.25 / 2, self.bins),
                _histogram2(upright, 2.0, across, 2.0, half),
                _histogram2(cloud[:, 1] + 1, 2.0, axis_distance, 1.0, half),
                _histogram(radius, 1.0, self.bins),
                _spreads(cloud),
            ]
        ).astype(np.float32)


def _unit(cloud: np.ndarray) -> np.ndarray:
    centred = cloud.astype(np.float64)
    centred -= centred.mean(axis=0)
    radius = np.sqrt((centred**2).sum(axis=1).max())
    return centred / radius if radius > 0 else centred


def _lengths(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertical, horizontal and whole length of vectors (M, 3), each (M,)."""
    squares = vectors * vectors
    across = squares[:, 0] + squares[:, 2]
    return np.abs(vectors[:, 1]), np.sqrt(across), np.sqrt(across + squares[:, 1])


def _triangles(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle at b in [0, pi], and area, of triangles (T, 3) x 3; both 0 where two coincide.

    With u = a - b and v = c - b: |u x v| = |u| |v| sin(angle) is twice the area.
    """
    u, v = a - b, c - b
    cosine = np.einsum("ij,ij->i", u, v)
    squared = np.einsum("ij,ij->i", u, u) * np.einsum("ij,ij->i", v, v) - cosine**2
    sine = np.sqrt(np.maximum(squared, 0.0))
    return np.arctan2(sine, cosine), sine / 2


def _spreads(cloud: np.ndarray) -> np.ndarray:
    """(6,) spreads of a centred cloud: two horizontal, one vertical, three principal ones."""
    covariance = cloud.T @ cloud / len(cloud)
    horizontal = np.linalg.eigvalsh(covariance[::2, ::2])
    principal = np.linalg.eigvalsh(covariance)
    return np.sqrt(np.maximum(np.r_[horizontal, covariance[1, 1], principal], 0.0))


def _histogram(values: np.ndarray, highest: float, bins: int) -> np.ndarray:
    """Roots of the shares of values in [0, highest] per bin, (bins,)."""
    return np.sqrt(np.bincount(_bin(values, highest, bins), minlength=bins) / len(values))


def _histogram2(
    first: np.ndarray, first_highest: float, second: np.ndarray, second_highest: float, bins: int
) -> np.ndarray:
    """As `_histogram` over two quantities, (bins * bins,)."""
    joint = _bin(first, first_highest, bins) * bins + _bin(second, second_highest, bins)
    return np.sqrt(np.bincount(joint, minlength=bins * bins) / len(first))


def _bin(values: np.ndarray, highest: float, bins: int) -> np.ndarray:
    # Rounding may carry a value past either end; it belongs to the last bin there.
    return np.clip((values * (bins / highest)).astype(np.int64), 0, bins - 1)
