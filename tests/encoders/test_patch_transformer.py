"""The patch transformer: its slow twin, gradients, settings, and every protocol in tiny sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixcloud.encoders import PointEncoder, build_encoder
from pixcloud.errors import ConfigError
from pixcloud.evaluate.features import embed_clouds
from reference.plain_patch_transformer import plain_patch_transformer

SMALL = {
    "width": 12,
    "depth": 2,
    "heads": 3,
    "groups": 6,
    "group_size": 5,
    "mlp_ratio": 2,
    "patch_widths": [4, 6, 8],
}


def small() -> PointEncoder:
    torch.manual_seed(0)
    encoder = build_encoder("patch_transformer", **SMALL).double()
    for _ in range(3):  # running statistics that are not the initial ones
        encoder(torch.randn(4, 20, 3, dtype=torch.double))
    return encoder.eval()


@pytest.mark.parametrize("kind", ["random", "doubled", "few", "far"])
def test_as_written_out(kind: str) -> None:
    encoder = small()
    torch.manual_seed(1)
    points = torch.randn(2, 18, 3, dtype=torch.double)
    if kind == "doubled":  # six patches of nine different points, each of them twice
        points[:, 9:] = points[:, :9]
    if kind == "few":  # fewer different points than patches
        points = points[:, :4].repeat(1, 5, 1)
    if kind == "far":
        points = points + 1000
    with torch.no_grad():
        per_point, pooled = encoder(points)
        sizes = [SMALL[key] for key in ("groups", "group_size", "depth", "heads")]
        slow = plain_patch_transformer(encoder.state_dict(), points, *sizes)
    torch.testing.assert_close(pooled, slow[1], rtol=1e-9, atol=1e-9)
    # Where several centres are the same point, each twin may carry from another of them.
    torch.testing.assert_close(per_point, slow[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_gradients(training: bool) -> None:
    encoder = small().train(training)
    points = torch.randn(2, 12, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(encoder, points, fast_mode=True)


def test_published_sizes() -> None:
    with torch.device("meta"):
        encoder = build_encoder("patch_transformer")
    # 12 blocks of 12 width^2 and what is small beside it: 21.8 million, as in the paper's table.
    assert sum(p.numel() for p in encoder.parameters()) == 21_816_192
    assert (encoder.point_dim, encoder.pooled_dim, encoder.min_points) == (384, 768, 64)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"heads": 5}, "width = 12: a multiple of heads = 5"),
        ({"patch_widths": [4, 8]}, "three are expected"),
        ({"depth": 0}, "depth = 0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_encoder("patch_transformer", **{**SMALL, **settings})


def test_clouds_that_are_too_small_are_told() -> None:
    for sizes, words in (
        ({}, r"makes 6 patches of each cloud .*settings\.groups"),
        ({"group_size": 9}, r"makes patches of 9 points.*settings\.group_size"),
    ):
        encoder = build_encoder("patch_transformer", **{**SMALL, **sizes})
        with pytest.raises(ConfigError, match=words):
            embed_clouds(encoder, np.zeros((1, 5, 3)), num_points=5)
