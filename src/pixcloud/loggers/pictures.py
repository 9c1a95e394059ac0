"""Stage 7, pictures: the source of a run's pairs (stage 2) -> a few pictures beside their clouds.

Before it: `pixcloud.data.sources` and `pixcloud.data.files`. After it: the loggers' backends, which
show both as images. No torch, no display.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixcloud.config import PretrainConfig

SHOWN = 4
SIDE = 256
MOST_POINTS = 4096


@dataclass(frozen=True, kw_only=True)
class ShownPair:
    """A pair to look at: picture and cloud as pixels (H, W, 3) uint8, and points (N, 3)."""

    name: str
    picture: np.ndarray
    drawn: np.ndarray
    points: np.ndarray

    @property
    def side_by_side(self) -> np.ndarray:
        """Picture and cloud in one image (256, 512, 3) uint8."""
        return np.concatenate([self.picture, self.drawn], axis=1)


def some_pairs(config: PretrainConfig) -> list[ShownPair]:
    """Up to four pairs, spread evenly over the sorted data set.

    Raises:
        PixCloudError: if the data have gone or changed since the run began.
    """
    from PIL import Image

    from pixcloud.data.files import read_cloud, read_picture
    from pixcloud.data.sources import open_pairs

    pairs = open_pairs(config.data.source, config.data.unpaired)
    shown = []
    for place in np.linspace(0, len(pairs) - 1, min(SHOWN, len(pairs))).astype(int):
        pair = pairs[place]
        points = read_cloud(Path(pair.cloud), on_nonfinite="drop").points
        points = points[np.linspace(0, len(points) - 1, min(MOST_POINTS, len(points))).astype(int)]
        pixels = read_picture(Path(pair.folder) / pair.pictures[0]).transpose(1, 2, 0)
        picture = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE)))
        drawn = draw_cloud(points)
        shown.append(ShownPair(name=pair.name, picture=picture, drawn=drawn, points=points))
    return shown


def draw_cloud(points: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Points (N, 3), y up, seen from the side and a little from above -> (side, side, 3) uint8.

    Each point is a small square; nearer ones cover those behind them. Height gives the color, and
    depth the shade.

    >>> draw_cloud(np.eye(3), 32).shape
    (32, 32, 3)
    """
    image = np.full((side, side, 3), 255, np.uint8)
    points = np.asarray(points, np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return image
    points = points - (points.max(axis=0) + points.min(axis=0)) / 2
    points /= np.sqrt((points**2).sum(axis=1).max()) or 1.0
    turn, tilt = np.radians(35.0), np.radians(25.0)
    x = np.cos(turn) * points[:, 0] + np.sin(turn) * points[:, 2]
    z = np.cos(turn) * points[:, 2] - np.sin(turn) * points[:, 0]
    y = np.cos(tilt) * points[:, 1] - np.sin(tilt) * z
    depth = np.sin(tilt) * points[:, 1] + np.cos(tilt) * z  # towards the eye
    height = (points[:, 1] - points[:, 1].min()) / (np.ptp(points[:, 1]) or 1.0)
    low, high = np.array([40.0, 70.0, 160.0]), np.array([240.0, 150.0, 40.0])
    colors = low + height[:, None] * (high - low)
    colors *= (0.6 + 0.4 * (depth[:, None] + 1) / 2).clip(0, 1)
    radius = max(1, side // 128)
    scale = (side - 1) / 2 - radius
    column = np.rint((side - 1) / 2 + scale * x).astype(int)
    row = np.rint((side - 1) / 2 - scale * y).astype(int)
    order = np.argsort(depth, kind="stable")  # the nearest is painted last
    around = np.arange(-radius, radius + 1)
    down, right = (grid.ravel() for grid in np.meshgrid(around, around))
    rows = (row[order, None] + down).clip(0, side - 1)
    columns = (column[order, None] + right).clip(0, side - 1)
    image[rows.ravel(), columns.ravel()] = np.repeat(colors[order], len(down), axis=0)
    return image
