"""Stage 10, clouds: points (N, 3) -> canvases that the reader can turn.

A plain canvas needs no 3-D context of the browser, of which there are few, so that a page may show
dozens of clouds. Used by `pixcloud.report.gallery` and `pixcloud.report.neighbours`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import numpy as np

from pixcloud.report.markup import Html, data_script, tag


@dataclass(kw_only=True)
class CloudStore:
    """The clouds of one page: each is kept once, however often it is shown."""

    packed: dict[str, str] = field(default_factory=dict)

    def canvas(self, identifier: str, points: np.ndarray, label: str) -> Html:
        """A canvas of points (N, 3); `label` says to a screen reader what it shows."""
        if identifier not in self.packed:
            self.packed[identifier] = pack(points)
        return tag(
            "canvas",
            class_="cloud",
            data_cloud=identifier,
            tabindex=0,
            role="img",
            aria_label=f"{label}; drag or use the arrow keys to turn it",
        )

    def script(self) -> Html | None:
        """The points of all clouds, for the page's script; None if there are none."""
        return data_script("clouds", self.packed) if self.packed else None


def pack(points: np.ndarray) -> str:
    """Points (N, 3), centred and scaled to the unit sphere, as base64 of little-endian int16.

    >>> len(base64.b64decode(pack(np.eye(3))))
    18
    """
    points = np.asarray(points, np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) == 0:
        return ""
    points = points - (points.max(axis=0) + points.min(axis=0)) / 2
    radius = np.sqrt((points**2).sum(axis=1).max())
    whole = np.rint(points / (radius or 1.0) * 32767).astype("<i2")
    return base64.b64encode(whole.tobytes()).decode()
