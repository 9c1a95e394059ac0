"""Stage 9, few-shot: an encoder and trials of few labelled clouds -> accuracy over the trials.

Before it: `pixcloud.evaluate.few_shot_folds`, and `features` with `svm` (CrossPoint's way) or
`supervised` (Point-BERT's way). After it: `pixcloud.evaluate.results`. The two ways differ in what
they may learn from and what they are scored on, so that their numbers never share a table.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixcloud.encoders import PointEncoder
from pixcloud.evaluate.classification import ClassificationTask
from pixcloud.evaluate.classifier import PointClassifier, build_classifier
from pixcloud.evaluate.features import cached_features, embed_clouds, first_points, require_points
from pixcloud.evaluate.few_shot_folds import (
    CROSSPOINT,
    POINT_BERT,
    Folds,
    Trial,
    draw_folds,
    read_folds,
    store_folds,
)
from pixcloud.evaluate.finished import read_finished, write_finished
from pixcloud.evaluate.metrics import accuracy, mean_interval, sign_flip_test
from pixcloud.evaluate.outcomes import Outcomes
from pixcloud.evaluate.probe import untrained
from pixcloud.evaluate.results import ResultRow, append_rows, synthetic_mark
from pixcloud.evaluate.splits import check_splits
from pixcloud.evaluate.supervised import fit
from pixcloud.evaluate.svm import fit_predict
from pixcloud.evaluate.training_settings import FewShotConfig, FewShotSettings, check_optim
from pixcloud.export import weights_sha256
from pixcloud.types import LabelledClouds

if TYPE_CHECKING:
    from rich.table import Table

Say = Callable[[str], None]
WORDS = {
    CROSSPOINT: "CrossPoint: queries from train, frozen, SVM",
    POINT_BERT: "Point-BERT: queries from test, fine-tuned",
}


@dataclass(kw_only=True)
class FewShotResult:
    """rows, one per contender; folds; accuracies: contender -> (trials,) shares in [0, 1]."""

    rows: list[ResultRow]
    folds: Folds
    accuracies: dict[str, np.ndarray] = field(default_factory=dict)

    def __rich__(self) -> Table:
        from rich.table import Table

        folds = self.folds
        table = Table(
            title=f"Few-shot, {folds.ways} ways, {folds.shots} shots ({WORDS[folds.protocol]})"
            + synthetic_mark(self.rows),
            caption=f"{folds.dataset}, {len(folds.trials)} trials of seed {folds.seed}",
        )
        table.add_column("encoder")
        for name in ("mean", "sd", "95 % interval"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.rows:
            low, high = row.ci95 or (row.value, row.value)
            cells = [f"{100 * row.value:.1f}", f"{100 * row.settings['sd']:.1f}"]
            table.add_row(row.encoder, *cells, f"{100 * low:.1f} to {100 * high:.1f}")
        return table


def run_few_shot(
    encoder: PointEncoder,
    encoder_name: str,
    train: LabelledClouds,
    test: LabelledClouds,
    config: FewShotConfig,
    out: Path | None = None,
    say: Say = print,
    source: str = "",
) -> FewShotResult:
    """Score an encoder on few-shot trials, beside its baseline on the same ones.

    Args:
        encoder: made by `build_encoder`; it stays as it is.
        encoder_name: for the rows.
        train: the training split.
        test: the test split; CrossPoint's way looks at its labels only to tell data apart.
        config: of the evaluation; its encoder, data and out are for the command.
        out: results file to append to (the folds go into a folder `folds` beside it), or None to
            write nothing.
        say: takes each line for the reader.
        source: where the clouds were read, for the rows.

    Raises:
        ConfigError: if there are fewer classes than ways, or settings are out of range.
        DataError: if a class has too few clouds, or the folds' file is of other data.
        TrainingError: if a loss is not finite.
    """
    settings, protocol = config.fewshot, config.protocol
    check_optim(config.optim)
    check_splits(train, test)
    for clouds in (train, test) if protocol == POINT_BERT else (train,):
        first_points(clouds.points, settings.num_points, "fewshot.num_points")
    require_points(encoder, settings.num_points, "fewshot.num_points")
    folds = _folds(config, train, test)
    contenders = {encoder_name: encoder}
    if settings.baseline:
        word = "untrained" if protocol == CROSSPOINT else "from scratch"
        contenders[f"{encoder_name}, {word}"] = untrained(encoder, settings.seed)
    stored = store_folds(out.parent / "folds", folds) if out is not None else None
    result = FewShotResult(rows=[], folds=folds)
    for name, each in contenders.items():
        started = time.perf_counter()
        if protocol == CROSSPOINT:
            shares = _svm_accuracies(each, name, train, folds, settings, say)
        else:
            whose = "encoder" if name == encoder_name else "from scratch"
            shares = _fine_tuned_accuracies(each, name, whose, train, test, folds, config, say)
        result.accuracies[name] = shares
        details = _details(each, config, folds, stored, shares, source)
        seconds = time.perf_counter() - started
        row = _row(name, each, folds, settings.seed, shares, details, seconds)
        result.rows.append(row)
    _compare(result, encoder_name, say)
    if out is not None:
        append_rows(out, result.rows)
    return result


def protocol_name(folds: Folds) -> str:
    """Name of the protocol in the rows; the two ways never share one."""
    return f"few-shot {folds.ways}-way {folds.shots}-shot ({WORDS[folds.protocol]})"


def _folds(config: FewShotConfig, train: LabelledClouds, test: LabelledClouds) -> Folds:
    if config.folds:
        path = Path(config.folds).expanduser()
        return read_folds(path, config.protocol, train, test, config.fewshot)
    return draw_folds(config.protocol, train, test, config.fewshot)


def standardised(support: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by the support's mean and standard deviation per channel; constant channels become 0.

    >>> standardised(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[4.0, 5.0]]))[1]
    array([[2., 0.]])
    """
    support, query = support.astype(np.float64), query.astype(np.float64)
    mean, spread = support.mean(axis=0), support.std(axis=0)
    # What rounding leaves of a constant channel is no spread.
    constant = spread <= 1e-7 * np.maximum(1e-30, np.abs(mean))
    scale = np.where(constant, 0.0, 1 / np.where(constant, 1.0, spread))
    return (support - mean) * scale, (query - mean) * scale


