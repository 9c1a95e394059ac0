"""Linear probe with every cloud turned about the up axis at random, as scans stand.

Aligned sets are easy even for an untrained encoder; this is not. No features are kept.

python examples/probe_turned.py SOURCE RUN [RUN ...]
"""

from __future__ import annotations

import dataclasses
import sys

import numpy as np

import pixcloud
from pixcloud.evaluate.probe import probe_clouds, untrained
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.types import LabelledClouds


def turned(clouds: LabelledClouds, seed: int) -> LabelledClouds:
    """The same clouds (S, N, 3), each at a heading of its own."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(clouds.points))
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    rotation = np.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos], axis=-1)
    points = np.einsum("sij,snj->sni", rotation.reshape(-1, 3, 3), clouds.points)
    return dataclasses.replace(clouds, points=points.astype(np.float32))


def main() -> None:
    source, runs = sys.argv[1], sys.argv[2:]
    train = turned(pixcloud.open_labelled(source, "train"), seed=1)
    test = turned(pixcloud.open_labelled(source, "test"), seed=2)
    encoders = {}
    for seed, run in enumerate(runs):
        encoders[run] = pixcloud.load_encoder(run)
        encoders[f"{run}, untrained"] = untrained(encoders[run], seed)
    print(probe_clouds(encoders, train, test, ProbeSettings(cache=False)))


if __name__ == "__main__":
    main()
