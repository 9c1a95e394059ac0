"""The last comparison of recipes: trained runs -> accuracy on the test split, once, and times.

Comes after `benchmarks.recipes`, whose records it takes. Each encoder is scored by the linear probe
with C by cross-validation on train, on the clouds as they stand and, since sets whose objects all
stand in one pose are easy even for an untrained encoder, with every cloud turned about the up axis.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipes import interval, time_to
from pixcloud.atomic import write_text
from pixcloud.data.sources import open_labelled
from pixcloud.evaluate.probe import CROSS_VALIDATED, probe_clouds, untrained
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.export import load_encoder
from pixcloud.types import LabelledClouds

FINAL = "final.jsonl"
TURNS = {"as they stand": None, "turned about y": (1, 2)}


def turned(clouds: LabelledClouds, seed: int) -> LabelledClouds:
    """The same clouds (S, N, 3), each at a heading of its own."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed])))
    angle = generator.uniform(0, 2 * np.pi, len(clouds.points))
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    rotation = np.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos], axis=-1)
    points = np.einsum("sij,snj->sni", rotation.reshape(-1, 3, 3), clouds.points)
    return dataclasses.replace(clouds, points=points.astype(np.float32))


def score(record: dict[str, Any], source: str, out: Path) -> list[dict[str, Any]]:
    """Lines of one run: accuracy on test of its encoder and of that encoder untrained."""
    encoder = load_encoder(out / record["run"])
    contenders = {record["variant"]: encoder, "untrained": untrained(encoder, record["seed"])}
    train, test = (open_labelled(source, split) for split in ("train", "test"))
    settings = ProbeSettings(cache=False, num_points=min(1024, train.points.shape[1]))
    lines = []
    for how, seeds in TURNS.items():
        splits = (train, test)
        if seeds:
            splits = (turned(train, seeds[0]), turned(test, seeds[1]))
        for row in probe_clouds(contenders, *splits, settings, say=lambda line: None).rows:
            if row.protocol == CROSS_VALIDATED and row.metric == "accuracy":
                lines.append(
                    {
                        "key": record["key"],
                        "variant": row.encoder,
                        "seed": record["seed"],
                        "source": source,
                        "clouds": how,
                        "accuracy": row.value,
                        "ci95": row.ci95,
                        "n": row.n,
                        "encoder_sha256": row.encoder_sha256,
                    }
                )
    return lines


def final(records: list[dict[str, Any]], source: str, out: Path) -> list[str]:
    """Score every run that is not scored yet, and tell both tables.

    Args:
        records: of `benchmarks.recipes.run`.
        source: labelled clouds with a test split.
        out: folder of the runs; lines go into final.jsonl in it.
    """
    path = out / FINAL
    lines: list[dict[str, Any]] = []
    if path.exists():
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    done = {(line["key"], line["source"]) for line in lines}
    for record in records:
        if (record["key"], source) in done:
            continue
        made = score(record, source, out)
        lines += made
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    # A run may have been scored under the name of another variant with the same settings.
    wanted = [
        line if line["variant"] == "untrained" else {**line, "variant": record["variant"]}
        for record in records
        for line in lines
        if line["key"] == record["key"] and line["source"] == source
    ]
    return [*accuracies(wanted), "", *times(records)]


def accuracies(lines: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of accuracy on test in %, each seed, with the 95 % interval of the mean."""
    table = ["| clouds | variant | accuracy on test % (each seed) | 95 % |", "|---|---|---|---|"]
    for how in TURNS:
        own = [line for line in lines if line["clouds"] == how]
        for name in dict.fromkeys(line["variant"] for line in own):
            by_seed = {ln["seed"]: 100 * ln["accuracy"] for ln in own if ln["variant"] == name}
            values = [by_seed[seed] for seed in sorted(by_seed)]
            each = ", ".join(f"{value:.1f}" for value in values)
            mean, width = statistics.mean(values), interval(values)
            spread = f"± {width:.1f}" if len(values) > 1 else ""
            table.append(f"| {how} | {name} | {mean:.1f} ({each}) | {spread} |")
    return table


def times(records: list[dict[str, Any]]) -> list[str]:
    """A Markdown table: when each variant first had the last validation accuracy of each other.

    Seconds include a probe after each epoch, which all variants have.
    """
    table = ["| variant | reaches the last accuracy of | seed | epochs | seconds |"]
    table.append("|---|---|---|---|---|")
    for record in records:
        for other in records:
            if other["seed"] != record["seed"] or other["variant"] == record["variant"]:
                continue
            found = time_to(record["curve"], other["accuracy"])
            when = f"{found[0]} | {found[1]:.0f}" if found else "never | "
            goal = f"{other['variant']} ({100 * other['accuracy']:.1f} %)"
            table.append(f"| {record['variant']} | {goal} | {record['seed']} | {when} |")
    return table
