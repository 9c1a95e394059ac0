"""Stage 9, linear probe: frozen encoders and labelled clouds (S, N, 3) -> rows of results.

Before it: `pixcloud.evaluate.features`, `svm` and `metrics`. After it: `pixcloud.evaluate.results`.
Test labels are read once, to score; C comes from the settings or from the training split.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pixcloud.distributed import ALONE, World
from pixcloud.encoders import PointEncoder, build_encoder
from pixcloud.errors import DataError, some
from pixcloud.evaluate.descriptor import ShapeDescriptor
from pixcloud.evaluate.features import (
    cached_descriptors,
    cached_features,
    embed_clouds,
    first_points,
)
from pixcloud.evaluate.folds import usable_folds
from pixcloud.evaluate.metrics import (
    accuracy,
    class_mean_accuracy,
    correct_predictions,
    mcnemar_exact,
    wilson_interval,
)
from pixcloud.evaluate.outcomes import Outcomes, units_of
from pixcloud.evaluate.predictions import ProbeResult, save_predictions
from pixcloud.evaluate.results import ResultRow, append_rows
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.evaluate.splits import check_splits
from pixcloud.evaluate.svm import CrossValidation, Fitted, LinearSVM
from pixcloud.export import weights_sha256
from pixcloud.types import LabelledClouds

Say = Callable[[str], None]
CROSS_VALIDATED = "svm C by cross-validation on train"
# CrossPoint: 0.1 during training, 0.01 in its notebook.
PUBLISHED_C = (0.01, 0.1)
DESCRIPTOR = "shape distributions (hand-made)"


def published_protocol(settings: ProbeSettings) -> str:
    """Name of the protocol with the fixed C.

    >>> published_protocol(ProbeSettings(fixed_c=0.1))
    'svm C=0.1 (published)'
    >>> published_protocol(ProbeSettings(fixed_c=5))
    'svm C=5 (fixed)'
    """
    return f"svm C={settings.fixed_c:g} ({_fixed_kind(settings)})"


def _fixed_kind(settings: ProbeSettings) -> str:
    return "published" if settings.fixed_c in PUBLISHED_C else "fixed"


def run_probe(
    encoder: nn.Module,
    encoder_name: str,
    train: LabelledClouds,
    test: LabelledClouds,
    settings: ProbeSettings,
    out: Path | None = None,
    say: Say = print,
    source: str = "",
    world: World = ALONE,
) -> ProbeResult:
    """Probes an encoder beside its baselines, and appends the rows to the file `out`.

    The baselines (`settings.baselines`) are the same encoder with fresh weights, and a hand-made
    descriptor; McNemar's test tells for each whether the difference may be chance.

    Args:
        encoder: returns PointFeatures; made by `build_encoder` where baselines are wanted.
        encoder_name: for the rows.
        train: the training split.
        test: the test split, of the same classes.
        settings: of the probe.
        out: results file, usually results.jsonl (predictions go into a folder `predictions` beside
            it), or None to write nothing.
        say: takes each line for the reader.
        source: where the clouds were read, for the rows.
        world: the processes that embed the clouds together; the first one does the rest.

    Raises:
        DataError: as `check_splits`, `embed_clouds` and `LinearSVM`.
    """
    say = say if world.first else lambda line: None
    check_splits(train, test)
    contenders: dict[str, nn.Module | ShapeDescriptor] = {encoder_name: encoder}
    if settings.baselines:
        contenders[f"{encoder_name}, untrained"] = untrained(encoder, settings.seed)
        contenders[DESCRIPTOR] = ShapeDescriptor(seed=settings.seed)
    result = probe_clouds(contenders, train, test, settings, say, world)
    _say_comparisons(result, encoder_name, say)
    for row in result.rows:
        row.settings["source"] = source
    if out is not None:
        world.decide(lambda: _write(result, test, encoder, settings, out, say))
    return result


def _write(
    result: ProbeResult,
    test: LabelledClouds,
    encoder: nn.Module,
    settings: ProbeSettings,
    out: Path,
    say: Say,
) -> None:
    if settings.save_predictions:
        name = f"{test.name}-{weights_sha256(encoder)[:12]}-seed{settings.seed}.npz"
        save_predictions(out.parent / "predictions" / name, result)
        say(f"predictions written to {out.parent / 'predictions' / name}")
    append_rows(out, result.rows)


def probe_clouds(
    encoders: Mapping[str, nn.Module | ShapeDescriptor],
    train: LabelledClouds,
    test: LabelledClouds,
    settings: ProbeSettings,
    say: Say = print,
    world: World = ALONE,
) -> ProbeResult:
    """Linear SVM on the frozen features of each encoder: fit on train, accuracy on test.

    Each encoder is scored with C chosen by cross-validation on train, and each learned one also
    with the published C; that C says nothing about the scale of a hand-made descriptor.

    Args:
        encoders: name -> encoder or descriptor.
        train: the training split.
        test: the test split, of the same classes.
        settings: of the probe; `baselines` is for `run_probe`.
        say: takes each line for the reader.
        world: the processes that embed the clouds together; the first one fits the SVMs, once.

    Returns:
        Two rows (accuracy, class-mean accuracy) per encoder and protocol, and the predictions.

    Raises:
        DataError: as `check_splits`, `embed_clouds` and `LinearSVM`.
    """
    check_splits(train, test)
    folds = usable_folds(train.labels, settings.folds, train.classes)
    if folds < settings.folds:
        say(f"{folds} folds instead of {settings.folds}: the smallest class has {folds} clouds")
    if unseen := set(test.labels.tolist()) - set(train.labels.tolist()):
        names = some(test.classes[label] for label in sorted(unseen))
        say(f"warning: test holds classes that train lacks, always counted as wrong: {names}")
    result = ProbeResult(rows=[], labels=test.labels)
    for name, encoder in encoders.items():
        started = time.perf_counter()
        of_train = _features(name, encoder, train, settings, say, world)
        of_test = _features(name, encoder, test, settings, say, world)
        fit = functools.partial(_fit, name, encoder, of_train, of_test, train, settings, say)
        protocols = world.decide(fit)
        seconds = time.perf_counter() - started
        for protocol, (fitted, details) in protocols.items():
            details |= _common_settings(encoder, train, settings)
            result.predictions[name, protocol] = fitted.predictions
            result.rows += _rows(
                name, _sha256(encoder), protocol, fitted, test, settings.seed, details, seconds
            )
    return result


def untrained(encoder: nn.Module, seed: int) -> PointEncoder:
    """The same architecture with fresh weights, a function of (architecture, seed).

    Raises:
        DataError: if the encoder has no `spec`; `build_encoder` and `load_encoder` set it.

    Example:
        >>> fresh = untrained(build_encoder("pointnet", embed_dim=8), seed=0)
        >>> fresh.pooled_dim, fresh.training
        (8, False)
    """
    spec = getattr(encoder, "spec", None)
    if not spec:
        raise DataError(
            f"{type(encoder).__name__} has no spec to build an untrained twin from: make it with "
            "build_encoder, or set baselines to false"
        )
    with torch.random.fork_rng(devices=[]):  # the caller's generator is left as it is
        torch.manual_seed(seed)
        fresh = build_encoder(spec["name"], **spec["settings"])
    home = next(encoder.parameters())
    return fresh.to(device=home.device, dtype=home.dtype).eval()


def _features(
    name: str,
    encoder: nn.Module | ShapeDescriptor,
    clouds: LabelledClouds,
    settings: ProbeSettings,
    say: Say,
    world: World,
) -> np.ndarray:
    """Features of one split; of several processes, the first one has them for certain."""
    what = f"{name}: {len(clouds.points):,} {clouds.split} clouds of {clouds.name}"
    started = time.perf_counter()
    points, described = clouds.points, isinstance(encoder, ShapeDescriptor)
    if described and not world.first:
        return np.empty((0, 0), np.float32)
    options: dict[str, Any] = {
        "num_points": settings.num_points,
        "batch_size": settings.batch_size,
        "normalize": settings.normalize,
    }
    if settings.cache:
        if isinstance(encoder, ShapeDescriptor):
            cached = cached_descriptors(encoder, points, num_points=settings.num_points, say=say)
        else:
            cached = cached_features(encoder, points, say=say, world=world, **options)
        if cached.hit:
            say(f"{what}: features read from the cache, {cached.path}")
            return cached.values
        values = cached.values
    elif isinstance(encoder, ShapeDescriptor):
        values = encoder(first_points(points, settings.num_points))
    else:
        values = embed_clouds(encoder, points, world=world, **options)
    verb = "described" if described else "embedded"
    say(f"{what} {verb} in {time.perf_counter() - started:.1f} s")
    return values


def _fit(
    name: str,
    encoder: nn.Module | ShapeDescriptor,
    features: np.ndarray,
    test_features: np.ndarray,
    train: LabelledClouds,
    settings: ProbeSettings,
    say: Say,
) -> dict[str, tuple[Fitted, dict[str, Any]]]:
    """Protocol -> fit and what it depends on; all fits share one Gram matrix."""
    svm = LinearSVM(features, train.labels, classes=train.classes, threads=settings.threads)
    if svm.total_variance == 0:
        say(f"warning: {name} gives every training cloud the same features")
    chosen = svm.cross_validate(svm.relative_grid(settings.c_grid), settings.folds, settings.seed)
    _say_choice(name, chosen, say)
    details: dict[str, dict[str, Any]] = {CROSS_VALIDATED: _choice(chosen, svm, settings)}
    if not isinstance(encoder, ShapeDescriptor):
        details[published_protocol(settings)] = {
            "c": settings.fixed_c,
            "c_choice": _fixed_kind(settings),
        }
    fits = svm.predict(test_features, [detail["c"] for detail in details.values()])
    for protocol, fit in zip(details, fits, strict=True):
        if not fit.converged:
            say(f"warning: {name}, {protocol}: the solver stopped before it reached its tolerance")
        details[protocol]["converged"] = fit.converged
    return dict(zip(details, zip(fits, details.values(), strict=True), strict=True))


def _choice(chosen: CrossValidation, svm: LinearSVM, settings: ProbeSettings) -> dict[str, Any]:
    return {
        "c": chosen.c,
        "c_choice": "cross-validation",
        "c_relative": chosen.c * svm.total_variance,
        "c_grid": list(settings.c_grid),
        "c_on_border": chosen.on_border,
        "c_dropped": list(chosen.dropped),
        "folds": chosen.folds,
        "cross_validation_accuracy": chosen.accuracy,
    }


def _say_choice(name: str, chosen: CrossValidation, say: Say) -> None:
    say(
        f"{name}: C = {chosen.c:.3g} by {chosen.folds} folds on train, accuracy "
        f"{100 * chosen.accuracy:.1f} % there"
    )
    if chosen.on_border and chosen.accuracy < 1:  # where all is right, no other C is better
        say(f"warning: {name}: that C lies on the border of the grid; widen --probe.c_grid")
    if chosen.dropped:
        say(f"{name}: C from {chosen.dropped[0]:.3g} left out, the solver does not converge there")


def _rows(
    name: str,
    sha256: str,
    protocol: str,
    fit: Fitted,
    test: LabelledClouds,
    seed: int,
    details: dict[str, Any],
    seconds: float,
) -> list[ResultRow]:
    correct = correct_predictions(fit.predictions, test.labels)
    right, n = int(correct.sum()), len(test.labels)
    measured: dict[str, tuple[float, tuple[float, float] | None]] = {
        "accuracy": (right / n, wilson_interval(right, n)),
        "class_mean_accuracy": (class_mean_accuracy(fit.predictions, test.labels), None),
    }
    return [
        ResultRow(
            protocol=protocol,
            dataset=test.name,
            split=test.split,
            metric=metric,
            value=value,
            ci95=interval,
            n=n,
            seed=seed,
            encoder=name,
            encoder_sha256=sha256,
            settings=details,
            seconds=round(seconds, 3),
            outcomes=Outcomes(correct, units_of(test), True) if interval else None,
        )
        for metric, (value, interval) in measured.items()
    ]


def _common_settings(
    encoder: nn.Module | ShapeDescriptor, train: LabelledClouds, settings: ProbeSettings
) -> dict[str, Any]:
    described = isinstance(encoder, ShapeDescriptor)
    return {
        "architecture": "shape distributions" if described else getattr(encoder, "spec", None),
        "num_points": settings.num_points,
        "normalize": True if described else settings.normalize,
        "train_split": train.split,
        "train_n": len(train.labels),
    }


def _sha256(encoder: nn.Module | ShapeDescriptor) -> str:
    return encoder.sha256 if isinstance(encoder, ShapeDescriptor) else weights_sha256(encoder)


def _say_comparisons(result: ProbeResult, encoder_name: str, say: Say) -> None:
    ours = result.predictions[encoder_name, CROSS_VALIDATED]
    for (name, protocol), theirs in result.predictions.items():
        if protocol == CROSS_VALIDATED and name != encoder_name:
            p = mcnemar_exact(ours, theirs, result.labels)
            gain = 100 * (accuracy(ours, result.labels) - accuracy(theirs, result.labels))
            say(f"{encoder_name} against {name}: {gain:+.1f} points (McNemar exact p = {p:.2g})")
