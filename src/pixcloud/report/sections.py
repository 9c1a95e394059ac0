"""Stage 10, sections of one run: `RunRecord` -> header, headline numbers, results and curves.

Before it: `pixcloud.report.record` and `charts`. After it: `pixcloud.report.page`.
"""

from __future__ import annotations

from collections.abc import Iterable

from pixcloud.evaluate.results import ResultRow, table_of
from pixcloud.report import charts
from pixcloud.report.markup import (
    Html,
    duration,
    figure,
    interval,
    join,
    percent,
    plural,
    section,
    significant,
    table,
    tag,
)
from pixcloud.report.record import HANDMADE, OTHER, PRETRAINED, UNTRAINED, RunRecord

CONTENDERS = {
    PRETRAINED: "Pre-trained encoder",
    UNTRAINED: "Same encoder, untrained",
    HANDMADE: "Hand-made descriptor",
}
SHORT_SOURCE = 48


def header(record: RunRecord) -> Html:
    """What the run is, in a sentence and a row of badges."""
    config = record.config
    recipe = f"recipe {config.recipe}" if config.recipe else "no recipe"
    lede = (
        f"A {encoder_name(record)} point encoder, pre-trained without labels on pairs of clouds "
        f"and pictures with {config.image.name} as picture tower ({recipe}, seed {config.seed})."
    )
    trainer = config.trainer
    state = "complete" if record.finished else "not finished"
    badges = [
        tag("li", "synthetic data", class_="warn") if record.synthetic else None,
        tag(
            "li",
            f"{state}: {record.epochs_done} of {plural(trainer.epochs, 'epoch')}",
            class_=None if record.finished else "warn",
        ),
        tag("li", f"data {shortened(config.data.source)}", title=config.data.source),
        tag("li", f"{trainer.device}, {precision(trainer.precision)}"),
    ]
    return join([tag("p", lede, class_="lede"), tag("ul", *badges, class_="badges")])


def encoder_name(record: RunRecord) -> str:
    """The encoder as the field writes it.

    Known abbreviations are in capitals; another name stays as it is.
    """
    return {"dgcnn": "DGCNN", "pointnet": "PointNet", "pct": "PCT"}.get(
        record.config.encoder.name, record.config.encoder.name
    )


def shortened(source: str) -> str:
    """The end of a long path.

    >>> shortened("pairs:/data"), len(shortened("pairs:" + 100 * "x"))
    ('pairs:/data', 49)
    """
    return source if len(source) <= SHORT_SOURCE else "…" + source[-SHORT_SOURCE:]


def precision(name: str) -> str:
    """The precision of training in words."""
    return {"32": "fp32", "bf16": "bf16 mixed precision"}.get(name, name)


def missing(record: RunRecord) -> Html | None:
    """What the run does not have yet, and how to get it."""
    if not record.missing:
        return None
    return tag(
        "div",
        tag("h2", "What is missing"),
        tag("ul", *(tag("li", sentence) for sentence in record.missing)),
        class_="missing",
    )


def tile(label: str, value: str, unit: str, notes: list[str], main: bool = False) -> Html:
    """One headline number with its unit."""
    return tag(
        "div",
        tag("p", label, class_="label"),
        tag("p", value, tag("small", f" {unit}") if unit else None, class_="value"),
        tag("p", join(tag("span", note) for note in notes), class_="sub"),
        class_="tile main" if main else "tile",
    )


def tiles(record: RunRecord) -> Html:
    """The numbers that matter first: accuracies with intervals, then size, time and rate."""
    rows = record.headline()
    parts = [
        tile(name, f"{100 * rows[role].value:.1f}", "%", _notes(rows[role]), role == PRETRAINED)
        for role, name in CONTENDERS.items()
        if role in rows
    ]
    trainer = record.config.trainer
    size = [f"{record.last_step:,} steps", f"of {plural(record.pairs_per_step, 'pair')}"]
    machine = [trainer.device]
    if trainer.device == "cpu":
        machine.append(plural(trainer.threads, "thread"))
    parts += [
        tile("Pairs seen", f"{record.pairs_seen:,}", "", size),
        tile("Training time", duration(record.seconds), "", machine),
    ]
    if record.rate is not None:
        parts.append(tile("Rate", significant(record.rate), "pairs/s", ["median of the log"]))
    return tag("div", *parts, class_="tiles")


def _notes(row: ResultRow) -> list[str]:
    size = f"n = {row.n:,}, {row.dataset}"
    return [f"95 %: {interval(row.ci95)}", size] if row.ci95 else [size]


def verdict(record: RunRecord) -> str | None:
    """The difference that pre-training made, with the caution that it needs."""
    rows = record.headline()
    if PRETRAINED not in rows:
        return None
    own = rows[PRETRAINED]
    sentences = []
    for role, name in ((UNTRAINED, "the same encoder untrained"), (HANDMADE, "the descriptor")):
        if role in rows:
            other = rows[role]
            gain = 100 * (own.value - other.value)
            apart = (
                own.ci95
                and other.ci95
                and (own.ci95[0] > other.ci95[1] or other.ci95[0] > own.ci95[1])
            )
            caution = "" if apart else " (the intervals overlap)"
            sentences.append(f"{gain:+.1f} points against {name}{caution}")
    data = f"{own.dataset} {own.split}"
    if not sentences:
        return f"Linear probe on frozen features, {data}."
    return f"Linear probe on frozen features, {data}: {' and '.join(sentences)}."


