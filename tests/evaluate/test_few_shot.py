"""Few-shot: trials are what they should be and come again, and both ways are honest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from small_clouds import ellipsoids, one_thread, silent  # noqa: F401 (a fixture of the module)

from pixcloud.config import OptimConfig
from pixcloud.encoders import PointEncoder, build_encoder
from pixcloud.errors import ConfigError, DataError
from pixcloud.evaluate.features import embed_clouds
from pixcloud.evaluate.few_shot import FewShotResult, run_few_shot, standardised
from pixcloud.evaluate.few_shot_folds import draw_folds, read_folds, store_folds
from pixcloud.evaluate.metrics import mean_interval, sign_flip_test
from pixcloud.evaluate.results import read_rows
from pixcloud.evaluate.training_settings import FewShotConfig, FewShotSettings, FitSettings

TRAIN, TEST = ellipsoids("train", 0), ellipsoids("test", 1)
SETTINGS = FewShotSettings(ways=3, shots=4, queries=6, trials=3, num_points=40)
BOTH = ("crosspoint", "point-bert")


def encoder(seed: int = 7) -> PointEncoder:
    torch.manual_seed(seed)
    return build_encoder("pointnet", embed_dim=32, widths=[16, 16])


def config(protocol: str, **changes: object) -> FewShotConfig:
    settings = dataclasses.replace(SETTINGS, **changes.pop("settings", {}))
    fit = FitSettings(epochs=changes.pop("epochs", 16), batch_size=12)
    return FewShotConfig(
        encoder="e",
        protocol=protocol,
        fewshot=settings,
        fit=fit,
        optim=OptimConfig(lr=0.02),
        **changes,
    )


@pytest.fixture(scope="module", params=BOTH)
def scored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, FewShotResult, Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("fewshot")
        patch.setenv("PIXCLOUD_CACHE", str(folder / "cache"))
        out = folder / "results.jsonl"
        result = run_few_shot(
            encoder(), "e", TRAIN, TEST, config(request.param), out, silent, "somewhere"
        )
    return request.param, result, folder


@pytest.mark.parametrize("protocol", BOTH)
def test_trials_hold_what_they_should(protocol: str) -> None:
    folds = draw_folds(protocol, TRAIN, TEST, SETTINGS)
    queries = TEST if protocol == "point-bert" else TRAIN
    for trial in folds.trials:
        assert len(set(trial.classes)) == 3
        for label in trial.classes:
            assert (TRAIN.labels[list(trial.support)] == label).sum() == 4
            assert (queries.labels[list(trial.query)] == label).sum() == 6
        assert (len(set(trial.support)), len(set(trial.query))) == (12, 18)
        if protocol == "crosspoint":
            assert not set(trial.support) & set(trial.query)
    assert len(set(folds.trials)) == 3
    assert draw_folds(protocol, TRAIN, TEST, SETTINGS).sha256 == folds.sha256
    other = dataclasses.replace(SETTINGS, seed=1)
    assert draw_folds(protocol, TRAIN, TEST, other).sha256 != folds.sha256
    more = draw_folds(protocol, TRAIN, TEST, dataclasses.replace(SETTINGS, trials=6))
    assert more.trials[:3] == folds.trials


def test_every_class_and_cloud_is_drawn_at_times() -> None:
    many = dataclasses.replace(SETTINGS, trials=60)
    trials = draw_folds("crosspoint", TRAIN, TEST, many).trials
    support = np.bincount(np.concatenate([t.support for t in trials]), minlength=48)
    query = np.bincount(np.concatenate([t.query for t in trials]), minlength=48)
    assert support.min() > 3
    assert query.min() > 5


def test_a_row_per_contender_over_the_same_trials(scored: tuple) -> None:
    protocol, result, folder = scored
    assert read_rows(folder / "results.jsonl") == result.rows
    word = "untrained" if protocol == "crosspoint" else "from scratch"
    assert [row.encoder for row in result.rows] == ["e", f"e, {word}"]
    for row in result.rows:
        shares = result.accuracies[row.encoder]
        assert row.value == pytest.approx(shares.mean())
        sd, (low, high) = mean_interval(shares.tolist())
        assert row.settings["sd"] == sd
        assert row.ci95 == (max(0, low), min(1, high))
        assert row.n == 3 * 18
        assert row.split == ("train" if protocol == "crosspoint" else "test")
        assert row.settings["folds_sha256"] == result.folds.sha256
        stored = folder / row.settings["folds"]
        assert read_folds(stored, protocol, TRAIN, TEST, SETTINGS) == result.folds
    ours, theirs = (result.accuracies[row.encoder].tolist() for row in result.rows)
    against = result.rows[0].settings["against"]
    assert against["sign_flip_p"] == sign_flip_test(ours, theirs)
    assert against["gain"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert result.rows[0].value > 0.5


def test_what_a_reader_must_know_is_said() -> None:
    said: list[str] = []
    synthetic = [dataclasses.replace(split, name="synthetic") for split in (TRAIN, TEST)]
    changes = {"settings": {"baseline": False, "trials": 2}, "epochs": 1}
    result = run_few_shot(
        encoder(), "e", *synthetic, config("point-bert", **changes), say=said.append
    )
    warnings = [line for line in said if line.startswith("warning")]
    assert len(warnings) == 1  # of the first of two trials
    assert "1 steps are too few for running batch statistics" in warnings[0]
    assert str(result.__rich__().title).endswith("(synthetic data)")


def test_the_two_ways_share_no_name_of_a_protocol() -> None:
    names = {
        run_few_shot(
            encoder(),
            "e",
            TRAIN,
            TEST,
            config(p, settings={"baseline": False, "trials": 2, "cache": False}, epochs=1),
            say=silent,
        )
        .rows[0]
        .protocol
        for p in BOTH
    }
    assert names == {
        "few-shot 3-way 4-shot (CrossPoint: queries from train, frozen, SVM)",
        "few-shot 3-way 4-shot (Point-BERT: queries from test, fine-tuned)",
    }


def test_crosspoints_way_against_its_textbook_form(scored: tuple) -> None:
    protocol, result, _ = scored
    if protocol != "crosspoint":
        return
    features = embed_clouds(encoder(), TRAIN.points, num_points=40)
    for trial, share in zip(result.folds.trials, result.accuracies["e"], strict=True):
        support, query = list(trial.support), list(trial.query)
        scaler = StandardScaler().fit(features[support].astype(np.float64))
        svm = SVC(kernel="linear", C=1.0)
        svm.fit(scaler.transform(features[support]), TRAIN.labels[support])
        right = svm.predict(scaler.transform(features[query])) == TRAIN.labels[query]
        assert right.mean() == share


def test_stored_folds_are_read_and_query_labels_choose_nothing(
    scored: tuple, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    protocol, result, folder = scored
    path = str(folder / result.rows[0].settings["folds"])
    asked = config(
        protocol, folds=path, settings={"seed": 9, "trials": 2, "baseline": False}, epochs=1
    )
    again = run_few_shot(encoder(), "e", TRAIN, TEST, asked, say=silent)
    assert again.folds == result.folds
    # The seed is that of this evaluation; what drew the trials stands beside it.
    assert again.rows[0].seed == 9
    assert again.rows[0].settings["folds_seed"] == result.rows[0].seed == SETTINGS.seed
    if protocol == "crosspoint":  # nothing else is drawn there
        np.testing.assert_array_equal(again.accuracies["e"], result.accuracies["e"])


@pytest.mark.parametrize("protocol", BOTH)
def test_too_little_for_a_trial_is_told(protocol: str) -> None:
    def refused(error: type[Exception], message: str, **changes: int) -> None:
        settings = dataclasses.replace(SETTINGS, **changes)
        with pytest.raises(error, match=message):
            draw_folds(protocol, TRAIN, few, settings)

    few = ellipsoids("test", 1, per_class=5)
    refused(ConfigError, "fewshot.ways = 5: ellipsoids train has 4 classes", ways=5)
    if protocol == "crosspoint":
        few_clouds = r"fewer clouds than the 7 \+ 6 = 13 .*: ball 12, rod 12.*queries 5 would do"
        refused(DataError, few_clouds, shots=7)
    else:
        refused(DataError, "train: classes with fewer clouds than the 13 .*: ball 12", shots=13)
        refused(DataError, "test: classes with fewer clouds than the 6 of each.*: ball 5")
        none = TEST.labels != 1
        few = dataclasses.replace(TEST, points=TEST.points[none], labels=TEST.labels[none])
        refused(DataError, "test: classes with fewer .*: rod 0")


def test_folds_that_do_not_fit_are_told(tmp_path: Path) -> None:
    folds = draw_folds("crosspoint", TRAIN, TEST, SETTINGS)
    path = store_folds(tmp_path, folds)

    def refused(error: type[Exception], message: str, protocol: str = "crosspoint", **c) -> None:
        settings = dataclasses.replace(SETTINGS, **c)
        with pytest.raises(error, match=message):
            read_folds(path, protocol, TRAIN, TEST, settings)

    refused(ConfigError, "of protocol crosspoint, not point-bert; set --protocol", "point-bert")
    refused(ConfigError, "of shots 4, not 5; set --fewshot.shots 4", shots=5)
    other = ellipsoids("train", 5)
    with pytest.raises(DataError, match="folds of other data"):
        read_folds(path, "crosspoint", other, TEST, SETTINGS)
    values = json.loads(path.read_text())
    for damage in ("same", "range", "class"):
        trial = json.loads(path.read_text())["trials"][0]
        if damage == "same":
            trial["query"][0] = trial["support"][0]
        elif damage == "range":
            trial["query"][0] = 48
        else:
            trial["classes"] = [0, 1, 9]
        path.write_text(json.dumps(values | {"trials": [trial]}))
        refused(DataError, "damaged: trial 0 does not hold what it should")
    path.write_text(json.dumps(values)[:50])
    refused(DataError, "cannot be read as folds")
    path.write_text(json.dumps(values | {"trials": []}))
    refused(DataError, "there is an empty trial, or none")
    path.unlink()
    refused(DataError, "cannot be read as folds")


def test_standardisation_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    support = rng.normal(3, [1e-3, 1, 50], (9, 3)).astype(np.float32)
    support = np.concatenate([support, np.full((9, 1), 0.1, np.float32)], axis=1)
    query = rng.normal(3, 1, (4, 4)).astype(np.float32)
    query[:, 3] = 0.1
    scaler = StandardScaler().fit(support.astype(np.float64))
    learned, asked = standardised(support, query)
    np.testing.assert_allclose(learned, scaler.transform(support.astype(float)), atol=1e-6)
    np.testing.assert_allclose(asked, scaler.transform(query.astype(float)), rtol=1e-6, atol=1e-6)
