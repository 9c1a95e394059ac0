"""Stage 9, few-shot trials: labels of the splits -> support and query clouds of each trial, kept.

After it: `pixcloud.evaluate.few_shot`. Trials are a function of (labels, settings, seed). They are
stored as JSON beside the results, named by their hash, and can be read again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.atomic import write_text
from pixcloud.errors import ConfigError, DataError, some
from pixcloud.evaluate.feature_cache import array_sha256
from pixcloud.evaluate.training_settings import FewShotSettings
from pixcloud.types import LabelledClouds

FORMAT = "pixcloud few-shot folds 1"
CROSSPOINT, POINT_BERT = "crosspoint", "point-bert"
_TRIAL = 0x46535452  # what the draw is for, so that no other draw shares its numbers


@dataclass(kw_only=True, frozen=True)
class Trial:
    """classes (N,) labels, ascending; support (N K,) and query (N Q,) places in their splits.

    Of CrossPoint's protocol both are places in train, of Point-BERT's the queries are in test.
    """

    classes: tuple[int, ...]
    support: tuple[int, ...]
    query: tuple[int, ...]


@dataclass(kw_only=True, frozen=True)
class Folds:
    """All trials of an evaluation, and what they were drawn for.

    data_sha256 is of the labels of both splits in order, which tells other data apart.
    """

    protocol: str
    dataset: str
    data_sha256: str
    ways: int
    shots: int
    queries: int
    seed: int
    trials: tuple[Trial, ...]

    def text(self) -> str:
        """As JSON, the same bytes for the same folds."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True) + "\n"

    @property
    def sha256(self) -> str:
        """SHA-256 of the file that `store_folds` writes."""
        return hashlib.sha256(self.text().encode()).hexdigest()


def draw_folds(
    protocol: str, train: LabelledClouds, test: LabelledClouds, settings: FewShotSettings
) -> Folds:
    """Draw the trials: N classes each, and of every class K support and Q query clouds.

    Raises:
        ConfigError: if there are fewer classes than ways.
        DataError: if a class has too few clouds, named.
    """
    _require_classes(train, settings)
    apart = protocol == POINT_BERT
    sources = (train, test) if apart else (train,)
    needed = (settings.shots, settings.queries) if apart else (settings.shots + settings.queries,)
    present = np.unique(train.labels)
    for clouds, least in zip(sources, needed, strict=True):
        _require_clouds(clouds, present, least, settings, apart)
    trials = []
    for number in range(settings.trials):
        sequence = np.random.SeedSequence((settings.seed, _TRIAL, number))
        rng = np.random.Generator(np.random.Philox(sequence))
        classes = np.sort(rng.choice(present, settings.ways, replace=False))
        support: list[int] = []
        query: list[int] = []
        for label in classes:
            own = rng.permutation(np.flatnonzero(train.labels == label))
            support += own[: settings.shots].tolist()
            rest = own[settings.shots :]
            if apart:
                rest = rng.permutation(np.flatnonzero(test.labels == label))
            query += rest[: settings.queries].tolist()
        trials.append(
            Trial(classes=tuple(classes.tolist()), support=tuple(support), query=tuple(query))
        )
    return Folds(
        protocol=protocol,
        dataset=train.name,
        data_sha256=labels_sha256(train, test),
        ways=settings.ways,
        shots=settings.shots,
        queries=settings.queries,
        seed=settings.seed,
        trials=tuple(trials),
    )


def labels_sha256(train: LabelledClouds, test: LabelledClouds) -> str:
    """What tells two data sets apart, as far as trials are concerned."""
    both = [array_sha256(split.labels.astype(np.int64)) for split in (train, test)]
    return hashlib.sha256(" ".join(both).encode()).hexdigest()


def store_folds(folder: Path, folds: Folds) -> Path:
    """Write the folds, whole or not at all, under a name that holds their hash."""
    size = f"{folds.ways}way{folds.shots}shot"
    path = folder / f"{folds.protocol}-{folds.dataset}-{size}-{folds.sha256[:12]}.json"
    write_text(path, folds.text())
    return path


def read_folds(
    path: Path,
    protocol: str,
    train: LabelledClouds,
    test: LabelledClouds,
    settings: FewShotSettings,
) -> Folds:
    """Folds that `store_folds` wrote, checked against the data and the settings at hand.

    The number of trials and their seed are the file's.

    Raises:
        DataError: if the file is missing, damaged, of other data, or names clouds of other classes.
        ConfigError: if it is of another protocol or size than asked for.
    """
    folds = _parsed(path)
    for key, wanted in (
        ("protocol", protocol),
        ("ways", settings.ways),
        ("shots", settings.shots),
        ("queries", settings.queries),
    ):
        found = getattr(folds, key)
        if found != wanted:
            option = key if key == "protocol" else f"fewshot.{key}"
            raise ConfigError(
                f"{path}: folds of {key} {found}, not {wanted}; set --{option} {found}"
            )
    if folds.data_sha256 != labels_sha256(train, test):
        raise DataError(
            f"{path}: folds of other data ('{folds.dataset}'); the labels of {train.name} differ "
            "from those that they were drawn for"
        )
    query_labels = test.labels if protocol == POINT_BERT else train.labels
    for number, trial in enumerate(folds.trials):
        if not _is_whole(trial, folds, train.labels, query_labels):
            raise DataError(f"{path}: damaged: trial {number} does not hold what it should")
    return folds


def _is_whole(
    trial: Trial, folds: Folds, support_labels: np.ndarray, query_labels: np.ndarray
) -> bool:
    for places, labels, each in (
        (trial.support, support_labels, folds.shots),
        (trial.query, query_labels, folds.queries),
    ):
        place = np.array(places, np.int64)
        if len(set(places)) != len(places) or place.min() < 0 or place.max() >= len(labels):
            return False
        found, counts = np.unique(labels[place], return_counts=True)
        if found.tolist() != sorted(trial.classes) or set(counts.tolist()) != {each}:
            return False
    apart = folds.protocol == POINT_BERT or not set(trial.support) & set(trial.query)
    return apart and len(trial.classes) == folds.ways


def _parsed(path: Path) -> Folds:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"not of the format '{FORMAT}'")
        trials = tuple(
            Trial(**{key: tuple(map(int, places)) for key, places in trial.items()})
            for trial in values.pop("trials")
        )
        if not trials or not all(t.support and t.query for t in trials):
            raise ValueError("there is an empty trial, or none")
        return Folds(**values, trials=trials)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read as folds ({error}); an evaluation without --folds writes them"
        ) from error


def _require_classes(train: LabelledClouds, settings: FewShotSettings) -> None:
    present = len(np.unique(train.labels))
    if settings.ways > present:
        raise ConfigError(
            f"fewshot.ways = {settings.ways}: {train.name} {train.split} has {present} classes; "
            f"set it to {present} or fewer"
        )


def _require_clouds(
    clouds: LabelledClouds, present: np.ndarray, least: int, settings: FewShotSettings, apart: bool
) -> None:
    counts = {label: int((clouds.labels == label).sum()) for label in present.tolist()}
    few = [f"{clouds.classes[k]} {count}" for k, count in counts.items() if count < least]
    if few:
        why = f"{least}" if apart else f"{settings.shots} + {settings.queries} = {least}"
        fits = min(counts.values()) - settings.shots
        lower = f" (--fewshot.queries {fits} would do)" if not apart and fits > 0 else ""
        raise DataError(
            f"{clouds.name} {clouds.split}: classes with fewer clouds than the {why} of each that "
            f"a trial needs: {some(few)}; set fewshot.shots or fewshot.queries lower{lower}, or "
            "leave these classes out"
        )