def _svm_accuracies(
    encoder: PointEncoder,
    name: str,
    train: LabelledClouds,
    folds: Folds,
    settings: FewShotSettings,
    say: Say,
) -> np.ndarray:
    """Accuracy of each trial by a linear SVM on standardised frozen features."""
    options: dict[str, Any] = {
        "num_points": settings.num_points,
        "batch_size": settings.batch_size,
    }
    if settings.cache:
        kept = cached_features(encoder, train.points, say=say, **options)
        features = kept.values
        say(f"{name}: features {'read from the cache' if kept.hit else 'computed'}, {kept.path}")
    else:
        features = embed_clouds(encoder, train.points, **options)
    shares = []
    for trial in folds.trials:
        support, query = np.array(trial.support), np.array(trial.query)
        learned, asked = standardised(features[support], features[query])
        predicted = fit_predict(learned, train.labels[support], asked, settings.c)
        shares.append(accuracy(predicted, train.labels[query]))
    return np.array(shares)


def _fine_tuned_accuracies(
    encoder: PointEncoder,
    name: str,
    whose: str,
    train: LabelledClouds,
    test: LabelledClouds,
    folds: Folds,
    config: FewShotConfig,
    say: Say,
) -> np.ndarray:
    """Accuracy of each trial by a classifier trained on its support, at the end of the budget."""
    shares: list[float] = []
    for number, trial in enumerate(folds.trials):
        of_this = f"trial {number + 1} of {len(folds.trials)}"
        title, part = f"{name}, {of_this}", f"{whose}, {of_this}"
        if done := read_finished(part, say):
            shares.append(float(done["share"]))
            continue
        model = _train_trial(encoder, train, trial, number, config, title, say)
        query = np.array(trial.query)
        probabilities = model.probabilities(test.points[query])[0]
        predicted = np.array(trial.classes)[probabilities.argmax(axis=1)]
        shares.append(accuracy(predicted, test.labels[query]))
        say(f"{title}: {100 * shares[-1]:.1f} %")
        write_finished(part, {"share": shares[-1]})
    return np.array(shares)


