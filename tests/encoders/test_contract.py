"""What every registered point encoder keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pixcloud.encoders import ENCODERS, PointEncoder, build_encoder, register_encoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.errors import ConfigError
from pixcloud.export import load_encoder, save_encoder, weights_sha256
from pixcloud.objective import CrossModalObjective

SMALL = {
    "pointnet": {"embed_dim": 16, "widths": [8, 12], "transforms": True},
    "dgcnn": {"k": 4, "embed_dim": 16, "widths": [8, 8, 8, 8]},
    "dgcnn_seg": {"k": 4, "embed_dim": 16, "widths": [8, 8, 8, 8, 8]},
    "patch_transformer": {
        "width": 12,
        "depth": 2,
        "heads": 3,
        "groups": 6,
        "group_size": 5,
        "patch_widths": [4, 6, 8],
    },
    "pct": {"k": 4, "embed_dim": 16, "channels": 4, "centres": [12, 8], "point_features": True},
}
every = pytest.mark.parametrize("name", sorted(ENCODERS))


def build(name: str) -> PointEncoder:
    torch.manual_seed(0)
    return build_encoder(name, **SMALL[name])


@every
def test_shapes(name: str) -> None:
    encoder = build(name)
    per_point, pooled = encoder(torch.rand(3, 20, 3))
    assert pooled.shape == (3, encoder.pooled_dim)
    if encoder.point_dim is None:
        assert per_point is None
    else:
        assert per_point is not None
        assert per_point.shape == (3, 20, encoder.point_dim)


@every
def test_order_of_points_does_not_matter(name: str) -> None:
    encoder = build(name).double().eval()
    x = torch.randn(2, 30, 3, dtype=torch.float64)
    order = torch.randperm(30)
    with torch.no_grad():
        (points, pooled), (points2, pooled2) = encoder(x), encoder(x[:, order])
    assert torch.allclose(pooled, pooled2, rtol=1e-10, atol=1e-12)
    if points is not None and points2 is not None:
        assert torch.allclose(points[:, order], points2, rtol=1e-10, atol=1e-12)


@every
def test_clouds_do_not_see_each_other_in_evaluation(name: str) -> None:
    encoder = build(name).double().eval()
    x = torch.randn(8, 30, 3, dtype=torch.float64)
    with torch.no_grad():
        together = encoder(x).pooled
        alone = torch.cat([encoder(x[i : i + 1]).pooled for i in range(8)])
    assert torch.allclose(together, alone, rtol=1e-10, atol=1e-12)


@every
def test_every_weight_gets_a_gradient_in_pre_training(name: str) -> None:
    encoder = build(name)
    objective = CrossModalObjective(
        encoder, ImageEncoder("resnet-tiny"), point_hidden=8, image_hidden=8, projection_dim=8
    )
    x = torch.randn(4, 24, 3)
    objective(x, x + 0.1 * torch.randn_like(x), torch.rand(4, 3, 32, 32))["loss"].backward()
    for key, parameter in objective.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@every
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    encoder = build(name)
    encoder.train()(torch.randn(4, 24, 3))  # running statistics that are not the initial ones
    save_encoder(tmp_path / "encoder", encoder)
    again = load_encoder(tmp_path)
    assert weights_sha256(again) == weights_sha256(encoder)
    x = torch.randn(2, 24, 3)
    assert torch.equal(again.embed(x), encoder.embed(x))
    assert (again.point_dim, again.pooled_dim) == (encoder.point_dim, encoder.pooled_dim)


@every
def test_embed(name: str) -> None:
    encoder = build(name).train()
    cloud = torch.randn(24, 3)
    single = encoder.embed(cloud.numpy())
    assert single.shape == (encoder.pooled_dim,)
    assert encoder.training, "embedding changed the mode"
    # normalised: place and size of a cloud do not matter
    assert torch.allclose(single, encoder.embed(cloud * 7 + 3), atol=1e-4)
    with pytest.raises(ValueError, match="must be"):
        encoder.embed(torch.rand(5, 4))
    with pytest.raises(ValueError, match="NaN"):
        encoder.embed(torch.full((5, 3), float("nan")))


def test_published_sizes() -> None:
    dgcnn = build_encoder("dgcnn")
    assert (dgcnn.point_dim, dgcnn.pooled_dim) == (512, 2048)
    shapes = {name: tuple(p.shape) for name, p in dgcnn.named_parameters() if p.dim() > 1}
    assert shapes == {
        "convs.0.linear.weight": (64, 6),
        "convs.1.linear.weight": (64, 128),
        "convs.2.linear.weight": (128, 128),
        "convs.3.linear.weight": (256, 256),
        "fuse.weight": (1024, 512),
    }
    parts = ["linear.weight"]
    parts += [f"bn.{p}" for p in ("weight", "bias", "running_mean", "running_var")]
    parts += ["bn.num_batches_tracked"]
    names = [f"convs.{i}.{part}" for i in range(4) for part in parts]
    names += ["fuse.weight", *parts[1:]]
    assert list(dgcnn.state_dict()) == names
    assert sum(p.numel() for p in dgcnn.parameters()) == 617_856
    pointnet = build_encoder("pointnet")
    assert sum(p.numel() for p in pointnet.parameters()) == 150_336
    assert pointnet.pooled_dim == 1024
    assert [tuple(p.shape) for p in pointnet.parameters() if p.dim() > 1] == [
        *((64, 3), (64, 64), (64, 64), (128, 64), (1024, 128))
    ]


def test_names_and_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown encoder 'dgcn': the nearest known one is 'dgc"):
        build_encoder("dgcn")
    with pytest.raises(ConfigError, match=r"unknown setting 'embed' of dgcnn.*'embed_dim'"):
        build_encoder("dgcnn", embed=3)
    with pytest.raises(ConfigError, match="is taken by DGCNN"):
        register_encoder("dgcnn", PointEncoder)


@every
def test_embed_leaves_each_module_in_its_mode(name: str) -> None:
    encoder = build(name).train()
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm1d)]
    norms[0].eval()
    encoder.embed(torch.rand(2, 32, 3))
    assert encoder.training
    assert not norms[0].training


@every
def test_features_changed_in_place_give_right_gradients_or_none(name: str) -> None:
    """What a head with `inplace=True` does to per-point features that earlier layers have saved."""

    def gradients(inplace: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        encoder = build(name).double()
        per_point = encoder(torch.rand(2, 32, 3, dtype=torch.double)).per_point
        nn.functional.dropout(per_point, 0.5, True, inplace=inplace).square().sum().backward()
        return [p.grad for p in encoder.parameters() if p.grad is not None]

    expected = gradients(False)
    try:
        found = gradients(True)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)  # noqa: PT017
        return
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b)
