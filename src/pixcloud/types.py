"""The vocabulary of the data's journey: what travels between the stages, with shapes and units.

Axes: B batch, V view, N points, C channels per point, D pooled channels, H x W picture, F faces.
Coordinates are float32 in the unit of the source until the first augmentation (or evaluation)
step centres them and scales them to the unit sphere. Axes are right-handed and y is up.
Nothing here imports torch: the annotations are strings, so that reading files stays light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(kw_only=True)
class Mesh:
    """A triangle mesh, stage 1.

    vertices (V, 3) float64; faces (F, 3) int64 indices into vertices, wound counter-clockwise
    seen from outside where the source knows; face_colors (F, 3) uint8 sRGB or None;
    face_parts (F,) int64 part number of each face within its category, or None. pieces: objects or
    materials of the file that were joined; only those of a single one are in the file's order.
    """

    vertices: np.ndarray
    faces: np.ndarray
    face_colors: np.ndarray | None = None
    face_parts: np.ndarray | None = None
    pieces: int = 1


@dataclass(kw_only=True)
class PointCloud:
    """A cloud as read from one file, stage 1: points (N, 3) float32, normals (N, 3) or None."""

    points: np.ndarray
    normals: np.ndarray | None = None


@dataclass(kw_only=True)
class LabelledClouds:
    """One split of a labelled data set, stage 2.

    points (S, N, 3) float32, labels (S,) int64 in [0, len(classes)), classes in label order,
    parts (S, N) int64 or None, name such as "modelnet40" and split "train" or "test". part_names:
    classes in label order with the names of their parts, which are numbered through, or None.
    part_labels: the numbers that the files themselves give these parts, or None where each class
    counts its own from 0.
    """

    name: str
    split: str
    points: np.ndarray
    labels: np.ndarray
    classes: list[str]
    parts: np.ndarray | None = None
    part_names: dict[str, list[str]] | None = None
    part_labels: dict[str, list[int]] | None = None


class PairSample(NamedTuple):
    """A shape and one picture of it with the random numbers of its augmentation, stage 2.

    sample_index: place in the sorted data set; points (V, N, 3) float32, the points that each of
    the V = 2 views starts from; picture (3, H, W) uint8 RGB composited on white, or (m, 3, H, W)
    where a step sees several; draws: name to array, see `pixcloud.data.views.draw_pair`.
    """

    sample_index: int
    points: np.ndarray
    picture: np.ndarray
    draws: dict[str, np.ndarray]


class PairBatch(NamedTuple):
    """B pairs on their way to the device, stage 3.

    sample_index (B,) int64; points (B, V, N, 3) float32; pictures (B, 3, H, W) uint8, or
    (B, m, 3, H, W); draws: each of `PairSample.draws` with a leading axis B.
    """

    sample_index: torch.Tensor
    points: torch.Tensor
    pictures: torch.Tensor
    draws: dict[str, torch.Tensor]


class PointFeatures(NamedTuple):
    """What every point encoder returns, stage 4.

    per_point (B, N, C), or None for an encoder without per-point features; pooled (B, D).
    """

    per_point: torch.Tensor | None
    pooled: torch.Tensor
