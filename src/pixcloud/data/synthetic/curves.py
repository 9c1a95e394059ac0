"""Stage 1, curves: a few numbers -> points (P, 2) or (P, 3); `primitives` sweeps along them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products (..., 3); `np.cross` takes several times as long on a few vectors."""
    out = np.empty(np.broadcast_shapes(a.shape, b.shape))
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        out[..., k] = a[..., i] * b[..., j] - a[..., j] * b[..., i]
    return out


@lru_cache(maxsize=64)
def circle(sides: int) -> np.ndarray:
    """Points (sides, 2) on the unit circle, counter-clockwise."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points.setflags(write=False)
    return points


def arc(radius: float, start: float, end: float, points: int) -> np.ndarray:
    """Points (points, 2) on a circle about 0 from one angle to another, in degrees."""
    angle = np.radians(np.linspace(start, end, points))
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def smooth(knots: Sequence[Sequence[float]] | np.ndarray, points: int = 24) -> np.ndarray:
    """A smooth curve through knots (K, D) -> (points, D), evenly spaced in the knots' number.

    Catmull and Rom 1974, "A class of local interpolating splines", with the ends repeated.
    """
    knots = np.asarray(knots, dtype=float)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    place = np.linspace(0, len(knots) - 1, points)
    first = np.minimum(place.astype(int), len(knots) - 2)
    t = (place - first)[:, None]
    a, b, c, d = (padded[first + k] for k in range(4))
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )


def smooth_loop(knots: Sequence[Sequence[float]] | np.ndarray, points: int = 48) -> np.ndarray:
    """A smooth closed curve through knots (K, D) -> (points, D), the first point not repeated."""
    knots = np.asarray(knots, dtype=float)
    place = np.arange(points) * (len(knots) / points)
    first = place.astype(int)
    t = (place - first)[:, None]
    a, b, c, d = (knots[(first + k) % len(knots)] for k in (-1, 0, 1, 2))
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )


def superellipse(width: float, height: float, power: float, sides: int = 32) -> np.ndarray:
    """A closed outline (sides, 2) between an ellipse (power 2) and a rectangle (large power)."""
    angle = (np.arange(sides) + 0.5) * (2 * np.pi / sides)
    cos, sin = np.cos(angle), np.sin(angle)
    x = np.sign(cos) * np.abs(cos) ** (2 / power)
    y = np.sign(sin) * np.abs(sin) ** (2 / power)
    return np.stack([x * width / 2, y * height / 2], axis=1)


def rounded_rectangle(width: float, height: float, radius: float, steps: int = 4) -> np.ndarray:
    """A closed outline (4 (steps + 1), 2) about 0, counter-clockwise."""
    radius = min(radius, 0.499 * width, 0.499 * height)
    corners = []
    for k, (x, y) in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
        middle = np.array([x * (width / 2 - radius), y * (height / 2 - radius)])
        corners.append(middle + arc(radius, 90 * k, 90 * k + 90, steps + 1))
    return np.concatenate(corners)


def transported_frames(path: np.ndarray, ring: bool) -> tuple[np.ndarray, np.ndarray]:
    """Two unit normals (P, 3) along a path (P, 3) that turn no more than the path does.

    The second is across the plane of the first bend; a plane curve keeps it.
    """
    if ring:
        tangent = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)
    else:
        tangent = np.gradient(path, axis=0)
    tangent = tangent / np.sqrt(np.square(tangent).sum(axis=1, keepdims=True))
    bend = cross(tangent[:-1], tangent[1:])
    size = np.square(bend).sum(axis=1)
    if size.max() > 1e-9:
        across = bend[int(np.argmax(size))]
    else:
        across = cross(tangent[0], np.eye(3)[int(np.argmin(np.abs(tangent[0])))])
    binormal = np.empty_like(path)
    for k, direction in enumerate(tangent):
        across = across - direction * (direction @ across)
        across = across / np.sqrt(across @ across)
        binormal[k] = across
    return cross(binormal, tangent), binormal
