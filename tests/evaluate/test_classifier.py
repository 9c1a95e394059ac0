"""Classifiers: what stays frozen, votes, and that what was saved comes back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clouds import CLASSES, ellipsoids, one_thread  # noqa: F401 (a fixture of the module)

import pixcloud
from pixcloud.encoders import build_encoder
from pixcloud.errors import ConfigError, DataError, WeightsError
from pixcloud.evaluate.classifier import (
    PointClassifier,
    Voting,
    build_classifier,
    load_classifier,
    save_classifier,
)
from pixcloud.export import weights_sha256

CLOUDS = ellipsoids("train", 0, per_class=3).points


def classifier(frozen: bool = False, head: str = "mlp") -> PointClassifier:
    torch.manual_seed(0)
    encoder = build_encoder("pointnet", embed_dim=16, widths=[8, 8])
    return build_classifier(encoder, CLASSES, seed=0, frozen=frozen, head=head, num_points=40)


def test_a_frozen_encoder_keeps_weights_and_batch_statistics() -> None:
    model = classifier(frozen=True)
    before = weights_sha256(model.encoder)
    model.train()
    assert not model.encoder.training
    assert model.head.training
    model(torch.from_numpy(CLOUDS)).sum().backward()
    assert weights_sha256(model.encoder) == before
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.head.parameters())
    model = classifier().train()
    model(torch.from_numpy(CLOUDS)).sum().backward()
    assert weights_sha256(model.encoder) != before  # the running statistics
    assert all(p.grad is not None for p in model.parameters())


def test_the_encoder_that_is_given_stays_as_it_is() -> None:
    encoder = build_encoder("pointnet", embed_dim=16, widths=[8, 8])
    before = weights_sha256(encoder)
    model = build_classifier(encoder, CLASSES, seed=0, num_points=40).train()
    model(torch.from_numpy(CLOUDS))
    assert weights_sha256(encoder) == before
    heads = [build_classifier(encoder, CLASSES, seed=s, num_points=40).head for s in (0, 0, 1)]
    assert weights_sha256(heads[0]) == weights_sha256(heads[1]) != weights_sha256(heads[2])
    with pytest.raises(ConfigError, match="num_points = 4: this encoder looks at 20 neighbours"):
        build_classifier(build_encoder("dgcnn"), CLASSES, seed=0, num_points=4)


def test_votes_are_the_mean_of_passes_of_which_the_first_is_plain() -> None:
    model = classifier().train()
    passes = model.probabilities(CLOUDS, voting=Voting(passes=3, rotation=360.0), batch_size=5)
    assert passes.shape == (3, 12, 4)
    assert model.training
    assert model.encoder.training
    np.testing.assert_allclose(passes.sum(axis=2), 1, atol=1e-5)
    plain = model.probabilities(CLOUDS)
    np.testing.assert_allclose(passes[0], plain[0], atol=1e-6)
    assert np.abs(passes[1] - passes[2]).max() > 1e-6
    voted = model.predict(CLOUDS, votes=3)
    again = model.probabilities(CLOUDS, voting=Voting(passes=3)).mean(axis=0)
    np.testing.assert_array_equal(voted.probabilities, again)
    assert voted.names == [CLASSES[label] for label in again.argmax(axis=1)]


def test_predictions_do_not_depend_on_batches_or_mode() -> None:
    model = classifier(head="linear")
    together = model.predict(CLOUDS)
    alone = model.predict(torch.from_numpy(CLOUDS[5]))
    np.testing.assert_allclose(alone.probabilities[0], together.probabilities[5], atol=1e-6)
    more = model.predict(np.concatenate([CLOUDS[:, :40], CLOUDS[:, ::-1][:, :8]], axis=1))
    np.testing.assert_array_equal(more.probabilities, together.probabilities)
    with pytest.raises(DataError, match="NaN or infinite"):
        model.predict(np.full((1, 40, 3), np.nan))
    with pytest.raises(DataError, match="clouds must be"):
        model.predict(np.zeros((2, 40, 2)))


def test_a_saved_classifier_comes_back(tmp_path: Path) -> None:
    for kind in ("mlp", "linear"):
        model = classifier(head=kind).eval()
        save_classifier(tmp_path / "cls", model, {"encoder": "e"})
        loaded = pixcloud.load_classifier(tmp_path / "cls")
        assert loaded.classes == CLASSES
        assert not loaded.training
        expected, found = model.predict(CLOUDS), loaded.predict(CLOUDS)
        np.testing.assert_array_equal(expected.probabilities, found.probabilities)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cls"]


def test_what_is_no_classifier_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no classifier there; expected config\.json and"):
        load_classifier(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep me")
    with pytest.raises(WeightsError, match="holds something that is no classifier"):
        save_classifier(tmp_path / "other", classifier())
    assert (tmp_path / "other" / "mine.txt").read_text() == "keep me"
    folder = tmp_path / "cls"
    save_classifier(folder, classifier())
    weights = (folder / "classifier.safetensors").read_bytes()
    (folder / "classifier.safetensors").write_bytes(weights[:100])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_classifier(folder)
    (folder / "classifier.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(WeightsError, match=r"not the weights that config.json beside it"):
        load_classifier(folder)
    meta = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(meta | {"classes": CLASSES[:2]}))
    with pytest.raises(WeightsError, match="of another shape"):
        load_classifier(folder)
    (folder / "config.json").write_text(json.dumps(meta | {"format": "other"}))
    with pytest.raises(WeightsError, match="describes no classifier"):
        load_classifier(folder)
