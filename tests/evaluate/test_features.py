"""Embedding of data sets, and the features kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pixcloud.encoders import DGCNN, ENCODERS, build_encoder
from pixcloud.errors import DataError
from pixcloud.evaluate import features as features_module
from pixcloud.evaluate.features import (
    _remove_oldest,
    array_sha256,
    cached_features,
    embed_clouds,
    feature_folder,
)
from pixcloud.types import PointFeatures

CLOUDS = np.random.default_rng(0).standard_normal((7, 40, 3)).astype(np.float32) * 5 + 2


def small(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    settings = {"k": 5, "embed_dim": 8} if name == "dgcnn" else {"embed_dim": 16}
    return build_encoder(name, **settings)


def one_by_one(encoder: nn.Module, clouds: np.ndarray, num_points: int) -> np.ndarray:
    """The plain twin: each cloud alone, normalised with numpy, in float64."""
    encoder = encoder.double().eval()
    rows = []
    for cloud in clouds[:, :num_points].astype(np.float64):
        cloud = cloud - cloud.mean(axis=0)
        cloud = cloud / np.linalg.norm(cloud, axis=1).max()
        with torch.no_grad():
            rows.append(encoder(torch.from_numpy(cloud)[None]).pooled[0].numpy())
    encoder.float()
    return np.stack(rows)


@pytest.mark.parametrize("name", ["pointnet", "dgcnn"])
@pytest.mark.parametrize("batch_size", [1, 3, 128])
def test_features_are_those_of_each_cloud_alone(name: str, batch_size: int) -> None:
    encoder = small(name)
    found = embed_clouds(encoder, CLOUDS, num_points=32, batch_size=batch_size)
    assert found.dtype == np.float32
    assert found.shape == (7, encoder.pooled_dim)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, one_by_one(encoder, CLOUDS, 32), atol=1e-5)


def test_only_the_first_points_count_and_normalizing_can_be_left_out() -> None:
    encoder = small("pointnet")
    altered = CLOUDS.copy()
    altered[:, 32:] = np.nan
    kept = embed_clouds(encoder, CLOUDS, num_points=32)
    np.testing.assert_array_equal(kept, embed_clouds(encoder, altered, num_points=32))
    raw = embed_clouds(encoder, CLOUDS, num_points=32, normalize=False)
    assert np.abs(raw - kept).max() > 0.1


def test_mode_generator_and_statistics_are_as_before() -> None:
    encoder = small("pointnet").train()
    encoder.last.bn.eval()  # frozen on purpose
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    state = torch.get_rng_state()
    embed_clouds(encoder, CLOUDS, num_points=32, device="cpu")
    assert encoder.training
    assert not encoder.last.bn.training
    assert encoder.layers[0].bn.training
    assert all(torch.equal(before[name], now) for name, now in encoder.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    encoder(torch.from_numpy(CLOUDS)).pooled.sum().backward()  # still trainable


def test_mode_is_as_before_after_an_error() -> None:
    encoder = small("dgcnn").train()
    with pytest.raises(RuntimeError):
        embed_clouds(encoder, CLOUDS[:, :3], num_points=3, normalize=False, device="nowhere")
    assert encoder.training


def test_progress_counts_clouds() -> None:
    steps: list[tuple[int, int]] = []
    embed_clouds(
        small("pointnet"),
        CLOUDS,
        num_points=8,
        batch_size=3,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(3, 7), (6, 7), (7, 7)]


class Diverged(nn.Module):
    def forward(self, points: torch.Tensor) -> PointFeatures:
        return PointFeatures(None, points.sum(dim=1) * float("nan"))


def test_bad_input_is_named() -> None:
    encoder = small("pointnet")
    with pytest.raises(DataError, match="have 40 points but num_points is 1024: set num_points"):
        embed_clouds(encoder, CLOUDS)
    with pytest.raises(DataError, match=r"must be \(clouds, points, 3\)"):
        embed_clouds(encoder, CLOUDS[0])
    damaged = CLOUDS.copy()
    damaged[4, 3, 1] = np.inf
    with pytest.raises(DataError, match=r"1 of 7 clouds hold NaN .* the first is number 4"):
        embed_clouds(encoder, damaged, num_points=32)
    with pytest.raises(DataError, match="features of 7 of 7 clouds hold NaN"):
        embed_clouds(Diverged(), CLOUDS, num_points=32)


def test_features_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = small("pointnet")
    first = cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path)
    monkeypatch.setattr(features_module, "embed_clouds", None)  # calling it would fail
    again = cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path)
    assert (first.hit, again.hit) == (False, True)
    assert first.path == again.path
    np.testing.assert_array_equal(first.values, again.values)
    assert [path.name for path in tmp_path.iterdir()] == [first.path.name]


def test_whatever_changes_features_changes_the_file(tmp_path: Path) -> None:
    encoder = small("dgcnn")

    def path(enc: nn.Module = encoder, clouds: np.ndarray = CLOUDS, **options: object) -> Path:
        arguments = {"num_points": 32, "folder": tmp_path, **options}
        return cached_features(enc, clouds, **arguments).path

    reference = path()
    other_k = DGCNN(k=4, embed_dim=8)  # the same weights, other neighbourhoods
    other_k.load_state_dict(encoder.state_dict())
    nudged = CLOUDS.copy()
    nudged[6, 31, 2] += 1e-3
    others = [
        path(small("dgcnn", seed=1)),
        path(other_k),
        path(clouds=nudged),
        path(clouds=CLOUDS[::-1]),
        path(num_points=31),
        path(normalize=False),
        path(batch_size=4),
    ]
    assert len({reference, *others}) == 8
    unseen = CLOUDS.copy()
    unseen[:, 32:] = 0
    assert path(clouds=unseen) == reference


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign", "empty"])
def test_a_damaged_file_is_computed_anew_with_a_warning(tmp_path: Path, damage: str) -> None:
    encoder = small("pointnet")
    first = cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path)
    content = bytearray(first.path.read_bytes())
    content[-3] ^= 0xFF
    damaged = {
        "cut": bytes(content[: len(content) // 2]),
        "flip": bytes(content),
        "foreign": b"something else, longer than eight bytes",
        "empty": b"",
    }
    first.path.write_bytes(damaged[damage])
    said: list[str] = []
    again = cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path, say=said.append)
    assert not again.hit
    assert len(said) == 1
    assert str(first.path) in said[0]
    assert "damaged" in said[0]
    assert "\n" not in said[0]
    np.testing.assert_array_equal(first.values, again.values)
    assert cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path).hit


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    found = cached_features(
        small("pointnet"), CLOUDS, num_points=32, folder=tmp_path / "file", say=said.append
    )
    assert found.values.shape == (7, 16)
    assert "not kept" in said[0]


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXCLOUD_CACHE", "/somewhere")
    assert feature_folder() == Path("/somewhere/features")
    monkeypatch.delenv("PIXCLOUD_CACHE")
    assert feature_folder() == Path.home() / ".cache" / "pixcloud" / "features"


def test_the_files_not_used_for_longest_go_first(tmp_path: Path) -> None:
    import os

    for age, name in enumerate(["new", "middle", "old", "oldest"]):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    _remove_oldest(tmp_path, keep=tmp_path / "oldest.safetensors", limit=250)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["new", "oldest"]


def test_array_hash_sees_dtype_shape_and_content() -> None:
    array = np.arange(6, dtype=np.int32)
    hashes = {
        array_sha256(array),
        array_sha256(array.reshape(2, 3)),
        array_sha256(array.view(np.float32)),
        array_sha256(array[::-1]),
    }
    assert len(hashes) == 4
    assert array_sha256(np.asfortranarray(array.reshape(2, 3))) in hashes


def test_every_registered_encoder_can_be_embedded() -> None:
    for name in ENCODERS:
        assert embed_clouds(build_encoder(name), CLOUDS[:2], num_points=40).shape[0] == 2
