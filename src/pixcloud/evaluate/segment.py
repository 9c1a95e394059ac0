"""Stage 9, part segmentation: an encoder and clouds with parts -> a segmenter, rows of results.

Before it: `pixcloud.evaluate.supervised`, `segmentation`, `segmenter`, `part_metrics`,
`part_splits`. After it: `pixcloud.evaluate.results`. The epoch is chosen on a part of the shapes in
use; test is read once, by the segmenter that was chosen.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.data.shapenetpart import part_offsets
from pixcloud.encoders import PointEncoder
from pixcloud.evaluate.finished import read_finished, write_finished
from pixcloud.evaluate.folds import held_out
from pixcloud.evaluate.label_subset import labelled_subset
from pixcloud.evaluate.neighbours import with_neighbours
from pixcloud.evaluate.outcomes import Outcomes, units_of
from pixcloud.evaluate.part_metrics import (
    PartScores,
    paired_difference,
    part_scores,
    share_interval,
)
from pixcloud.evaluate.part_result import RULES, SegmentResult
from pixcloud.evaluate.part_splits import check_parts
from pixcloud.evaluate.probe import untrained
from pixcloud.evaluate.results import ResultRow, append_rows
from pixcloud.evaluate.segment_settings import SegmentConfig
from pixcloud.evaluate.segmentation import SegmentationTask
from pixcloud.evaluate.segmenter import (
    PointSegmenter,
    best_parts,
    build_segmenter,
    save_segmenter,
)
from pixcloud.evaluate.supervised import FitRecord, fit
from pixcloud.evaluate.training_settings import check_optim
from pixcloud.export import weights_sha256
from pixcloud.types import LabelledClouds

Say = Callable[[str], None]
SCRATCH = ", from scratch"


@dataclasses.dataclass(kw_only=True, frozen=True)
class _Tested:
    """scores: of each rule of `RULES`; record of the fit; seconds that all took.

    model: the segmenter; None where the rest was kept by a call that did not end.
    """

    scores: dict[str, PartScores]
    record: FitRecord
    seconds: float
    model_sha256: str
    model: PointSegmenter | None = None

    def kept(self) -> dict[str, Any]:
        """All but the segmenter, whose weights are no part of the results."""
        return {
            "record": self.record.as_json(),
            "seconds": self.seconds,
            "model_sha256": self.model_sha256,
            **{f"ious, {rule}": scores.ious for rule, scores in self.scores.items()},
            **{f"means, {rule}": scores.means_as_json() for rule, scores in self.scores.items()},
        }

    @classmethod
    def of(cls, kept: dict[str, Any]) -> _Tested:
        """What `kept` gave."""
        return cls(
            scores={
                rule: PartScores.of_json(kept[f"ious, {rule}"], str(kept[f"means, {rule}"]))
                for rule in RULES
            },
            record=FitRecord.of_json(str(kept["record"])),
            seconds=float(kept["seconds"]),
            model_sha256=str(kept["model_sha256"]),
        )


def run_segment(
    encoder: PointEncoder,
    encoder_name: str,
    train: LabelledClouds,
    test: LabelledClouds,
    config: SegmentConfig,
    out: Path | None = None,
    say: Say = print,
    source: str = "",
) -> SegmentResult:
    """Train a segmenter for each fraction of the shapes, beside one from scratch if wanted.

    Args:
        encoder: made by `build_encoder`, with per-point features; it is copied, and stays as it is.
        encoder_name: for the rows.
        train: shapes with parts; some of those in use choose the epoch.
        test: the test split, of the same categories and parts.
        config: of the evaluation; its encoder, data and out are for the command.
        out: results file to append to, or None to write nothing.
        say: takes each line for the reader.
        source: where the shapes were read, for the rows.

    Returns:
        Per contender, fraction and rule three rows (instance mIoU, class mIoU, point accuracy). Of
        the two rules, one takes the best of all parts and the other the best of those of the
        shape's category; the literature has both, and they cannot be compared.

    Raises:
        DataError: if the splits do not fit each other or have no parts, or test has a category that
            train lacks.
        ConfigError: for settings out of range, a k that does not fit, or an encoder without
            per-point features.
        TrainingError: if the loss is not finite.
    """
    settings = config.segment
    check_optim(config.optim)
    encoder = with_neighbours(encoder, settings.k, settings.num_points, "segment.k")
    check_parts(encoder, train, test, config)
    contenders = {encoder_name: encoder}
    if config.baseline == "scratch":
        contenders[encoder_name + SCRATCH] = untrained(encoder, settings.seed)
    result = SegmentResult(rows=[])
    for fraction in settings.fractions:
        kept = labelled_subset(train.labels, fraction, settings.seed)
        by_name = {}
        for name, each in contenders.items():
            # From scratch means all weights, also beside a frozen encoder.
            frozen = settings.freeze and name == encoder_name
            part = f"{'encoder' if name == encoder_name else 'scratch'}, {fraction} of shapes"
            to_save = bool(config.save) and name == encoder_name
            # What was kept has no weights, so that what is to be saved is trained in any case.
            if not to_save and (done := read_finished(part, say)):
                tested = _Tested.of(done)
            else:
                tested = _fit_and_test(each, name, kept, train, test, config, frozen, say)
                write_finished(part, tested.kept())
            by_name[name] = tested
            if tested.model is not None:
                result.segmenters[name, fraction] = tested.model
            details = _details(each, kept, train, config, tested, fraction, source)
            for rule, scores in tested.scores.items():
                result.scores[name, fraction, rule] = scores
                protocol = protocol_name(fraction, frozen, rule)
                of_rule = details | {"rule": rule, "categories": _by_category(scores, test)}
                result.rows += _rows(name, each, protocol, tested, scores, test, of_rule, settings)
        if len(by_name) > 1:
            _compare(result, fraction, encoder_name, say)
    if config.save:
        origin = {"encoder": encoder_name, "encoder_sha256": weights_sha256(encoder)}
        model = result.segmenters[encoder_name, settings.fractions[0]]
        save_segmenter(config.save, model, origin | {"trained_on": f"{train.name} {train.split}"})
        say(f"segmenter saved in {config.save}")
    if out is not None:
        append_rows(out, result.rows)
    return result


def protocol_name(fraction: float, frozen: bool, rule: str) -> str:
    """Name of the protocol in the rows.

    >>> protocol_name(0.05, False, "any part")
    'part segmentation, all weights, 5 % of shapes (any part)'
    """
    what = "frozen encoder" if frozen else "all weights"
    return f"part segmentation, {what}, {100 * fraction:g} % of shapes ({rule})"


def _fit_and_test(
    encoder: PointEncoder,
    name: str,
    kept: np.ndarray,
    train: LabelledClouds,
    test: LabelledClouds,
    config: SegmentConfig,
    frozen: bool,
    say: Say,
) -> _Tested:
    started, settings = time.perf_counter(), config.segment
    assert train.part_names is not None
    held = held_out(train.labels[kept], settings.validation_share, settings.seed)
    task = SegmentationTask(
        clouds=train,
        places=kept[~held],
        validation=kept[held],
        num_points=settings.num_points,
        augment=config.augment,
        label_smoothing=config.fit.label_smoothing,
        seed=settings.seed,
        score_batch=settings.batch_size,
    )
    model = build_segmenter(
        encoder,
        train.part_names,
        seed=settings.seed,
        frozen=frozen,
        dropout=settings.dropout,
        num_points=settings.num_points,
        part_labels=train.part_labels,
    )
    title = f"{name}, {len(kept):,} of {len(train.labels):,} shapes"
    record = fit(model, task, config.fit, config.optim, seed=settings.seed, title=title, say=say)
    scores = score_parts(model, test, settings.batch_size)
    seconds, sha256 = time.perf_counter() - started, weights_sha256(model)
    return _Tested(scores=scores, record=record, seconds=seconds, model_sha256=sha256, model=model)


def score_parts(
    model: PointSegmenter, test: LabelledClouds, batch_size: int = 32
) -> dict[str, PartScores]:
    """The scores of a segmenter on clouds with parts, by each rule of `RULES`.

    Args:
        model: the segmenter.
        test: clouds with parts, of the model's categories.
        batch_size: clouds at a time; no number depends on it.

    Raises:
        DataError: as `PointSegmenter.logits` and `part_scores`.
    """
    assert test.parts is not None
    names = model.part_names
    count = min(model.num_points, test.points.shape[1])
    found = {rule: np.empty((len(test.points), count), np.int64) for rule in RULES}
    for some_, logits in model.logits(test.points, test.labels, batch_size=batch_size):
        found[RULES[0]][some_] = best_parts(logits, test.labels[some_], names)
        found[RULES[1]][some_] = logits.argmax(axis=2)
    offsets, truth = part_offsets(names), test.parts[:, :count]
    return {rule: part_scores(parts, truth, test.labels, offsets) for rule, parts in found.items()}


def _by_category(scores: PartScores, test: LabelledClouds) -> dict[str, Any]:
    return {
        test.classes[label]: {"miou": mean, "n": n}
        for label, (mean, n) in scores.by_category.items()
    }


def _details(
    encoder: PointEncoder,
    kept: np.ndarray,
    train: LabelledClouds,
    config: SegmentConfig,
    tested: _Tested,
    fraction: float,
    source: str,
) -> dict[str, Any]:
    """What the numbers depend on, as JSON values."""
    record, settings = tested.record, config.segment
    held = held_out(train.labels[kept], settings.validation_share, settings.seed)
    return {
        "architecture": encoder.spec,
        "fraction": fraction,
        "train_split": train.split,
        "train_n": int((~held).sum()),
        "validation_n": int(held.sum()),
        "selection": "validation part of train" if held.any() else "last epoch",
        "epoch": record.epoch,
        "epochs_run": record.epochs,
        "validation_miou": record.score[0] if record.score else None,
        "model_sha256": tested.model_sha256,
        "segment": dataclasses.asdict(settings) | {"fractions": list(settings.fractions)},
        "fit": dataclasses.asdict(config.fit),
        "optim": dataclasses.asdict(config.optim),
        "augment": dataclasses.asdict(config.augment),
        "source": source,
    }


def _rows(
    name: str,
    encoder: PointEncoder,
    protocol: str,
    tested: _Tested,
    scores: PartScores,
    test: LabelledClouds,
    details: dict[str, Any],
    settings: Any,
) -> list[ResultRow]:
    metrics: dict[str, tuple[float, tuple[float, float] | None]] = {
        "instance_mIoU": (scores.instance_miou, share_interval(scores.ious)),
        "class_mIoU": (scores.class_miou, None),
        "point_accuracy": (scores.accuracy, None),
    }
    return [
        ResultRow(
            protocol=protocol,
            dataset=test.name,
            split=test.split,
            metric=metric,
            value=value,
            ci95=interval,
            n=len(test.labels),
            seed=settings.seed,
            encoder=name,
            encoder_sha256=weights_sha256(encoder),
            settings=dict(details),
            seconds=round(tested.seconds, 3),
            outcomes=Outcomes(scores.ious, units_of(test)) if interval else None,
        )
        for metric, (value, interval) in metrics.items()
    ]


def _compare(result: SegmentResult, fraction: float, name: str, say: Say) -> None:
    """Paired difference of instance mIoU, said and kept in the rows that it is of."""
    for rule in RULES:
        ours = result.scores[name, fraction, rule].ious
        theirs = result.scores[name + SCRATCH, fraction, rule].ious
        if len(ours) < 2:
            continue
        gain, (low, high), p = paired_difference(ours, theirs)
        say(
            f"{100 * fraction:g} % of shapes ({rule}): {name} against {name}{SCRATCH}: "
            f"{100 * gain:+.1f} points of instance mIoU ({100 * low:+.1f} to {100 * high:+.1f}; "
            f"paired t p = {p:.2g})"
        )
        for row in result.rows:
            of_this = row.encoder == name and row.settings["fraction"] == fraction
            if of_this and row.settings["rule"] == rule:
                against = {"encoder": name + SCRATCH, "gain": gain, "ci95": [low, high], "p": p}
                row.settings["against"] = against
