"""Stage 10, comparison: several `RunRecord` -> tables and curves side by side.

Before it: `pixcloud.report.record` and `sections`. After it: `pixcloud.report.page`.
"""

from __future__ import annotations

from typing import Any

from pixcloud.config import flatten
from pixcloud.evaluate.results import table_of
from pixcloud.report import charts
from pixcloud.report.markup import (
    Html,
    duration,
    figure,
    interval,
    join,
    percent,
    section,
    significant,
    table,
    tag,
)
from pixcloud.report.record import PRETRAINED, UNTRAINED, RunRecord
from pixcloud.report.sections import encoder_name, results_table

IGNORED = ("run", "resume")


def header(records: list[RunRecord]) -> Html:
    """What stands side by side."""
    invented = [record.name for record in records if record.synthetic]
    lede = "Pre-training runs side by side: " + ", ".join(record.name for record in records) + "."
    every = len(invented) == len(records)
    words = "synthetic data" if every else f"synthetic data: {', '.join(invented)}"
    badge = tag("ul", tag("li", words, class_="warn"), class_="badges") if invented else None
    return join([tag("p", lede, class_="lede"), badge])


def missing(records: list[RunRecord]) -> Html | None:
    """What the runs do not have yet."""
    items = [
        tag("li", tag("strong", f"{record.name}: "), sentence)
        for record in records
        for sentence in record.missing
    ]
    if not items:
        return None
    return tag("div", tag("h2", "What is missing"), tag("ul", *items), class_="missing")


def summary(records: list[RunRecord]) -> Html:
    """One column for each run."""
    lines: list[tuple[str, list[str]]] = [
        ("encoder", [encoder_name(r) for r in records]),
        ("picture tower", [r.config.image.name for r in records]),
        ("data", [r.config.data.source for r in records]),
        ("epochs", [f"{r.epochs_done} of {r.config.trainer.epochs}" for r in records]),
        ("pairs seen", [f"{r.pairs_seen:,}" for r in records]),
        ("training time", [duration(r.seconds) for r in records]),
        ("rate", [f"{significant(r.rate)} pairs/s" if r.rate else "–" for r in records]),
        ("last intra-modal loss", [_loss(r, "intra") for r in records]),
        ("last cross-modal loss", [_loss(r, "cross") for r in records]),
        ("probe, pre-trained", [_accuracy(r, PRETRAINED) for r in records]),
        ("probe, untrained", [_accuracy(r, UNTRAINED) for r in records]),
        ("scored on", [_dataset(r) for r in records]),
    ]
    rows = [[tag("strong", name), *cells] for name, cells in lines]
    lead = "Probe: linear SVM on frozen features, accuracy with its 95 % interval."
    return section("summary", "At a glance", lead, table(["", *names(records)], rows))


def names(records: list[RunRecord]) -> list[str]:
    """Names of the runs."""
    return [record.name for record in records]


def _loss(record: RunRecord, key: str) -> str:
    return f"{(record.epochs or record.steps)[-1][key]:.3f}"


def _accuracy(record: RunRecord, role: str) -> str:
    row = record.headline().get(role)
    if row is None:
        return "–"
    return f"{percent(row.value)} ({interval(row.ci95)})" if row.ci95 else percent(row.value)


def _dataset(record: RunRecord) -> str:
    row = record.headline().get(PRETRAINED)
    return f"{row.dataset} {row.split}, n = {row.n:,}" if row else "–"


def results(records: list[RunRecord]) -> Html:
    """Bars of all runs, one row per evaluation side by side, and every row below."""
    if not any(record.rows for record in records):
        words = tag("p", "No evaluation has been run yet.", class_="note")
        return section("results", "What they are worth", None, words)
    chart = charts.bars(records)
    count = sum(len(record.latest()) for record in records)
    bars = (
        None
        if chart is None
        else figure(
            "bars",
            "accuracies of all runs with 95 % intervals; the tables below have the numbers",
            chart,
            "Accuracy on the test split with 95 % intervals, one colour for each run.",
            90 + 48 * count,
        )
    )
    every = tag("details", tag("summary", "Every row of the results"), results_table(records))
    return section("results", "What they are worth", None, bars, _side_by_side(records), every)


def _side_by_side(records: list[RunRecord]) -> Html:
    """Contender, protocol, data and metric -> the last value in each run."""
    kinds = sorted({table_of(row.protocol) for record in records for row in record.rows})
    return join(_side_by_side_of_kind(records, kind) for kind in kinds)


def _side_by_side_of_kind(records: list[RunRecord], kind: str) -> Html:
    found: dict[tuple[str, ...], dict[int, str]] = {}
    for place, record in enumerate(records):
        for metric in dict.fromkeys(row.metric for row in record.rows):
            for (role, encoder, protocol, dataset), row in record.latest(metric).items():
                if table_of(protocol) != kind:
                    continue
                who = role if role in (PRETRAINED, UNTRAINED) else encoder
                key = (who, charts.short(protocol), dataset, metric.replace("_", " "))
                ends = f" ({interval(row.ci95)})" if row.ci95 else ""
                found.setdefault(key, {})[place] = f"{percent(row.value)}{ends}"
    rows = [
        [*key, *(values.get(place, "–") for place in range(len(records)))]
        for key, values in found.items()
    ]
    head = ["encoder", "protocol", "data", "metric", *names(records)]
    return table(head, rows, range(4, len(head)), class_="results")


def settings(records: list[RunRecord]) -> Html:
    """The settings in which the runs differ."""
    flat: list[dict[str, Any]] = [flatten(record.config) for record in records]
    rows = [
        [tag("code", key), *(str(values[key]) for values in flat)]
        for key in flat[0]
        if key not in IGNORED and any(values[key] != flat[0][key] for values in flat)
    ]
    if not rows:
        words = tag("p", "All settings are equal.", class_="note")
        return section("settings", "What differs", None, words)
    lead = "Settings in which the runs differ; all others are equal."
    return section("settings", "What differs", lead, table(["setting", *names(records)], rows))
