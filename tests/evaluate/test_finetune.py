"""Fine-tuning as a whole: rows, labels in use, baseline, and what it must not look at."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clouds import ellipsoids, one_thread, silent  # noqa: F401 (a fixture of the module)

from pixcloud.config import OptimConfig
from pixcloud.encoders import PointEncoder, build_encoder
from pixcloud.errors import ConfigError, DataError, WeightsError
from pixcloud.evaluate.finetune import FinetuneResult, run_finetune
from pixcloud.evaluate.label_subset import labelled_subset
from pixcloud.evaluate.metrics import mcnemar_exact
from pixcloud.evaluate.predictions import load_predictions
from pixcloud.evaluate.results import read_rows
from pixcloud.evaluate.training_settings import FinetuneConfig, FinetuneSettings, FitSettings
from pixcloud.export import weights_sha256

TRAIN, TEST = ellipsoids("train", 0), ellipsoids("test", 1)
SETTINGS = FinetuneSettings(num_points=40, votes=2, head="linear")
FIT = FitSettings(epochs=12, batch_size=16, label_smoothing=0.0)
ALL, HALF = "fine-tuned, all weights, 100 % of labels", "fine-tuned, all weights, 50 % of labels"


def encoder() -> PointEncoder:
    torch.manual_seed(7)
    return build_encoder("pointnet", embed_dim=32, widths=[16, 16])


def config(settings: FinetuneSettings = SETTINGS, **changes: object) -> FinetuneConfig:
    optim = OptimConfig(lr=0.01)
    return FinetuneConfig(encoder="e", finetune=settings, fit=FIT, optim=optim, **changes)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[FinetuneResult, list[str], Path]:
    """Two fractions beside their baseline, written to a file."""
    folder, said = tmp_path_factory.mktemp("finetune"), []
    settings = dataclasses.replace(SETTINGS, fractions=(0.5, 1.0), save_predictions=True)
    asked = config(settings, baseline="scratch")
    out = folder / "results.jsonl"
    result = run_finetune(encoder(), "e", TRAIN, TEST, asked, out, said.append, "somewhere")
    return result, said, folder


def test_rows_of_two_fractions_beside_scratch(both: tuple) -> None:
    result, said, folder = both
    assert read_rows(folder / "results.jsonl") == result.rows
    assert [(row.encoder, row.protocol) for row in result.rows[::2]] == [
        (name, protocol + votes)
        for protocol in (HALF, ALL)
        for name in ("e", "e, from scratch")
        for votes in ("", ", 2 votes")
    ]
    for row in result.rows:
        predicted = result.predictions[row.encoder, row.protocol]
        assert (row.split, row.n, row.seed) == ("test", 48, 0)
        if row.metric == "accuracy":
            assert row.value == (predicted == TEST.labels).mean()
            assert row.ci95[0] <= row.value <= row.ci95[1]
        assert row.settings["train_n"] + row.settings["validation_n"] == len(
            labelled_subset(TRAIN.labels, row.settings["fraction"], 0)
        )
        assert row.settings["selection"] == "validation part of train"
        assert row.settings["source"] == "somewhere"
    whole = next(row for row in result.rows if row.protocol == ALL)
    assert whole.value > 0.7
    assert whole.encoder_sha256 == weights_sha256(encoder())
    assert sum("McNemar" in line for line in said) == 2
    (path,) = (folder / "predictions").iterdir()
    assert load_predictions(path).predictions.keys() == result.predictions.keys()


def test_the_paired_test_is_kept(both: tuple) -> None:
    result, _, _ = both
    for row in result.rows:
        if row.encoder != "e" or row.protocol not in (ALL, HALF):
            assert "against" not in row.settings
            continue
        ours, theirs = (result.predictions[n, row.protocol] for n in ("e", "e, from scratch"))
        assert row.settings["against"] == {
            "encoder": "e, from scratch",
            "gain": (ours == TEST.labels).mean() - (theirs == TEST.labels).mean(),
            "mcnemar_p": mcnemar_exact(ours, theirs, TEST.labels),
        }


def test_a_fraction_gives_the_same_alone_and_test_labels_choose_nothing(both: tuple) -> None:
    shuffled = np.random.default_rng(5).permutation(TEST.labels)
    blind = run_finetune(
        *(encoder(), "e", TRAIN, dataclasses.replace(TEST, labels=shuffled), config()), say=silent
    )
    for protocol in (ALL, f"{ALL}, 2 votes"):
        np.testing.assert_array_equal(
            blind.predictions["e", protocol], both[0].predictions["e", protocol]
        )


def test_labels_out_of_use_are_not_read(both: tuple) -> None:
    kept = labelled_subset(TRAIN.labels, 0.5, 0)
    others = np.setdiff1d(np.arange(len(TRAIN.labels)), kept)
    points = TRAIN.points.copy()
    points[others] = points[others][::-1] * 3
    settings = dataclasses.replace(SETTINGS, fractions=(0.5,))
    train = dataclasses.replace(TRAIN, points=points)
    result = run_finetune(encoder(), "e", train, TEST, config(settings), say=silent)
    np.testing.assert_array_equal(result.predictions["e", HALF], both[0].predictions["e", HALF])


def test_a_single_label_per_class_takes_the_last_epoch_and_frozen_is_named() -> None:
    settings = dataclasses.replace(SETTINGS, fractions=(0.01,), freeze=True, votes=1)
    said: list[str] = []
    ours = encoder()
    asked = config(settings, baseline="scratch")
    result = run_finetune(ours, "e", TRAIN, TEST, asked, say=said.append)
    assert [row.protocol for row in result.rows[::2]] == [
        "frozen encoder, linear head, 1 % of labels",
        "fine-tuned, all weights, 1 % of labels",
    ]
    row = result.rows[0]
    assert (row.settings["train_n"], row.settings["validation_n"]) == (4, 0)
    assert (row.settings["selection"], row.settings["epoch"]) == ("last epoch", 12)
    assert "no validation part, the last one is taken" in said[0]
    assert not any("12 steps are too few" in line for line in said[:1])  # nothing to settle
    assert any("scratch" in line and "12 steps are too few" in line for line in said)
    frozen, scratch = (result.classifiers[n, 0.01] for n in ("e", "e, from scratch"))
    assert weights_sha256(frozen.encoder) == weights_sha256(ours)
    assert weights_sha256(scratch.encoder) != result.rows[-1].encoder_sha256


def test_what_cannot_be_fine_tuned_is_told_before_any_work(tmp_path: Path) -> None:
    def refused(error: type[Exception], message: str, train=TRAIN, test=TEST, **changes) -> None:
        asked = changes.pop("config", None) or config(**changes)
        with pytest.raises(error, match=message):
            run_finetune(encoder(), "e", train, test, asked, tmp_path / "r.jsonl", silent)
        assert not (tmp_path / "r.jsonl").exists()

    some = TRAIN.labels != 2
    less = dataclasses.replace(TRAIN, points=TRAIN.points[some], labels=TRAIN.labels[some])
    refused(DataError, "test holds classes that train lacks.*: disc", train=less)
    only = TRAIN.labels == 0
    one = dataclasses.replace(TRAIN, points=TRAIN.points[only], labels=TRAIN.labels[only])
    refused(DataError, "needs at least two classes", train=one, test=dataclasses.replace(one))
    refused(DataError, "48 points but finetune.num_points is 1024", settings=FinetuneSettings())
    several = dataclasses.replace(SETTINGS, fractions=(0.1, 1.0))
    refused(ConfigError, "give a single fraction", settings=several, save=str(tmp_path / "c"))
    (tmp_path / "mine.txt").write_text("keep me")
    refused(WeightsError, "holds something that is no classifier", save=str(tmp_path))
    bad = config()
    bad.optim.lr = -1.0
    refused(ConfigError, "optim.lr is -1.0", config=bad)