def _train_trial(
    encoder: PointEncoder,
    train: LabelledClouds,
    trial: Trial,
    number: int,
    config: FewShotConfig,
    title: str,
    say: Say,
) -> PointClassifier:
    def warn(line: str) -> None:
        # All trials have the same budget, and each tells its result in a line of its own.
        if number == 0 and line.startswith("warning"):
            say(line)

    seed = int(np.random.SeedSequence((config.fewshot.seed, number)).generate_state(1)[0])
    # Labels within the trial, 0 to N - 1; those of clouds outside it are not looked at.
    labels = np.searchsorted(np.array(trial.classes), train.labels)
    task = ClassificationTask(
        points=train.points,
        labels=labels,
        places=np.array(trial.support),
        num_points=config.fewshot.num_points,
        augment=config.augment,
        label_smoothing=config.fit.label_smoothing,
        seed=seed,
    )
    names = [train.classes[label] for label in trial.classes]
    points = config.fewshot.num_points
    model = build_classifier(encoder, names, seed=seed, num_points=points)
    fit(model, task, config.fit, config.optim, seed=seed, title=title, say=warn)
    return model


def _details(
    encoder: PointEncoder,
    config: FewShotConfig,
    folds: Folds,
    stored: Path | None,
    shares: np.ndarray,
    source: str,
) -> dict[str, Any]:
    """What the number depends on, as JSON values."""
    details: dict[str, Any] = {
        "architecture": encoder.spec,
        "sd": mean_interval(shares.tolist())[0],
        "accuracies": shares.tolist(),
        "trials": len(shares),
        "folds": f"folds/{stored.name}" if stored else None,
        "folds_sha256": folds.sha256,
        "folds_seed": folds.seed,
        "fewshot": dataclasses.asdict(config.fewshot) | {"trials": len(shares)},
        "source": source,
    }
    if config.protocol == POINT_BERT:
        details["selection"] = "last epoch"
        for part in ("fit", "optim", "augment"):
            details[part] = dataclasses.asdict(getattr(config, part))
    return details


def _row(
    name: str,
    encoder: PointEncoder,
    folds: Folds,
    seed: int,
    shares: np.ndarray,
    details: dict[str, Any],
    seconds: float,
) -> ResultRow:
    _, (low, high) = mean_interval(shares.tolist())
    return ResultRow(
        protocol=protocol_name(folds),
        dataset=folds.dataset,
        split="test" if folds.protocol == POINT_BERT else "train",
        metric="accuracy",
        value=float(shares.mean()),
        ci95=(max(0.0, low), min(1.0, high)),
        n=len(folds.trials) * folds.ways * folds.queries,
        seed=seed,
        encoder=name,
        encoder_sha256=weights_sha256(encoder),
        settings=details,
        seconds=round(seconds, 3),
        outcomes=Outcomes(shares, f"trials {folds.sha256}"),
    )


def _compare(result: FewShotResult, name: str, say: Say) -> None:
    """The paired test over the trials, said and kept in the encoder's row."""
    ours = result.accuracies[name]
    for other, theirs in result.accuracies.items():
        if other == name:
            continue
        gains = (ours - theirs).tolist()
        _, (low, high) = mean_interval(gains)
        p, gain = sign_flip_test(ours.tolist(), theirs.tolist()), float(np.mean(gains))
        say(
            f"{name} against {other}: {100 * gain:+.1f} points, {100 * low:+.1f} to "
            f"{100 * high:+.1f} over the same {len(gains)} trials (sign flips, p = {p:.2g})"
        )
        against = {"encoder": other, "gain": gain, "gain_ci95": [low, high], "sign_flip_p": p}
        result.rows[0].settings["against"] = against
