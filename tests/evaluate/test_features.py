"""Embedding of data sets, and the features kept on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pixcloud.encoders import ENCODERS, build_encoder
from pixcloud.errors import ConfigError, DataError
from pixcloud.evaluate.features import embed_clouds
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
        embed_clouds(encoder, CLOUDS[:, :8], num_points=8, normalize=False, device="nowhere")
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
    with pytest.raises(ConfigError, match="num_points = 4: this encoder looks at 5 neighbours"):
        embed_clouds(small("dgcnn"), CLOUDS, num_points=4)
    with pytest.raises(DataError, match="features of 7 of 7 clouds hold NaN"):
        embed_clouds(Diverged(), CLOUDS, num_points=32)


def test_every_registered_encoder_can_be_embedded() -> None:
    for name in ENCODERS:
        encoder = build_encoder(name)
        count = max(40, encoder.min_points)
        clouds = np.random.default_rng(0).normal(size=(2, count, 3))
        features = embed_clouds(encoder, clouds, num_points=count)
        assert features.shape == (2, encoder.pooled_dim)
