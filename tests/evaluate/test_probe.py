"""The linear probe as a whole: rows, baselines, what it says, and what it must not look at."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pixcloud.encoders import build_encoder
from pixcloud.errors import ConfigError, DataError
from pixcloud.evaluate.descriptor import ShapeDescriptor
from pixcloud.evaluate.predictions import load_predictions, save_predictions
from pixcloud.evaluate.probe import (
    CROSS_VALIDATED,
    DESCRIPTOR,
    probe_clouds,
    published_protocol,
    run_probe,
    untrained,
)
from pixcloud.evaluate.results import read_rows
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.evaluate.splits import check_splits, check_train
from pixcloud.evaluate.validation import validation_accuracy
from pixcloud.export import weights_sha256
from pixcloud.types import LabelledClouds

SETTINGS = ProbeSettings(num_points=64, folds=3, c_grid=(0.1, 1.0, 10.0), cache=False)
PUBLISHED = published_protocol(SETTINGS)


def split(name: str, seed: int, per_class: int = 12) -> LabelledClouds:
    """Ellipsoids of four proportions, turned about y at random."""
    rng = np.random.default_rng(seed)
    axes = np.array([[1, 1, 1], [1, 4, 1], [3, 1, 3], [4, 2, 1]])
    labels = np.repeat(np.arange(4), per_class)
    rng.shuffle(labels)
    points = rng.standard_normal((len(labels), 80, 3))
    points *= (axes[labels] * rng.uniform(0.8, 1.25, (len(labels), 3)))[:, None]
    return LabelledClouds(
        name="ellipsoids",
        split=name,
        points=points.astype(np.float32),
        labels=labels.astype(np.int64),
        classes=["ball", "rod", "disc", "slab"],
    )


TRAIN, TEST = split("train", 0), split("test", 1)


def encoder(seed: int = 7) -> nn.Module:
    torch.manual_seed(seed)
    return build_encoder("pointnet", embed_dim=32)


def silent(line: str) -> None:
    pass


def test_rows_of_a_run(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    ours = encoder()
    result = run_probe(ours, "ours", TRAIN, TEST, SETTINGS, out, silent)
    assert read_rows(out) == result.rows
    assert {(row.encoder, row.protocol) for row in result.rows} == {
        ("ours", CROSS_VALIDATED),
        ("ours", PUBLISHED),
        ("ours, untrained", CROSS_VALIDATED),
        ("ours, untrained", PUBLISHED),
        (DESCRIPTOR, CROSS_VALIDATED),
    }
    assert [row.metric for row in result.rows] == ["accuracy", "class_mean_accuracy"] * 5
    for row in result.rows:
        predictions = result.predictions[row.encoder, row.protocol]
        assert (row.dataset, row.split, row.n, row.seed) == ("ellipsoids", "test", 48, 0)
        if row.metric == "accuracy":
            assert row.value == (predictions == TEST.labels).mean()
            assert row.ci95 is not None
            assert row.ci95[0] <= row.value <= row.ci95[1]
        expected_c = 0.01 if row.protocol == PUBLISHED else row.settings["c"]
        assert row.settings["c"] == expected_c
        assert row.settings["num_points"] == 64
    assert result.rows[0].encoder_sha256 == weights_sha256(ours)
    assert len({row.encoder_sha256 for row in result.rows}) == 3
    descriptor = next(row for row in result.rows if row.encoder == DESCRIPTOR)
    assert descriptor.value > 0.8
    assert not (tmp_path / "predictions").exists()


def test_the_same_numbers_come_again() -> None:
    first, again = (
        run_probe(encoder(), "e", TRAIN, TEST, SETTINGS, say=silent).rows for _ in range(2)
    )
    assert [dataclasses.replace(row, seconds=0) for row in first] == [
        dataclasses.replace(row, seconds=0) for row in again
    ]


def test_test_labels_choose_nothing() -> None:
    shuffled = np.random.default_rng(5).permutation(TEST.labels)
    honest, blind = (
        run_probe(
            encoder(), "e", TRAIN, dataclasses.replace(TEST, labels=labels), SETTINGS, say=silent
        )
        for labels in (TEST.labels, shuffled)
    )
    assert [row.settings for row in honest.rows] == [row.settings for row in blind.rows]
    assert honest.predictions.keys() == blind.predictions.keys()
    for key in honest.predictions:
        np.testing.assert_array_equal(honest.predictions[key], blind.predictions[key])
    assert honest.rows[0].value != blind.rows[0].value


def test_test_clouds_do_not_choose_c() -> None:
    fewer = dataclasses.replace(TEST, points=TEST.points[:5], labels=TEST.labels[:5])
    chosen = [
        probe_clouds({"e": encoder()}, TRAIN, test, SETTINGS, silent).rows[0].settings
        for test in (TEST, fewer)
    ]
    assert chosen[0] == chosen[1]


def test_it_says_when_features_come_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIXCLOUD_CACHE", str(tmp_path))
    settings = dataclasses.replace(SETTINGS, cache=True)
    spoken: list[list[str]] = [[], []]
    values = [
        run_probe(encoder(), "e", TRAIN, TEST, settings, say=lines.append).rows[0].value
        for lines in spoken
    ]
    assert values[0] == values[1]
    assert not any("from the cache" in line for line in spoken[0])
    assert sum("from the cache" in line for line in spoken[1]) == 6  # three rows, two splits
    assert any("McNemar" in line for line in spoken[0])
    assert capsys.readouterr() == ("", "")


def test_fewer_folds_and_classes_without_training_are_said() -> None:
    rare = np.flatnonzero((TRAIN.labels != 1) | (np.cumsum(TRAIN.labels == 1) <= 2))
    rare = rare[TRAIN.labels[rare] != 3]
    train = dataclasses.replace(TRAIN, points=TRAIN.points[rare], labels=TRAIN.labels[rare])
    said: list[str] = []
    result = probe_clouds({"e": ShapeDescriptor()}, train, TEST, SETTINGS, said.append)
    assert "2 folds instead of 3: the smallest class has 2 clouds" in said
    assert any("train lacks, always counted as wrong: slab" in line for line in said)
    assert result.rows[0].settings["folds"] == 2
    assert (result.predictions["e", CROSS_VALIDATED] != 3).all()


def test_choice_on_the_border_is_said() -> None:
    said: list[str] = []
    settings = dataclasses.replace(SETTINGS, c_grid=(1e-5, 10.0))
    row = probe_clouds({"e": ShapeDescriptor()}, TRAIN, TEST, settings, said.append).rows[0]
    assert row.settings["c_on_border"]
    assert row.settings["c_relative"] == pytest.approx(10.0)
    assert any("lies on the border" in line for line in said)


def test_untrained_twin_is_a_function_of_spec_and_seed() -> None:
    trained = encoder()
    state = torch.get_rng_state()
    twin, same, other = (untrained(trained, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert weights_sha256(twin) == weights_sha256(same)
    assert len({weights_sha256(e) for e in (trained, twin, other)}) == 3
    assert twin.spec == trained.spec
    with pytest.raises(DataError, match="Linear has no spec"):
        untrained(nn.Linear(3, 3), 0)


def test_validation_accuracy_looks_at_train_alone_and_is_repeatable() -> None:
    before = encoder().train()
    values = [validation_accuracy(before, TRAIN, SETTINGS, 0.2) for _ in range(2)]
    assert values[0] == values[1]
    assert 0.25 < values[0] <= 1
    assert before.training
    noise = dataclasses.replace(TRAIN, labels=np.random.default_rng(0).permutation(TRAIN.labels))
    assert validation_accuracy(before, noise, SETTINGS, 0.2) < values[0]


def test_predictions_are_kept_without_pickles(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, save_predictions=True, baselines=False)
    result = run_probe(encoder(), "e", TRAIN, TEST, settings, tmp_path / "r.jsonl", silent)
    (path,) = (tmp_path / "predictions").iterdir()
    assert path.name.startswith("ellipsoids-")
    kept = load_predictions(path)
    np.testing.assert_array_equal(kept.labels, TEST.labels)
    assert (
        kept.predictions.keys()
        == result.predictions.keys()
        == {
            ("e", CROSS_VALIDATED),
            ("e", PUBLISHED),
        }
    )
    for key, predictions in result.predictions.items():
        np.testing.assert_array_equal(kept.predictions[key], predictions)
    save_predictions(path, result)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="not a file of predictions"):
        load_predictions(path)
    with pytest.raises(DataError, match="not a file of predictions"):
        load_predictions(tmp_path / "none.npz")


def test_result_prints_as_a_table() -> None:
    settings = dataclasses.replace(SETTINGS, baselines=False)
    synthetic = dataclasses.replace(TEST, name="synthetic")
    text = str(run_probe(encoder(), "e", TRAIN, synthetic, settings, say=silent))
    assert "Linear probe (synthetic data)" in text
    assert PUBLISHED in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": TEST.points[:0], "labels": TEST.labels[:0]}, "ellipsoids test: no clouds"),
        ({"labels": TEST.labels[:5]}, r"48 clouds but labels \(5,\)"),
        ({"labels": TEST.labels + 1}, "labels run from 1 to 4, but there are 4 classes"),
        ({"classes": ["ball", "rod", "disc", "cup"]}, r"same classes .*\(cup, slab\)"),
        ({"classes": ["rod", "ball", "disc", "slab"]}, "the order differs"),
    ],
)
def test_splits_that_do_not_fit_are_named(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_splits(TRAIN, dataclasses.replace(TEST, **changes))


def only(mask: np.ndarray) -> LabelledClouds:
    return dataclasses.replace(TRAIN, points=TRAIN.points[mask], labels=TRAIN.labels[mask])


def test_a_train_split_that_cannot_be_probed_is_told_before_training() -> None:
    check_train(TRAIN, SETTINGS, 0.2)
    with pytest.raises(DataError, match="at least two classes"):
        check_train(only(TRAIN.labels == 0), SETTINGS, 0.2)
    lonely = (TRAIN.labels != 2) | (np.cumsum(TRAIN.labels == 2) == 1)
    with pytest.raises(DataError, match="'disc' has a single training sample"):
        check_train(only(lonely), SETTINGS, 0.2)
    pairs = np.concatenate([np.flatnonzero(TRAIN.labels == label)[:2] for label in range(4)])
    with pytest.raises(DataError, match="no class has 3 clouds"):
        check_train(only(pairs), SETTINGS, 0.2)
    with pytest.raises(DataError, match="80 points per cloud, and num_points is 1024"):
        check_train(TRAIN, ProbeSettings(), 0.2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_points": 0}, "num_points is 0: expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"folds": 1}, "folds is 1: expected at least 2"),
        ({"fixed_c": 0.0}, "fixed_c is 0.0: expected a positive number"),
        ({"fixed_c": float("nan")}, "fixed_c is nan"),
        ({"c_grid": ()}, "c_grid is"),
        ({"c_grid": (1.0, -1.0)}, "c_grid is"),
        ({"threads": 0}, "threads is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range_are_named(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProbeSettings(**setting)