def results(record: RunRecord) -> Html:
    """Bars with intervals and the table of all rows."""
    title = "What it is worth"
    if not record.rows:
        words = "No evaluation has been run yet."
        return section("results", title, None, tag("p", words, class_="note"))
    chart = charts.bars([record])
    count = len(record.latest())
    bars = (
        None
        if chart is None
        else figure(
            "bars",
            "accuracy of each encoder and protocol; the table below has the numbers",
            chart,
            "Accuracy on the test split; where an evaluation was run again, its last result. Fair "
            "comparisons choose C by cross-validation on train; the published protocol fixes it.",
            90 + 54 * count,
        )
    )
    return section("results", title, verdict(record), bars, results_table([record]))


def results_table(records: list[RunRecord]) -> Html:
    """All rows of results.jsonl, in order; several runs under one another.

    What must not be compared, such as the two ways of few-shot, stands in tables of its own.
    """
    kinds = sorted({table_of(row.protocol) for record in records for row in record.rows})
    return join(_table_of_kind(records, kind) for kind in kinds)


def _table_of_kind(records: list[RunRecord], kind: str) -> Html:
    several = len(records) > 1
    own = [
        (record, row) for record in records for row in record.rows if table_of(row.protocol) == kind
    ]
    # What a number is to be read with: the C of a linear SVM, the chance level of retrieval.
    known = {key for _, row in own for key in row.settings}
    beside: list[str] = [key for key in ("c", "chance") if key in known]
    heads = [{"c": "C"}.get(key, key) for key in beside]
    head = ["encoder", "protocol", "data", "metric", "value", "95 % interval", *heads, "n", "seed"]
    rows = [
        [*([record.name] if several else []), *_cells(record, row, beside)] for record, row in own
    ]
    numeric = range(4 + several, len(head) + several)  # from the value on
    return table(["run", *head] if several else head, rows, numeric, class_="results")


def _cells(record: RunRecord, row: ResultRow, beside: list[str]) -> list[str]:
    role = record.role(row)
    named = f"{row.encoder} (not this run's encoder)" if role == OTHER and record.sha256 else None
    return [
        named or row.encoder,
        tag("span", charts.short(row.protocol), title=row.protocol),
        f"{row.dataset} {row.split}",
        row.metric.replace("_", " "),
        tag("strong", percent(row.value)) if 0 <= row.value <= 1 else significant(row.value),
        interval(row.ci95),
        *(_beside(key, row.settings.get(key)) for key in beside),
        f"{row.n:,}",
        str(row.seed),
    ]


def _beside(key: str, value: object) -> str:
    if not isinstance(value, int | float):
        return "–"
    return percent(value) if key == "chance" else f"{value:.3g}"


def _chance(records: list[RunRecord]) -> str:
    """In brackets, what a random order would find of the held-out pairs."""
    levels = [
        line["chance_recall_1"] for r in records for line in r.epochs if "chance_recall_1" in line
    ]
    if not levels:
        return ""
    low, high = (f"{100 * level:.2g}" for level in (min(levels), max(levels)))
    return f" (by chance {low if low == high else f'{low} to {high}'} %)"


def curves(records: list[RunRecord]) -> Html:
    """Losses of all runs in one picture, then what else was logged."""
    sizes = sorted({record.config.trainer.batch_size for record in records})
    guess = " and ".join(f"{charts.chance(size):.2f} for batches of {size}" for size in sizes)
    caption = (
        "Thin: logged steps; thick with marks: means of epochs. Lower is better; the dashed line "
        f"is what guessing costs ({guess})."
    )
    thinned = max(len(record.steps) for record in records) > charts.MOST_POINTS
    if thinned:
        caption += f" Neighbouring log lines are averaged to at most {charts.MOST_POINTS:,}."
    label = "both NT-Xent losses, intra-modal and cross-modal, against pairs seen"
    main = figure("losses", label, charts.losses(records), caption, 420)
    note = "" if len(records) == 1 else " Colours as above."
    small = [
        figure(name, words, spec, words + note, 250)
        for name, words, spec in (
            (
                "probe",
                "Validation accuracy of the linear probe, on a part of the train split.",
                charts.validation(records),
            ),
            (
                "recall",
                "Recall at 1 of clouds by pictures, on the pairs that are held out"
                f"{_chance(records)}.",
                charts.single(records, "picture_to_cloud_recall_1", "recall at 1"),
            ),
            ("lr", "Learning rate.", charts.single(records, "lr", "learning rate")),
            (
                "rate",
                "Pairs per second, between lines of the log.",
                charts.single(records, "pairs_per_s", "pairs/s", " pairs/s"),
            ),
            (
                "memory",
                "Memory of the training process.",
                charts.single(records, "memory_mib", "memory (MiB)", " MiB"),
            ),
        )
        if spec is not None
    ]
    return section(
        "curves", "How it learned", last_losses(records), main, tag("div", *small, class_="row")
    )


def last_losses(records: Iterable[RunRecord]) -> str:
    """The last known losses, in words."""
    said = []
    records = list(records)
    for record in records:
        line = (record.epochs or record.steps)[-1]
        what = f"epoch {line['epoch'] + 1}" if record.epochs else f"step {line['step']:,}"
        name = f"{record.name}, " if len(records) > 1 else ""
        said.append(f"{name}{what}: intra {line['intra']:.3f}, cross {line['cross']:.3f}")
    return "Last losses: " + "; ".join(said) + "."
