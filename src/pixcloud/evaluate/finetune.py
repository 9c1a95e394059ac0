"""Stage 9, fine-tuning: an encoder and labelled clouds (S, N, 3) -> a classifier, rows of results.

Before it: `pixcloud.evaluate.supervised`, `classification`, `classifier`. After it:
`pixcloud.evaluate.results`. The epoch is chosen on a part of the labels in use; test is read once,
by the classifier that was chosen.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.encoders import PointEncoder
from pixcloud.errors import ConfigError, DataError, some
from pixcloud.evaluate.classification import ClassificationTask
from pixcloud.evaluate.classifier import (
    KIND,
    PointClassifier,
    Voting,
    build_classifier,
    save_classifier,
)
from pixcloud.evaluate.features import first_points, require_points
from pixcloud.evaluate.finished import read_finished, write_finished
from pixcloud.evaluate.folds import held_out
from pixcloud.evaluate.label_subset import labelled_subset
from pixcloud.evaluate.metrics import (
    accuracy,
    class_mean_accuracy,
    correct_predictions,
    mcnemar_exact,
    wilson_interval,
)
from pixcloud.evaluate.neighbours import with_neighbours
from pixcloud.evaluate.outcomes import Outcomes, units_of
from pixcloud.evaluate.predictions import ProbeResult, save_predictions
from pixcloud.evaluate.probe import untrained
from pixcloud.evaluate.results import ResultRow, append_rows
from pixcloud.evaluate.saved_model import check_place
from pixcloud.evaluate.splits import check_splits
from pixcloud.evaluate.supervised import FitRecord, fit
from pixcloud.evaluate.training_settings import FinetuneConfig, FinetuneSettings, check_optim
from pixcloud.export import weights_sha256
from pixcloud.types import LabelledClouds

Say = Callable[[str], None]
SCRATCH = ", from scratch"


@dataclass(kw_only=True)
class FinetuneResult(ProbeResult):
    """Rows and predictions as of a probe, and the classifier of each (contender, fraction)."""

    title: str = "Fine-tuning"
    classifiers: dict[tuple[str, float], PointClassifier] = field(default_factory=dict)


@dataclass(kw_only=True, frozen=True)
class _Tested:
    """passes (V, T, K): probabilities of each; record of the fit; seconds that all took.

    model: the classifier; None where the rest was kept by a call that did not end.
    """

    passes: np.ndarray
    record: FitRecord
    seconds: float
    model_sha256: str
    model: PointClassifier | None = None

    def kept(self) -> dict[str, Any]:
        """All but the classifier, whose weights are no part of the results."""
        keys = ("passes", "seconds", "model_sha256")
        return {key: getattr(self, key) for key in keys} | {"record": self.record.as_json()}

    @classmethod
    def of(cls, kept: dict[str, Any]) -> _Tested:
        """What `kept` gave."""
        return cls(
            passes=kept["passes"],
            record=FitRecord.of_json(str(kept["record"])),
            seconds=float(kept["seconds"]),
            model_sha256=str(kept["model_sha256"]),
        )


def run_finetune(
    encoder: PointEncoder,
    encoder_name: str,
    train: LabelledClouds,
    test: LabelledClouds,
    config: FinetuneConfig,
    out: Path | None = None,
    say: Say = print,
    source: str = "",
) -> FinetuneResult:
    """Fine-tune an encoder for each fraction of the labels, beside one from scratch if wanted.

    Args:
        encoder: made by `build_encoder`; it is copied, and stays as it is.
        encoder_name: for the rows.
        train: the training split; a part of its labels in use chooses the epoch.
        test: the test split, of the same classes.
        config: of the evaluation; its encoder, data and out are for the command.
        out: results file to append to, or None to write nothing.
        say: takes each line for the reader.
        source: where the clouds were read, for the rows.

    Returns:
        Per contender and fraction two rows (accuracy, class-mean accuracy), and two more of the
        votes; the encoder's own rows hold the paired test in their settings (`against`).

    Raises:
        DataError: if the splits do not fit each other, or test has a class that train lacks.
        ConfigError: for settings out of range, or a k that does not fit.
        TrainingError: if the loss is not finite.
    """
    settings = config.finetune
    check_optim(config.optim)
    encoder = with_neighbours(encoder, settings.k, settings.num_points, "finetune.k")
    _check(encoder, train, test, config)
    contenders = {encoder_name: encoder}
    if config.baseline == "scratch":
        contenders[encoder_name + SCRATCH] = untrained(encoder, settings.seed)
    result = FinetuneResult(rows=[], labels=test.labels)
    for fraction in settings.fractions:
        kept = labelled_subset(train.labels, fraction, settings.seed)
        by_name = {}
        for name, each in contenders.items():
            # From scratch means all weights, also beside a frozen encoder.
            frozen = settings.freeze and name == encoder_name
            part = f"{'encoder' if name == encoder_name else 'scratch'}, {fraction} of labels"
            to_save = bool(config.save) and name == encoder_name
            # What was kept has no weights, so that what is to be saved is trained in any case.
            if not to_save and (done := read_finished(part, say)):
                tested = _Tested.of(done)
            else:
                tested = _fit_and_test(each, name, kept, train, test, config, frozen, say)
                write_finished(part, tested.kept())
            by_name[name] = tested
            if tested.model is not None:
                result.classifiers[name, fraction] = tested.model
            protocol = protocol_name(settings, fraction, frozen)
            details = _details(each, kept, train, config, tested, fraction, source)
            _add_rows(result, name, each, protocol, tested, test, details, settings)
        if len(by_name) > 1:
            _compare(result, fraction, encoder_name, by_name, test.labels, say)
    if config.save:
        model = result.classifiers[encoder_name, settings.fractions[0]]
        _save(config.save, model, encoder_name, encoder, train, say)
    if out is not None:
        _write(result, test, encoder, settings, out, say)
    return result


def _save(
    folder: str,
    model: PointClassifier,
    encoder_name: str,
    encoder: PointEncoder,
    train: LabelledClouds,
    say: Say,
) -> None:
    origin = {
        "encoder": encoder_name,
        "encoder_sha256": weights_sha256(encoder),
        "trained_on": f"{train.name} {train.split}",
    }
    save_classifier(folder, model, origin)
    say(f"classifier saved in {folder}")


def protocol_name(settings: FinetuneSettings, fraction: float, frozen: bool) -> str:
    """Name of the protocol in the rows.

    >>> protocol_name(FinetuneSettings(), 0.05, frozen=False)
    'fine-tuned, all weights, 5 % of labels'
    """
    what = f"frozen encoder, {settings.head} head" if frozen else "fine-tuned, all weights"
    return f"{what}, {100 * fraction:g} % of labels"


def _check(
    encoder: PointEncoder, train: LabelledClouds, test: LabelledClouds, config: FinetuneConfig
) -> None:
    settings = config.finetune
    check_splits(train, test)
    for clouds in (train, test):
        first_points(clouds.points, settings.num_points, "finetune.num_points")
    require_points(encoder, settings.num_points, "finetune.num_points")
    if len(np.unique(train.labels)) < 2:
        raise DataError(f"{train.name} {train.split}: a classifier needs at least two classes")
    if unseen := set(test.labels.tolist()) - set(train.labels.tolist()):
        names = some(test.classes[label] for label in sorted(unseen))
        raise DataError(
            f"{test.name} {test.split} holds classes that {train.split} lacks, and which nothing "
            f"can learn: {names}; add training clouds, or leave these classes out"
        )
    if config.save:
        check_place(config.save, KIND)
        if len(settings.fractions) > 1:
            raise ConfigError(
                f"save keeps one classifier, and finetune.fractions has {len(settings.fractions)}: "
                "give a single fraction"
            )


def _fit_and_test(
    encoder: PointEncoder,
    name: str,
    kept: np.ndarray,
    train: LabelledClouds,
    test: LabelledClouds,
    config: FinetuneConfig,
    frozen: bool,
    say: Say,
) -> _Tested:
    started, settings = time.perf_counter(), config.finetune
    held = held_out(train.labels[kept], settings.validation_share, settings.seed)
    task = ClassificationTask(
        points=train.points,
        labels=train.labels,
        places=kept[~held],
        validation=kept[held],
        num_points=settings.num_points,
        augment=config.augment,
        label_smoothing=config.fit.label_smoothing,
        seed=settings.seed,
    )
    model = build_classifier(
        encoder,
        train.classes,
        seed=settings.seed,
        frozen=frozen,
        head=settings.head,
        dropout=settings.dropout,
        num_points=settings.num_points,
    )
    title = f"{name}, {len(kept):,} of {len(train.labels):,} labels"
    record = fit(model, task, config.fit, config.optim, seed=settings.seed, title=title, say=say)
    voting = Voting(
        passes=settings.votes,
        scale=settings.vote_scale,
        rotation=settings.vote_rotation,
        seed=settings.seed,
    )
    often = f", {voting.passes} passes for the votes" if voting.passes > 1 else ""
    say(f"{title}: testing on {len(test.points):,} clouds{often}")
    passes = model.probabilities(test.points, voting=voting)
    seconds, sha256 = time.perf_counter() - started, weights_sha256(model)
    return _Tested(passes=passes, record=record, seconds=seconds, model_sha256=sha256, model=model)


def _details(
    encoder: PointEncoder,
    kept: np.ndarray,
    train: LabelledClouds,
    config: FinetuneConfig,
    tested: _Tested,
    fraction: float,
    source: str,
) -> dict[str, Any]:
    """What the numbers depend on, as JSON values."""
    record, settings = tested.record, config.finetune
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
        "validation_accuracy": record.score[0] if record.score else None,
        "model_sha256": tested.model_sha256,
        "finetune": dataclasses.asdict(settings) | {"fractions": list(settings.fractions)},
        "fit": dataclasses.asdict(config.fit),
        "optim": dataclasses.asdict(config.optim),
        "augment": dataclasses.asdict(config.augment),
        "source": source,
    }


def _add_rows(
    result: FinetuneResult,
    name: str,
    encoder: PointEncoder,
    protocol: str,
    tested: _Tested,
    test: LabelledClouds,
    details: dict[str, Any],
    settings: FinetuneSettings,
) -> None:
    predictions = {protocol: tested.passes[0].argmax(axis=1)}
    if settings.votes > 1:
        voted = tested.passes.mean(axis=0).argmax(axis=1)
        predictions[f"{protocol}, {settings.votes} votes"] = voted
    n = len(test.labels)
    for label, predicted in predictions.items():
        result.predictions[name, label] = predicted
        correct = correct_predictions(predicted, test.labels)
        right = int(correct.sum())
        metrics: dict[str, tuple[float, tuple[float, float] | None]] = {
            "accuracy": (right / n, wilson_interval(right, n)),
            "class_mean_accuracy": (class_mean_accuracy(predicted, test.labels), None),
        }
        result.rows += [
            ResultRow(
                protocol=label,
                dataset=test.name,
                split=test.split,
                metric=metric,
                value=value,
                ci95=interval,
                n=n,
                seed=settings.seed,
                encoder=name,
                encoder_sha256=weights_sha256(encoder),
                settings=dict(details),
                seconds=round(tested.seconds, 3),
                outcomes=Outcomes(correct, units_of(test), True) if interval else None,
            )
            for metric, (value, interval) in metrics.items()
        ]


def _compare(
    result: FinetuneResult,
    fraction: float,
    name: str,
    by_name: dict[str, _Tested],
    labels: np.ndarray,
    say: Say,
) -> None:
    """McNemar's test of the single passes, said and kept in the rows that they are of."""
    ours = by_name[name].passes[0].argmax(axis=1)
    for other, tested in by_name.items():
        if other == name:
            continue
        theirs = tested.passes[0].argmax(axis=1)
        p = mcnemar_exact(ours, theirs, labels)
        gain = accuracy(ours, labels) - accuracy(theirs, labels)
        say(
            f"{100 * fraction:g} % of labels: {name} against {other}: {100 * gain:+.1f} points "
            f"(McNemar exact p = {p:.2g})"
        )
        for row in result.rows:
            of_this = row.encoder == name and row.settings["fraction"] == fraction
            if of_this and not row.protocol.endswith(" votes"):
                row.settings["against"] = {"encoder": other, "gain": gain, "mcnemar_p": p}


def _write(
    result: FinetuneResult,
    test: LabelledClouds,
    encoder: PointEncoder,
    settings: FinetuneSettings,
    out: Path,
    say: Say,
) -> None:
    if settings.save_predictions:
        stem = f"finetune-{test.name}-{weights_sha256(encoder)[:12]}-seed{settings.seed}"
        path = out.parent / "predictions" / f"{stem}.npz"
        save_predictions(path, result)
        say(f"predictions written to {path}")
    append_rows(out, result.rows)
