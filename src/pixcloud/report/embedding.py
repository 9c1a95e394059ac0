"""Stage 10, embedding: a run's encoder and a labelled test split -> features, learned and not.

Before it: `pixcloud.export`, `pixcloud.data.sources` and the feature cache of
`pixcloud.evaluate.features`. After it: `pixcloud.report.feature_map` and `neighbours`. Labels serve
to colour and count here; nothing is fitted to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixcloud.errors import DataError
from pixcloud.report.record import OTHER, RunRecord

MOST_CLOUDS = 800
NEIGHBOURS = 5
_CHOICE = 0x4D4150  # what the draw is for


@dataclass(kw_only=True)
class Embedded:
    """Labelled clouds and what two encoders make of them.

    points (S, N, 3) float32, labels (S,) int64, classes in label order; features: "pre-trained"
    and "untrained" to (S, D) float32; total: clouds of the split, of which S were taken.
    """

    dataset: str
    points: np.ndarray
    labels: np.ndarray
    classes: list[str]
    features: dict[str, np.ndarray]
    total: int


def embed(record: RunRecord, say: Callable[[str], None]) -> Embedded:
    """Features of at most 800 clouds of the test split that lies beside the run's data.

    Args:
        record: of a run with an encoder.
        say: takes each line for the reader, since this may take a minute.

    Raises:
        PixCloudError: if the labelled data or the encoder cannot be had.
    """
    from pixcloud.data.sources import open_labelled
    from pixcloud.evaluate.features import cached_features
    from pixcloud.evaluate.probe import untrained
    from pixcloud.export import load_encoder

    source = _labelled_source(record)
    test = open_labelled(source, "test", key="data.source")
    total = len(test.labels)
    if total < 3:
        raise DataError(f"{source}: {total} labelled test clouds are too few for a map")
    taken = choose(total, record.config.seed)
    settings = _probe_settings(record)
    num_points = min(int(settings.get("num_points", 1024)), test.points.shape[1])
    encoder = load_encoder(record.path)
    features = {}
    seed = record.rows[-1].seed if record.rows else record.config.seed
    for name, module in (("pre-trained", encoder), ("untrained", untrained(encoder, seed))):
        found = cached_features(
            module,
            test.points[taken],
            num_points=num_points,
            normalize=bool(settings.get("normalize", True)),
            say=say,
        )
        if not found.hit:
            say(f"report: embedded {len(taken)} test clouds, {name}")
        features[name] = found.values
    return Embedded(
        dataset=test.name,
        points=test.points[taken, :num_points],
        labels=test.labels[taken],
        classes=test.classes,
        features=features,
        total=total,
    )


def _labelled_source(record: RunRecord) -> str:
    """Where the probe read its labels, if its rows say so; else what the run itself was given."""
    for row in reversed(record.rows):
        if record.role(row) != OTHER and row.settings.get("source"):
            return str(row.settings["source"])
    return record.config.trainer.probe_source or record.config.data.source


def _probe_settings(record: RunRecord) -> dict[str, Any]:
    return next((row.settings for row in reversed(record.rows)), {})


def choose(total: int, seed: int, most: int = MOST_CLOUDS) -> np.ndarray:
    """Places of the clouds to show, sorted: all, or `most` drawn without repetition from a seed.

    >>> len(choose(2468, seed=0)), choose(3, seed=0).tolist()
    (800, [0, 1, 2])
    """
    if total <= most:
        return np.arange(total)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, _CHOICE))))
    return np.sort(rng.choice(total, most, replace=False))


def standardized(features: np.ndarray) -> np.ndarray:
    """Each column (S, D) with mean 0 and standard deviation 1, or 0 where it is constant."""
    features = features.astype(np.float64)
    spread = features.std(axis=0)
    return (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def nearest(features: np.ndarray, count: int = NEIGHBOURS) -> np.ndarray:
    """The `count` most similar other rows of each row, (S, count), by cosine after standardizing.

    Equal similarities are ordered by place.

    >>> nearest(np.array([[0.0, 1], [0, 1.1], [1, 0], [1.1, 0]]), 1).ravel().tolist()
    [1, 0, 3, 2]
    """
    unit = standardized(features)
    length = np.linalg.norm(unit, axis=1, keepdims=True)
    unit /= np.where(length > 0, length, 1.0)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, : min(count, len(features) - 1)]


def agreement(neighbours: np.ndarray, labels: np.ndarray) -> float:
    """Share of all neighbours (S, K) that have the class of the cloud they are neighbours of.

    >>> agreement(np.array([[1], [0], [0]]), np.array([0, 0, 1]))
    0.6666666666666666
    """
    return float((labels[neighbours] == labels[:, None]).mean())
