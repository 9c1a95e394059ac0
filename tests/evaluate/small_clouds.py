"""Small labelled clouds for the protocols that train: ellipsoids of four proportions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pixcloud.types import LabelledClouds

CLASSES = ["ball", "rod", "disc", "slab"]


def ellipsoids(split: str, seed: int, per_class: int = 12, points: int = 48) -> LabelledClouds:
    """`per_class` clouds of each class in a shuffled order, turned a little about y."""
    rng = np.random.default_rng(seed)
    axes = np.array([[1, 1, 1], [1, 4, 1], [3, 1, 3], [4, 2, 1]])
    labels = np.repeat(np.arange(4), per_class)
    rng.shuffle(labels)
    clouds = rng.standard_normal((len(labels), points, 3))
    clouds *= (axes[labels] * rng.uniform(0.8, 1.25, (len(labels), 3)))[:, None]
    return LabelledClouds(
        name="ellipsoids",
        split=split,
        points=clouds.astype(np.float32),
        labels=labels.astype(np.int64),
        classes=list(CLASSES),
    )


def silent(line: str) -> None:
    pass


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On clouds this small several threads wait for each other; import it to have it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
