"""A score of recipes for small sets whose objects all stand in one pose: trained runs -> accuracy.

Comes after `benchmarks.recipes`, whose records it takes. On such a set the validation part that the
trainer carves from train is a few easy objects, and every encoder has all of them right. Here every
cloud of the train split has a heading of its own, and each is predicted once, by a linear SVM that
was fitted on the other four fifths, its C by cross-validation within these. The test split is
not read.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from benchmarks.recipes import table
from benchmarks.recipes_final import turned
from pixcloud.atomic import write_text
from pixcloud.data.sources import open_labelled
from pixcloud.evaluate.probe import CROSS_VALIDATED, probe_clouds
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.export import load_encoder
from pixcloud.types import LabelledClouds

FOLDS = 5
FILE = "folds.jsonl"


def part(clouds: LabelledClouds, chosen: np.ndarray) -> LabelledClouds:
    """Some of the clouds."""
    return dataclasses.replace(clouds, points=clouds.points[chosen], labels=clouds.labels[chosen])


def score(record: dict[str, Any], source: str, out: Path) -> dict[str, Any]:
    """Accuracy of one run's encoder over all folds. Headings and folds are those of every run."""
    encoder, name = load_encoder(out / record["run"]), record["variant"]
    clouds = turned(open_labelled(source, "train"), seed=1)
    settings = ProbeSettings(cache=False, num_points=min(1024, clouds.points.shape[1]))
    right = 0.0
    split = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for fit, held in split.split(clouds.labels, clouds.labels):
        found = probe_clouds(
            {name: encoder}, part(clouds, fit), part(clouds, held), settings, say=lambda line: None
        )
        right += sum(
            row.value * len(held)
            for row in found.rows
            if row.protocol == CROSS_VALIDATED and row.metric == "accuracy"
        )
    return {
        "key": record["key"],
        "source": source,
        "variant": name,
        "seed": record["seed"],
        "accuracy": right / len(clouds.labels),
        "n": len(clouds.labels),
    }


def folds(records: list[dict[str, Any]], source: str, out: Path) -> list[str]:
    """Score every run that is not scored yet; the table of all of them.

    Args:
        records: of `benchmarks.recipes.run`.
        source: labelled clouds.
        out: folder of the runs; lines go into folds.jsonl in it.
    """
    path = out / FILE
    lines: list[dict[str, Any]] = []
    if path.exists():
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    done = {(line["key"], line["source"]): line for line in lines}
    wanted = []
    for record in records:
        place = (record["key"], source)
        if place not in done:
            done[place] = score(record, source, out)
            write_text(path, "".join(json.dumps(line) + "\n" for line in done.values()))
        wanted.append({**done[place], "variant": record["variant"]})
    return table(wanted, records[0]["variant"])
